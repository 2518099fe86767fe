# SPDX-License-Identifier: GPL-2.0-or-later
"""Which source the datapath would give masqueraded packets, as the host's addresses come and go.

Reads the map itself; where the kernel masquerades too, by nftables, both must choose alike.
"""

import contextlib
import glob
import ipaddress
import json
import signal
import socket
import subprocess

import pytest

from netns import Namespace, eventually, family_of, host, veth
from peers import TcpEcho, UdpEcho
from redirectd import Daemon

ANY = 0


def mapped(address):
    address = ipaddress.ip_address(address)
    return address if address.version == 6 else ipaddress.IPv6Address(f"::ffff:{address}")


def plain(address):
    return str(address.ipv4_mapped or address)


class Sources:
    """The map as it is now."""

    def __init__(self, daemon):
        path, = glob.glob(f"{daemon.pins}/v*/sources")
        dump = json.loads(subprocess.run(["bpftool", "-j", "map", "dump", "pinned", path], check=True,
                                         capture_output=True, text=True).stdout)
        self.entries = {}
        for entry in dump:
            if "error" in entry["value"]:
                continue  # gone since bpftool saw its key
            key, value = (bytes(int(b, 16) for b in entry[part]) for part in ("key", "value"))
            length, ifindex = int.from_bytes(key[:4], "little"), int.from_bytes(key[4:8], "little")
            prefix = ipaddress.IPv6Network((key[8:], length - 32))
            self.entries[ifindex, prefix] = plain(ipaddress.IPv6Address(value))

    def choose(self, ifindex, next_hop):
        """As a packet does: the longest prefix of the interface, else of none."""
        for index in (ifindex, ANY):
            found = [(prefix.prefixlen, source) for (i, prefix), source in self.entries.items()
                     if i == index and mapped(next_hop) in prefix]
            if found and (":" in next_hop) == (":" in max(found)[1]):
                return max(found)[1]
        return None


class Router:
    """A host with an interface "out" to a neighbour, and a client behind it."""

    def __init__(self, stack):
        self.host = stack.enter_context(Namespace("r"))
        self.client = stack.enter_context(Namespace("c"))
        self.peer = stack.enter_context(Namespace("p"))
        veth(self.client, "eth0", ["192.0.2.2/24", "2001:db8::2/64"], self.host, "in", [])
        for ns in (self.host, self.client, self.peer):
            ns.sysctl("ipv6/conf/all/forwarding", 1 if ns is self.host else 0)
            ns.sysctl("ipv4/ip_forward", 1 if ns is self.host else 0)
        self.client.run("ip", "route", "add", "default", "via", "192.0.2.1", "dev", "eth0")
        self.client.run("ip", "-6", "route", "add", "default", "via", "2001:db8::1", "dev", "eth0")
        self.daemon = stack.enter_context(Daemon(self.host, "tcp 1 to 2"))

    def reset(self):
        """As at the beginning: "out" without an address, its neighbour too."""
        run = self.host.run
        run("ip", "link", "delete", "out", check=False)
        veth(self.peer, "eth0", [], self.host, "out", [])
        self.host.sysctl("ipv6/conf/out/use_tempaddr", 1)  # made, but not preferred
        run("nft", "flush", "ruleset")
        for ns in (self.host, self.peer):
            ns.run("ip", "address", "flush", "dev", "lo", "scope", "global")
        self.address("flush", "dev", "in", "scope", "global")
        self.address("add", "192.0.2.1/24", "dev", "in")
        self.address("add", "2001:db8::1/64", "dev", "in", "nodad")
        # Sources are known before the programs are there, when both come in one breath.
        eventually(lambda: {self.index("in"), self.index("out")} <= self.attached(), "attached to both")
        self.becomes("198.51.100.9", "192.0.2.1")
        self.becomes("2001:db8:1::9", "2001:db8::1")

    def attached(self):
        return {a["ifindex"] for a in self.daemon.json("status")["attachments"]}

    def state(self):
        """For a failure: what redirectd and the kernel have of the connections."""
        return "\n".join([self.daemon.ctl("conntrack", "list").stdout, self.daemon.ctl("stats").stdout,
                          *(ns.run(*command).stdout for ns in (self.host, self.client, self.peer)
                            for command in (("ip", "-4", "neighbour"), ("ss", "-tinp")))])

    def index(self, name="out"):
        return json.loads(self.host.run("ip", "-j", "link", "show", name).stdout)[0]["ifindex"]

    def address(self, *command):
        self.host.run("ip", "address", *command)

    def sources(self):
        return Sources(self.daemon)

    def choose(self, next_hop, interface="out"):
        return self.sources().choose(self.index(interface) if interface else ANY, next_hop)

    def becomes(self, next_hop, source, interface="out"):
        eventually(lambda: self.choose(next_hop, interface) == source,
                   f"{source} towards {next_hop}: {self.sources().entries}")


@pytest.fixture(scope="module")
def made_router():
    with contextlib.ExitStack() as stack:
        yield Router(stack)


@pytest.fixture
def router(made_router):
    made_router.reset()
    return made_router


class TestFollows:
    def test_addresses_come_and_go(self, router):
        assert router.choose("198.51.100.9") == "192.0.2.1"  # nothing there: that of "in"
        router.address("add", "198.51.100.1/24", "dev", "out")
        router.becomes("198.51.100.9", "198.51.100.1")
        router.address("add", "203.0.113.1/24", "dev", "out")
        router.becomes("203.0.113.9", "203.0.113.1")
        router.becomes("8.8.8.8", "198.51.100.1")
        router.address("del", "198.51.100.1/24", "dev", "out")
        router.becomes("198.51.100.9", "203.0.113.1")
        router.becomes("8.8.8.8", "203.0.113.1")
        router.address("flush", "dev", "out")
        router.becomes("203.0.113.9", "192.0.2.1")

    def test_secondary_is_promoted(self, router):
        router.host.sysctl("ipv4/conf/out/promote_secondaries", 1)
        router.address("add", "198.51.100.1/24", "dev", "out")
        router.address("add", "198.51.100.2/24", "dev", "out")
        router.becomes("198.51.100.9", "198.51.100.1")
        router.address("del", "198.51.100.1/24", "dev", "out")
        router.becomes("198.51.100.9", "198.51.100.2")

    def test_interface_goes(self, router):
        router.address("add", "198.51.100.1/24", "dev", "out")
        router.becomes("198.51.100.9", "198.51.100.1")
        index = router.index()
        router.host.run("ip", "link", "delete", "out")
        eventually(lambda: not [i for i, _ in router.sources().entries if i == index], "none is left")
        assert router.choose("198.51.100.9", interface=None) == "192.0.2.1"

    def test_down_and_up(self, router):
        """IPv6 addresses go with the link (keep_addr_on_down is off), IPv4 ones stay."""
        router.address("add", "198.51.100.1/24", "dev", "out")
        router.address("add", "2001:db8:1::1/64", "dev", "out", "nodad")
        router.becomes("2001:db8:1::9", "2001:db8:1::1")
        router.host.run("ip", "link", "set", "out", "down")
        router.becomes("2001:db8:1::9", "2001:db8::1")
        router.becomes("198.51.100.9", "198.51.100.1")

    def test_tentative_one_waits(self, router):
        """Duplicate address detection may find that it is somebody else's."""
        router.peer.run("ip", "address", "add", "2001:db8:1::1/64", "dev", "eth0", "nodad")
        router.address("add", "2001:db8:1::1/64", "dev", "out")
        eventually(lambda: "dadfailed" in router.host.run("ip", "-6", "address", "show", "dev",
                                                          "out").stdout, "the duplicate is found")
        router.address("add", "2001:db8:1::3/64", "dev", "out")
        router.becomes("2001:db8:1::9", "2001:db8:1::3")

    def test_temporary_ones_are_passed_over(self, router):
        """What lasts goes before what is private."""
        router.address("add", "2001:db8:1::1/64", "dev", "out", "mngtmpaddr", "nodad")
        eventually(lambda: "temporary" in router.host.run("ip", "-6", "address", "show", "dev",
                                                          "out").stdout, "a temporary address")
        eventually(lambda: "tentative" not in router.host.run("ip", "-6", "address", "show", "dev",
                                                              "out").stdout, "it is usable")
        router.becomes("2001:db8:1::9", "2001:db8:1::1")

    def test_never_loopback_nor_link_local(self, router):
        router.address("add", "198.51.100.1/24", "dev", "out")
        router.address("add", "169.254.7.7/16", "dev", "out", "scope", "link")
        router.address("add", "127.0.0.2/8", "dev", "out", "scope", "global")
        router.becomes("169.254.1.1", "198.51.100.1")
        for source in router.sources().entries.values():
            address = ipaddress.ip_address(source)
            assert not address.is_loopback and not address.is_link_local, source

    def test_next_hop_by_its_link_local_address(self, router):
        """As routers announce themselves; what they route needs a global source."""
        router.address("add", "2001:db8:1::1/64", "dev", "out", "nodad")
        router.becomes("fe80::1", "2001:db8:1::1")

    def test_address_on_lo_is_for_unnumbered_links(self, router):
        router.address("add", "203.0.113.7/32", "dev", "lo")
        router.becomes("198.51.100.9", "203.0.113.7")

    def test_no_address_at_all(self, router):
        for interface in ("in", "out"):
            router.address("flush", "dev", interface)
        eventually(lambda: not router.sources().entries, "nothing is left")

    def test_left_by_a_daemon_that_was_killed(self, router):
        router.address("add", "198.51.100.1/24", "dev", "out")
        router.becomes("198.51.100.9", "198.51.100.1")
        router.daemon.end(signal.SIGKILL)
        router.address("flush", "dev", "out")
        assert router.choose("198.51.100.9") == "198.51.100.1"
        router.daemon.start()
        assert router.choose("198.51.100.9") == "192.0.2.1"

    def test_many_at_once(self, router):
        """More events than a socket keeps: the end counts."""
        batch = "".join(f"address add 10.{i // 250}.{i % 250}.1/24 dev out\n" for i in range(2000))
        router.host.run("ip", "-batch", "-", input=batch)
        router.becomes("10.7.249.9", "10.7.249.1")
        router.becomes("10.0.0.9", "10.0.0.1")
        router.address("flush", "dev", "out")
        router.becomes("10.7.249.9", "192.0.2.1")
        assert len([i for i, _ in router.sources().entries if i == router.index()]) == 0


@pytest.fixture
def masqueraded(router):
    """A rule to a server behind "out", whose address there is dynamic."""
    router.address("add", "198.51.100.1/24", "dev", "out")
    router.peer.run("ip", "address", "add", "198.51.100.9/24", "dev", "eth0")
    with contextlib.ExitStack() as stack:
        for rule in ("udp 53 to 198.51.100.9:53 masquerade name u", "tcp 80 to 198.51.100.9:80 masquerade name t"):
            router.daemon.add(rule)
            stack.callback(router.daemon.ctl, "remove", rule.split()[-1])
        router.becomes("198.51.100.9", "198.51.100.1")
        yield router


class TestAddressThatHasGone:
    """A flow that bears it gets no answers any more: it ends, and what comes then begins anew."""

    def renumber(self, router):
        router.address("add", "198.51.100.2/24", "dev", "out")
        router.address("del", "198.51.100.1/24", "dev", "out")
        if not router.host.run("ip", "-br", "address", "show", "dev", "out").stdout.count("198.51.100.2"):
            router.address("add", "198.51.100.2/24", "dev", "out")  # it went as a secondary
        router.becomes("198.51.100.9", "198.51.100.2")

    def echo(self, router, client, data):
        client.sendall(data)
        try:
            assert client.recv(10) == data
        except TimeoutError:
            raise AssertionError(f"no echo of {data!r}\n{router.state()}") from None

    def test_udp_goes_on_with_the_new_one(self, masqueraded):
        router = masqueraded
        with UdpEcho(router.peer, "198.51.100.9", 53), \
                router.client.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for change in (lambda: None, lambda: self.renumber(router)):
                change()
                client.sendto(b"q", ("192.0.2.1", 53))
                assert client.recv(10) == b"echo:q"
            flow, = router.daemon.flows("-p", "udp")
            assert flow["reply"]["dst"] == "198.51.100.2"

    def test_tcp_is_told(self, masqueraded):
        """The server knows nothing of the connection that comes from the new address: RST."""
        router = masqueraded
        with TcpEcho(router.peer, 80), router.client.connect("192.0.2.1", 80) as client:
            self.echo(router, client, b"1")
            self.renumber(router)
            client.sendall(b"2")
            with pytest.raises(ConnectionResetError):
                client.recv(10)

    def test_others_stay(self, masqueraded):
        router = masqueraded
        router.address("add", "203.0.113.1/24", "dev", "out")
        router.becomes("203.0.113.9", "203.0.113.1")
        with TcpEcho(router.peer, 80), router.client.connect("192.0.2.1", 80) as client:
            self.echo(router, client, b"1")
            router.address("del", "203.0.113.1/24", "dev", "out")
            router.becomes("203.0.113.9", "198.51.100.1")
            self.echo(router, client, b"2")

    def test_foreign_source_of_snat_stays(self, masqueraded):
        """`snat` may name an address that is only routed here."""
        router = masqueraded
        router.address("add", "203.0.113.1/24", "dev", "out")
        router.becomes("203.0.113.9", "203.0.113.1")
        router.peer.run("ip", "route", "add", "203.0.113.77", "via", "198.51.100.1")
        router.daemon.add("tcp 81 to 198.51.100.9:80 snat 203.0.113.77 name s")
        with TcpEcho(router.peer, 80), router.client.connect("192.0.2.1", 81) as client:
            self.echo(router, client, b"1")
            router.address("del", "203.0.113.1/24", "dev", "out")
            router.becomes("203.0.113.9", "198.51.100.1")
            self.echo(router, client, b"2")
        router.daemon.ctl("remove", "s")


# Addresses of "out" and what is sent where. The destination is one of the neighbour's addresses;
# with `via` it is behind it.
CASES = {
    "one": (["198.51.100.1/24"], "198.51.100.9", None),
    "two subnets": (["198.51.100.1/24", "203.0.113.1/24"], "203.0.113.9", None),
    "router in the second subnet": (["198.51.100.1/24", "203.0.113.1/24"], "8.8.8.8", "203.0.113.9"),
    "secondary": (["198.51.100.1/24", "198.51.100.2/24"], "198.51.100.9", None),
    "wide subnet first": (["10.0.0.1/8", "10.1.0.1/16"], "10.1.0.9", None),
    "narrow subnet first": (["10.1.0.1/16", "10.0.0.1/8"], "10.1.0.9", None),
    "wide one, router in the narrow one": (["10.1.0.1/16", "10.0.0.1/8"], "10.2.0.9", None),
    "point to point": (["10.9.0.1 peer 10.9.0.2/32"], "10.9.0.2", None),
    "point to point among others": (["198.51.100.1/24", "10.9.0.1 peer 10.9.0.2/32"], "10.9.0.2", None),
    "no address": ([], "198.51.100.9", None),
    "link scope only": (["198.51.100.1/24 scope link"], "198.51.100.9", None),
    "one, IPv6": (["2001:db8:1::1/64"], "2001:db8:1::9", None),
    "two subnets, IPv6": (["2001:db8:1::1/64", "2001:db8:2::1/64"], "2001:db8:2::9", None),
    "deprecated": (["2001:db8:1::1/64 preferred_lft 0", "2001:db8:2::1/64"], "2001:db8:1::9", None),
    "only a deprecated one": (["2001:db8:1::1/64 preferred_lft 0"], "2001:db8:1::9", None),
    "temporary ones besides": (["2001:db8:1::1/64 mngtmpaddr"], "2001:db8:1::9", None),
    "private and global": (["fd00:1::1/64", "2001:db8:1::1/64"], "2001:db8:1::9", None),
    "private ones by a router": (["2001:db8:1::1/64", "fd00:1::1/64"], "fd00:9::9", "fd00:1::9"),
    "global ones by a router": (["fd00:1::1/64", "2001:db8:1::1/64"], "2001:db8:9::9", "2001:db8:1::9"),
    "global ones by a link-local router": (["fd00:1::1/64", "2001:db8:1::1/64"], "2001:db8:9::9", "fe80::9"),
    "private ones by a link-local router": (["2001:db8:1::1/64", "fd00:1::1/64"], "fd00:9::9", "fe80::9"),
    "no address, IPv6": ([], "2001:db8:1::9", None),
}


class TestAsTheKernel:
    @pytest.mark.parametrize("case", CASES)
    def test_same_source_as_nftables(self, router, case):
        addresses, destination, via = CASES[case]
        family = "ip6" if ":" in destination else "ip"
        for address in addresses:
            router.address("add", *address.split(), "dev", "out", *(["nodad"] if family == "ip6" else []))
        hop = via or destination
        router.peer.run("ip", "address", "add", hop, "dev", "eth0",
                        *(["nodad"] if family == "ip6" else []))
        if via:
            router.peer.run("ip", "address", "add", destination, "dev", "lo")
        route = ["ip", "-6"] if family == "ip6" else ["ip"]
        if not hop.startswith("fe80"):
            router.host.run(*route, "route", "replace", f"{hop}/{128 if family == 'ip6' else 32}", "dev", "out")
        if via:
            router.host.run(*route, "route", "add", destination, "via", via, "dev", "out")
        router.host.run("nft", "-f", "-", input=f"""
            table {family} t {{
                chain c {{
                    type nat hook postrouting priority 100
                    oifname "out" masquerade
                }}
            }}""")
        with router.peer.listen(destination, 5000, socket.SOCK_DGRAM) as server, \
                router.client.open_socket(family_of(destination), socket.SOCK_DGRAM) as client:
            client.sendto(b"x", (destination, 5000))
            kernel = server.recvfrom(10)[1][0]
            router.host.run("nft", "flush", "ruleset")
            router.becomes(destination if family == "ip6" else hop, kernel)
            router.daemon.add(f"udp *:5001 to {host(destination)}:5000 masquerade name x")
            client.sendto(b"x", (destination, 5001))
            ours = server.recvfrom(10)[1][0]
            router.daemon.ctl("remove", "x")
            assert ours == kernel
