# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits of a rule and of each of its sources: how many flows at once, and how many new ones in a time.

What is refused is dropped, counted by reason and by rule, and pushes nobody out. Whoever is under the limit gets in.
"""

import contextlib
import signal
import socket
import time

import pytest

from netns import Pair, Thread, eventually, family_of
from peers import TcpEcho, UdpEcho, receive
from redirectd import Daemon

FAMILIES = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
SERVERS = {4: Pair.SERVER4, 6: Pair.SERVER6}
# Clients of one source, and of others: an address of IPv4, a /64 of IPv6.
SAME = {4: ["192.0.2.10"], 6: ["2001:db8:5::1", "2001:db8:5::2", "2001:db8:5:0:ffff::3"]}
OTHERS = {4: ["192.0.2.11", "192.0.2.12"], 6: ["2001:db8:6::1", "2001:db8:7::1"]}


@pytest.fixture(scope="class")
def net(pair):
    """More addresses for the client; the server knows the way to all of them."""
    for address in SAME[4] + OTHERS[4]:
        pair.client.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
    for address in SAME[6] + OTHERS[6]:
        pair.client.run("ip", "address", "add", f"{address}/128", "dev", "eth0", "nodad")
    pair.server.run("ip", "route", "add", "2001:db8::/32", "via", Pair.CLIENT6)
    yield pair


class Clients:
    """UDP sockets of which each is a flow."""

    def __init__(self, net, version, port=5300):
        self.net, self.to = net, (SERVERS[version], port)
        self.family = family_of(SERVERS[version])
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stack.close()

    def gets_in(self, source=None):
        """Does a new one get an answer?"""
        s = self.stack.enter_context(self.net.client.open_socket(self.family, socket.SOCK_DGRAM))
        if source:
            s.bind((source, 0))
        s.connect(self.to)
        return self.asks(s)

    def asks(self, s):
        s.settimeout(0.3)
        for _ in range(3):
            s.send(b"q")
            with contextlib.suppress(TimeoutError):
                return s.recv(10) == b"echo:q" and s
        return None


@contextlib.contextmanager
def serving(net, version, rule, **more):
    with Daemon(net.server, rule, **more) as daemon, UdpEcho(net.server, SERVERS[version], 53), \
            Clients(net, version) as clients:
        yield daemon, clients


def refused(daemon, rule="u"):
    return daemon.rule(rule)["counters"]["refused"]


@FAMILIES
class TestMaxFlows:
    def test_so_many_get_in(self, net, version):
        with serving(net, version, "udp 5300 to 53 name u max-flows 5") as (daemon, clients):
            inside = [clients.gets_in() for _ in range(5)]
            assert all(inside)
            assert not clients.gets_in()
            assert all(clients.asks(s) for s in inside), "those that are in stay in"
            assert daemon.rule("u")["counters"]["active"] == 5
            assert daemon.json("stats")["drops"]["max_flows"] == refused(daemon) == 3
            assert daemon.json("stats")["flows"]["insert_failed"] == 3

    def test_room_comes_back(self, net, version):
        rule = "udp 5300 to 53 name u max-flows 2 timeout udp 1s timeout udp-stream 1s"
        with serving(net, version, rule) as (_, clients):
            assert clients.gets_in() and clients.gets_in()
            eventually(clients.gets_in, "a flow has expired")

    def test_limit_is_changed(self, net, version):
        """Of a rule that is changed the flows that are there count as well."""
        with serving(net, version, "udp 5300 to 53 name u max-flows 2") as (daemon, clients):
            assert clients.gets_in() and clients.gets_in()
            daemon.ctl("replace", "u", *"udp 5300 to 53 name u max-flows 3".split())
            assert clients.gets_in() and not clients.gets_in()
            daemon.ctl("replace", "u", *"udp 5300 to 53 name u".split())
            assert clients.gets_in()
            daemon.ctl("replace", "u", *"udp 5300 to 53 name u max-flows 4".split())
            assert not clients.gets_in()

    def test_without_a_daemon_and_with_an_heir(self, net, version):
        with serving(net, version, "udp 5300 to 53 name u max-flows 3") as (daemon, clients):
            assert clients.gets_in()
            daemon.end(signal.SIGKILL)
            assert clients.gets_in() and clients.gets_in() and not clients.gets_in()
            daemon.start()
            assert not clients.gets_in()
            assert daemon.rule("u")["counters"]["active"] == 3

    def test_expired_flows_do_not_count(self, net, version):
        """Also while no daemon runs that would sweep them up."""
        rule = "udp 5300 to 53 name u max-flows 2 max-flows 1 per source timeout udp 1s timeout udp-stream 1s"
        one, other = SAME[version][0], OTHERS[version][0]
        with serving(net, version, rule, config="flows-max 1024\n") as (daemon, clients):
            assert clients.gets_in(one) and clients.gets_in(other)
            daemon.end(signal.SIGKILL)
            time.sleep(1.5)
            assert clients.gets_in(one) and clients.gets_in(other)
            daemon.start()

    def test_many_at_once(self, net, version):
        """Exactly as many connections as may, whatever the processors do at once."""
        with Daemon(net.server, "tcp 8080 to 80 name t max-flows 20") as daemon, TcpEcho(net.server, 80):
            def connect():
                with contextlib.suppress(OSError):
                    s = net.client.open_socket(family_of(SERVERS[version]), socket.SOCK_STREAM)
                    s.settimeout(2)
                    s.connect((SERVERS[version], 8080))
                    return s
                return None

            threads = [Thread(connect) for _ in range(60)]
            connected = [s for s in (t.result() for t in threads) if s]
            assert len(connected) == 20
            assert daemon.rule("t")["counters"]["active"] == 20
            for s in connected:
                s.sendall(b"hello")
                assert receive(s, 5) == b"hello"
                s.close()


@FAMILIES
class TestMaxFlowsPerSource:
    def test_so_many_of_each(self, net, version):
        rule = "udp 5300 to 53 name u max-flows 3 per source"
        with serving(net, version, rule) as (daemon, clients):
            sources = (SAME[version] * 3)[:3]
            assert all(clients.gets_in(source) for source in sources)
            assert not clients.gets_in(SAME[version][-1])
            for other in OTHERS[version]:
                assert all(clients.gets_in(other) for _ in range(3))
                assert not clients.gets_in(other)
            assert daemon.json("stats")["drops"]["source_max_flows"] == refused(daemon) == 9

    def test_room_comes_back(self, net, version):
        rule = ("udp 5300 to 53 name u max-flows 1 per source max-flows 2 "
                "timeout udp 5s timeout udp-stream 5s")
        with serving(net, version, rule) as (daemon, clients):
            same, (one, other) = SAME[version][0], OTHERS[version]
            assert clients.gets_in(same) and not clients.gets_in(same)
            assert clients.gets_in(one)
            assert not clients.gets_in(other), "the rule is full"
            eventually(lambda: clients.gets_in(other), "a flow has expired")
            eventually(lambda: clients.gets_in(same), "that of the source has")
            eventually(lambda: not daemon.flows(), "all have")
            for source in (same, one):
                eventually(lambda source=source: clients.gets_in(source), "they have been swept up")

    def test_of_a_rule_only(self, net, version):
        with serving(net, version, "udp 5300 to 53 name u max-flows 1 per source") as (daemon, clients):
            daemon.add("udp 5301 to 53 name v max-flows 1 per source")
            with Clients(net, version, 5301) as more:
                assert clients.gets_in() and more.gets_in()
                assert not clients.gets_in() and not more.gets_in()

    def test_deleted_flows_do_not_count(self, net, version):
        with serving(net, version, "udp 5300 to 53 name u max-flows 2 per source") as (daemon, clients):
            for _ in range(3):
                assert clients.gets_in() and clients.gets_in() and not clients.gets_in()
                daemon.ctl("conntrack", "flush")


@FAMILIES
class TestRate:
    def test_burst_then_rate(self, net, version):
        """Five at once, then one in ten seconds: the sixth waits, and comes in its turn."""
        with serving(net, version, "udp 5300 to 53 name u rate 6/m burst 5") as (daemon, clients):
            began = time.monotonic()
            assert all(clients.gets_in() for _ in range(5))
            assert not clients.gets_in()
            assert daemon.json("stats")["drops"]["rate"] == refused(daemon) == 3
            eventually(clients.gets_in, "its turn has come")
            assert time.monotonic() - began > 9.9

    def test_established_are_not_slowed(self, net, version):
        with serving(net, version, "udp 5300 to 53 name u rate 1/h") as (_, clients):
            s = clients.gets_in()
            assert all(clients.asks(s) for _ in range(50))
            assert not clients.gets_in()

    def test_of_each_source(self, net, version):
        rule = "udp 5300 to 53 name u rate 2/h per source"
        with serving(net, version, rule) as (daemon, clients):
            for source in (SAME[version][0], *OTHERS[version]):
                assert clients.gets_in(source) and clients.gets_in(source)
                assert not clients.gets_in(source)
            assert daemon.json("stats")["drops"]["source_rate"] == refused(daemon) == 9

    def test_sources_do_not_start_afresh(self, net, version):
        """A rate is owed also by a source whose flows have all ended, with and without a daemon."""
        rule = "udp 5300 to 53 name u rate 2/h per source timeout udp 1s timeout udp-stream 1s"
        with serving(net, version, rule) as (daemon, clients):
            assert clients.gets_in() and clients.gets_in()
            eventually(lambda: not daemon.flows(), "they have expired")
            time.sleep(2.5)  # the daemon has looked after the sources
            assert not clients.gets_in()
            daemon.end(signal.SIGKILL)
            assert not clients.gets_in()
            daemon.start()
            assert not clients.gets_in()

    def test_refused_by_the_rule_costs_a_source_nothing(self, net, version):
        rule = "udp 5300 to 53 name u max-flows 1 rate 2/h per source timeout udp 6s timeout udp-stream 6s"
        with serving(net, version, rule) as (daemon, clients):
            one, other = OTHERS[version]
            assert clients.gets_in(one)
            for _ in range(4):
                assert not clients.gets_in(other)
            eventually(lambda: clients.gets_in(other), "the first has expired")


@FAMILIES
class TestTimeouts:
    def test_of_a_rule(self, net, version):
        """Its flows go by its own, those of others by the configuration; a change of it reaches them."""
        config = "timeout udp 60s\nredirect udp 5300 to 53 name u timeout udp 2h\nredirect udp 5301 to 53 name v\n"
        with Daemon(net.server, config=config) as daemon, UdpEcho(net.server, SERVERS[version], 53), \
                Clients(net, version) as clients, Clients(net, version, 5301) as others:
            clients.gets_in()
            others.gets_in()
            left = {f["original"]["dport"]: f["expires_ms"] for f in daemon.flows()}
            assert 60_000 < left[5300] <= 7_200_000 and left[5301] <= 60_000
            daemon.ctl("replace", "u", *"udp 5300 to 53 name u timeout udp 1s".split())
            eventually(lambda: {f["original"]["dport"] for f in daemon.flows()} == {5301}, "it has expired")
            assert daemon.rule("u")["rule"] == "udp 5300 to 53 name u timeout udp 1s"

    def test_of_a_rule_without_a_daemon(self, net, version):
        with serving(net, version, "udp 5300 to 53 name u timeout udp 1s timeout udp-stream 1s") as (daemon, clients):
            s = clients.gets_in()
            daemon.end(signal.SIGKILL)
            time.sleep(1.5)
            assert clients.asks(s)
            daemon.start()
            assert daemon.rule("u")["counters"]["flows"] == 2
