# SPDX-License-Identifier: GPL-2.0-or-later
"""Which packets a rule takes: from, listen address, interface, `*`, ranges, the most specific."""

import contextlib

import pytest

from netns import Namespace, Pair, eventually, veth
from peers import TcpEcho, UdpEcho, receive, tcp_ask, tcp_refused, udp_ask, udp_refused
from redirectd import Daemon

BOTH = pytest.mark.parametrize("server", Pair.SERVERS, ids=["ipv4", "ipv6"])


def ask_who(ns, address, port, length=1, **where):
    """Connects and reads the greeting, which names the port that answers."""
    with ns.connect(address, port, **where) as s:
        return receive(s, length)


@contextlib.contextmanager
def services(ns, *ports):
    """Echo servers that greet with the last digit of their port."""
    with contextlib.ExitStack() as stack:
        for port in ports:
            stack.enter_context(TcpEcho(ns, port, greeting=str(port)[-1].encode()))
        yield


@pytest.fixture
def rules(pair):
    """Starts daemons in the server's namespace; the last one is stopped at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda *r, **more: stack.enter_context(Daemon(pair.server, *r, **more))


class TestFrom:
    def test_only_clients_from_there(self, pair, rules):
        for address in ("192.0.2.9/24", "2001:db8::9/64"):
            pair.client.run("ip", "address", "replace", address, "dev", "eth0",
                            *(["nodad"] if ":" in address else []))
        rules("tcp 8080 to 81 from 192.0.2.9,2001:db8::9")
        with services(pair.server, 81):
            for server, inside, outside in ((Pair.SERVER4, "192.0.2.9", Pair.CLIENT4),
                                            (Pair.SERVER6, "2001:db8::9", Pair.CLIENT6)):
                assert ask_who(pair.client, server, 8080, source=inside) == b"1"
                assert tcp_refused(pair.client, server, 8080, source=outside)

    def test_prefix(self, pair, rules):
        rules("tcp 8080 to 81 from 192.0.2.0/25", "tcp 8081 to 81 from 192.0.2.128/25")
        with services(pair.server, 81):
            assert ask_who(pair.client, Pair.SERVER4, 8080) == b"1"
            assert tcp_refused(pair.client, Pair.SERVER4, 8081)
            assert tcp_refused(pair.client, Pair.SERVER6, 8080)

    def test_narrower_source_wins(self, pair, rules):
        rules("tcp 8080 to 81", "tcp 8080 to 82 from 192.0.2.0/24", f"tcp 8080 to 83 from {Pair.CLIENT4}")
        pair.client.run("ip", "address", "replace", "192.0.2.9/24", "dev", "eth0")
        with services(pair.server, 81, 82, 83):
            assert ask_who(pair.client, Pair.SERVER6, 8080) == b"1"
            assert ask_who(pair.client, Pair.SERVER4, 8080, source="192.0.2.9") == b"2"
            assert ask_who(pair.client, Pair.SERVER4, 8080, source=Pair.CLIENT4) == b"3"


class TestListen:
    def test_address(self, pair, rules):
        rules(f"tcp {Pair.SERVER4}:8080 to 81", f"tcp [{Pair.OTHER6}]:8080 to 82")
        with services(pair.server, 81, 82):
            assert ask_who(pair.client, Pair.SERVER4, 8080) == b"1"
            assert tcp_refused(pair.client, Pair.OTHER4, 8080)
            assert ask_who(pair.client, Pair.OTHER6, 8080) == b"2"
            assert tcp_refused(pair.client, Pair.SERVER6, 8080)

    def test_more_specific_address_wins(self, pair, rules):
        rules("tcp 8080 to 81", "tcp 192.0.2.0/24:8080 to 82", f"tcp {Pair.SERVER4}:8080 to 83")
        with services(pair.server, 81, 82, 83):
            assert ask_who(pair.client, Pair.SERVER6, 8080) == b"1"
            assert ask_who(pair.client, Pair.OTHER4, 8080) == b"2"
            assert ask_who(pair.client, Pair.SERVER4, 8080) == b"3"

    def test_address_that_appears_later(self, pair, rules):
        """Left out means any address of this host, one that it gets tomorrow included."""
        rules("tcp 8080 to 81")
        pair.server.run("ip", "address", "replace", "192.0.2.77/24", "dev", "eth0")
        with services(pair.server, 81):
            eventually(lambda: not tcp_refused(pair.client, "192.0.2.77", 8080), "the daemon has heard of it")
            assert ask_who(pair.client, "192.0.2.77", 8080) == b"1"


class TestRanges:
    @BOTH
    def test_shifted(self, pair, rules, server):
        rules("tcp 8000-8003 to 9000-9003")
        with services(pair.server, 9000, 9001, 9003):
            assert ask_who(pair.client, server, 8000) == b"0"
            assert ask_who(pair.client, server, 8001) == b"1"
            assert tcp_refused(pair.client, server, 8002)
            assert ask_who(pair.client, server, 8003) == b"3"
            assert tcp_refused(pair.client, server, 8004)
            assert tcp_refused(pair.client, server, 7999)

    @BOTH
    def test_folded(self, pair, rules, server):
        rules("tcp+udp 8000-8999 to 81")
        with services(pair.server, 81), UdpEcho(pair.server, server, 81):
            for port in (8000, 8500, 8999):
                assert ask_who(pair.client, server, port) == b"1"
                assert udp_ask(pair.client, server, port) == b"echo:hello"
            assert tcp_refused(pair.client, server, 9000)

    def test_folded_ports_from_one_client_port(self, pair, rules):
        """Same client port to two ports that fold onto one: both answers find their way."""
        rules("udp 8000-8999 to 81")
        with UdpEcho(pair.server, Pair.SERVER4, 81):
            s = pair.client.open_socket(2, 2)
            with s:
                s.bind((Pair.CLIENT4, 40000))
                s.sendto(b"one", (Pair.SERVER4, 8001))
                assert s.recvfrom(100) == (b"echo:one", (Pair.SERVER4, 8001))
                s.sendto(b"two", (Pair.SERVER4, 8002))
                assert s.recvfrom(100) == (b"echo:two", (Pair.SERVER4, 8002))
                s.sendto(b"three", (Pair.SERVER4, 8001))
                assert s.recvfrom(100) == (b"echo:three", (Pair.SERVER4, 8001))

    def test_narrower_range_wins(self, pair, rules):
        rules("tcp 8000-8999 to 81", "tcp 8100-8199 to 82", "tcp 8150 to 83")
        with services(pair.server, 81, 82, 83):
            for port, answer in ((8000, b"1"), (8100, b"2"), (8150, b"3"), (8199, b"2"), (8200, b"1")):
                assert ask_who(pair.client, Pair.SERVER4, port) == answer

    def test_every_port(self, pair, rules):
        rules("tcp 1-65535 to 81 from 192.0.2.0/24")
        with services(pair.server, 81):
            for port in (1, 22, 65535):
                assert ask_who(pair.client, Pair.SERVER4, port) == b"1"


class TestProtocol:
    @BOTH
    def test_one_does_not_take_the_other(self, pair, rules, server):
        rules("tcp 8080 to 81", "udp 8081 to 81")
        with services(pair.server, 81), UdpEcho(pair.server, server, 81):
            assert ask_who(pair.client, server, 8080) == b"1"
            assert udp_refused(pair.client, server, 8080)
            assert udp_ask(pair.client, server, 8081) == b"echo:hello"
            assert tcp_refused(pair.client, server, 8081)

    def test_disabled_and_enabled(self, pair, rules):
        daemon = rules("tcp 8080 to 81 name web disabled")
        with services(pair.server, 81):
            assert tcp_refused(pair.client, Pair.SERVER4, 8080)
            daemon.ctl("enable", "web")
            assert ask_who(pair.client, Pair.SERVER4, 8080) == b"1"
            daemon.ctl("disable", "web")
            assert tcp_refused(pair.client, Pair.SERVER4, 8080)


@pytest.fixture(scope="class")
def routed():
    """client — router — server; the router forwards both families."""
    with Namespace("c") as client, Namespace("r") as router, Namespace("s") as server:
        veth(client, "eth0", ["192.0.2.1/24", "2001:db8::1/64"],
             router, "in0", ["192.0.2.254/24", "2001:db8::fe/64"])
        veth(router, "out0", ["198.51.100.254/24", "2001:db8:1::fe/64"],
             server, "eth0", ["198.51.100.2/24", "2001:db8:1::2/64"])
        for ns, gateway4, gateway6 in ((client, "192.0.2.254", "2001:db8::fe"),
                                       (server, "198.51.100.254", "2001:db8:1::fe")):
            ns.run("ip", "route", "add", "default", "via", gateway4)
            ns.run("ip", "route", "add", "default", "via", gateway6)
        router.sysctl("ipv4/ip_forward", 1)
        router.sysctl("ipv6/conf/all/forwarding", 1)
        yield client, router, server


class TestTransit:
    SERVERS = ("198.51.100.2", "2001:db8:1::2")

    @pytest.mark.parametrize("address", SERVERS, ids=["ipv4", "ipv6"])
    def test_star_takes_packets_in_transit(self, routed, address):
        client, router, server = routed
        with Daemon(router, "tcp+udp *:8080 to 81"), services(server, 81), UdpEcho(server, address, 81):
            assert ask_who(client, address, 8080) == b"1"
            assert udp_ask(client, address, 8080) == b"echo:hello"
            assert tcp_ask(client, address, 81)[:1] == b"1"

    @pytest.mark.parametrize("address", SERVERS, ids=["ipv4", "ipv6"])
    def test_local_rules_leave_transit_alone(self, routed, address):
        client, router, server = routed
        with Daemon(router, "tcp 8080 to 81"), services(server, 81):
            assert tcp_refused(client, address, 8080)

    @pytest.mark.parametrize("address", SERVERS, ids=["ipv4", "ipv6"])
    def test_prefix_takes_packets_in_transit(self, routed, address):
        client, router, server = routed
        prefix = "198.51.100.0/24" if ":" not in address else "[2001:db8:1::]/64"
        with Daemon(router, f"tcp {prefix}:8080 to 81"), services(server, 81):
            assert ask_who(client, address, 8080) == b"1"

    def test_interface(self, routed):
        client, router, server = routed
        with Daemon(router, "tcp 8080 to 81 on in0") as daemon, services(router, 81):
            assert ask_who(client, "192.0.2.254", 8080) == b"1"
            assert tcp_refused(server, "198.51.100.254", 8080)
            assert tcp_refused(router, "127.0.0.1", 8080)
            daemon.add("tcp 8081 to 81 on out0,lo")
            assert tcp_refused(client, "192.0.2.254", 8081)
            assert ask_who(server, "198.51.100.254", 8081) == b"1"
            assert ask_who(router, "127.0.0.1", 8081) == b"1"

    def test_interface_rule_beats_general_rule(self, routed):
        client, router, server = routed
        with Daemon(router, "tcp 8080 to 81", "tcp 8080 to 82 on in0"), services(router, 81, 82):
            assert ask_who(client, "192.0.2.254", 8080) == b"2"
            assert ask_who(server, "198.51.100.254", 8080) == b"1"

    def test_i_says_where_rules_without_on_apply(self, routed):
        client, router, server = routed
        with Daemon(router, "tcp 8080 to 81", arguments=["-i", "out0"]), services(router, 81):
            assert tcp_refused(client, "192.0.2.254", 8080)
            assert ask_who(server, "198.51.100.254", 8080) == b"1"

    @pytest.mark.parametrize("address", SERVERS, ids=["ipv4", "ipv6"])
    def test_address_of_another_interface(self, routed, address):
        """Weak host model: the router's far address, asked from this side, is still its own."""
        client, router, _ = routed
        far = "198.51.100.254" if ":" not in address else "2001:db8:1::fe"
        with Daemon(router, "tcp 8080 to 81 on in0"), services(router, 81):
            assert ask_who(client, far, 8080) == b"1"

    def test_reply_leaves_by_another_interface(self, routed):
        """Asymmetric routing: the answer goes out where the rule does not look, still translated."""
        client, router, server = routed
        router.run("ip", "link", "add", "in1", "type", "veth", "peer", "name", "eth1", "netns", client.name)
        try:
            client.run("ip", "link", "set", "eth1", "up")
            router.run("ip", "link", "set", "in1", "up")
            for ns in (client, router):
                ns.sysctl("ipv4/conf/all/rp_filter", 0)
                for device in ("eth1",) if ns is client else ("in1", "in0"):
                    ns.sysctl(f"ipv4/conf/{device}/rp_filter", 0)
            client.sysctl("ipv4/conf/eth0/rp_filter", 0)
            router.run("ip", "address", "add", "203.0.113.254/24", "dev", "in1")
            client.run("ip", "address", "add", "203.0.113.1/32", "dev", "lo")
            router.run("ip", "route", "add", "203.0.113.1/32", "dev", "in1", "src", "203.0.113.254")
            client.sysctl("ipv4/conf/eth1/arp_ignore", 0)
            with Daemon(router, "tcp 8080 to 81 on in0"), services(router, 81):
                assert ask_who(client, "192.0.2.254", 8080, source="203.0.113.1") == b"1"
        finally:
            router.run("ip", "link", "delete", "in1")
