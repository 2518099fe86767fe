# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets and bytes of a flow, counted three times: by redirectd, by nf_conntrack with accounting in
the same namespace at the same time, and by tcpdump where every packet is as a wire carries it.

A gateway between a client and a server. With offloads on one side of it only, bulk traffic comes
in as packets that stand for many, and is cut where it leaves: what has left is what has to be counted.
And rules' counters, through everything that may happen to the daemon and to flows.
"""

import collections
import contextlib
import itertools
import os
import signal
import socket

import pytest

from capture import Capture
from netns import Namespace, eventually, family_of, host, set_offloads, veth
from peers import TcpEcho, Upload, receive
from redirectd import Daemon, tcx_programs

CLIENT, SERVER = {4: "198.51.100.1", 6: "2001:db8:1::1"}, {4: "10.0.0.2", 6: "2001:db8:2::2"}
OUTSIDE, INSIDE = {4: "198.51.100.254", 6: "2001:db8:1::fe"}, {4: "10.0.0.254", 6: "2001:db8:2::fe"}
# What Linux's TCP and UDP put in front of data; SYNs have options that other segments do not have.
HEADERS = {("tcp", 4): 20 + 32, ("tcp", 6): 40 + 32, ("udp", 4): 20 + 8, ("udp", 6): 40 + 8}
SYN_HEADERS = {4: 20 + 40, 6: 40 + 40}
UDP_SEGMENT = 103  # <linux/udp.h>
BULK = 3 << 20
CONNTRACK = """
add table inet t
add chain inet t c { type filter hook forward priority 0; }
add rule inet t c ct state new counter
"""
SYN_ACK_LOST = """
add table inet t
add chain inet t c { type filter hook input priority 0; }
add rule inet t c tcp flags syn,ack / syn,ack quota until 100 bytes drop
"""
VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
Counts = collections.namedtuple("Counts", "packets bytes")


class Line:
    """client - gateway - server; `plain` is the side without offloads, where tcpdump counts."""

    def __init__(self, plain):
        self.plain, self.stack = plain, contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.client, self.gateway, self.server = (stack.enter_context(Namespace(label)) for label in "cgs")
            veth(self.client, "eth0", both(CLIENT), self.gateway, "out", both(OUTSIDE))
            veth(self.server, "eth0", both(SERVER), self.gateway, "in", both(INSIDE))
            for side, ns, name in (("client", self.client, "out"), ("server", self.server, "in")):
                if self.plain in (side, "both"):
                    set_offloads(ns, "eth0", False)
                    set_offloads(self.gateway, name, False)
            self.witness = self.client if self.plain == "client" else self.server
            self.gateway.sysctl("ipv4/ip_forward", 1)
            self.gateway.sysctl("ipv6/conf/all/forwarding", 1)
            for version in (4, 6):
                self.client.run("ip", "route", "add", "default", "via", OUTSIDE[version])
                self.server.run("ip", "route", "add", "default", "via", INSIDE[version])
            self.gateway.run("nft", "-f", "-", input=CONNTRACK)
            self.gateway.sysctl("netfilter/nf_conntrack_acct", 1)
            rules = [f"tcp+udp {host(OUTSIDE[v])}:8080 to {host(SERVER[v])}:80" for v in (4, 6)]
            self.daemon = stack.enter_context(Daemon(self.gateway, *rules))
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self.stack.__exit__(*error)

    def ours(self, sport):
        flow, = self.daemon.flows("--sport", sport)
        return [Counts(flow[d]["packets"], flow[d]["bytes"]) for d in ("original", "reply")]

    def kernels(self, sport):
        lines = self.gateway.run("cat", "/proc/net/nf_conntrack").stdout.splitlines()
        line, = [line for line in lines if f" sport={sport} dport=80 " in line]
        words = [w.partition("=")[::2] for w in line.split()]
        packets, counted = ([int(v) for k, v in words if k == key] for key in ("packets", "bytes"))
        return [Counts(*both_of) for both_of in zip(packets, counted)]

    @contextlib.contextmanager
    def watched(self, folder):
        """Yields what tcpdump sees; it can be asked once all is over."""
        with Capture(self.witness, "eth0", "tcp or udp", folder) as wire:
            yield Wire(wire)

    def settled(self, sport):
        """A connection that is over counts nothing more."""
        def over():
            flows = self.daemon.flows("--sport", sport)
            assert len(flows) == 1
            return flows[0]["state"] == "TIME_WAIT" or print(flows[0])
        eventually(over, "the connection is over")


class Wire:
    """What passed from and to a client's port, of all segments or of SYNs."""

    def __init__(self, capture):
        self.capture = capture

    def __call__(self, sport, **fields):
        return [Counts(*self.capture.count(**{side: sport}, **fields)) for side in ("sport", "dport")]


def both(addresses):
    return [f"{addresses[4]}/24", f"{addresses[6]}/64"]


@pytest.fixture(scope="module", params=["server", "client", "both"])
def line(request):
    with Line(request.param) as made:
        yield made


def compare(line, sport, wire, protocol, version):
    """All three; nf_conntrack counts what it sees, and a large packet is one to it.

    It ignores a SYN that comes once more behind the answer, as where a machine stands still for a
    second (nf_conntrack_proto_tcp.c, sIG): such ones are added to what it says.
    """
    ours, kernels = line.ours(sport), line.kernels(sport)
    assert ours == wire(sport)
    for n, (mine, other, syns) in enumerate(zip(ours, kernels, wire(sport, syn=True))):
        headers = HEADERS[protocol, version]
        missing = mine.packets - other.packets
        assert missing >= 0
        ignored, rest = divmod(mine.bytes - other.bytes - missing * headers, SYN_HEADERS[version] - headers)
        assert rest == 0 and 0 <= ignored <= max(syns.packets - 1, 0)
        kernels[n] = Counts(other.packets + ignored, other.bytes + ignored * SYN_HEADERS[version])
    return ours, kernels


class TestThreeWitnesses:
    @VERSIONS
    def test_upload(self, line, version, tmp_path):
        (tmp_path / "data").write_bytes(os.urandom(BULK))
        with Upload(line.server, 80), line.watched(str(tmp_path)) as wire:
            with line.client.connect(OUTSIDE[version], 8080) as s, open(tmp_path / "data", "rb") as f:
                sport = s.getsockname()[1]
                s.sendfile(f)
                s.shutdown(socket.SHUT_WR)
                assert len(receive(s, 64)) == 64
            line.settled(sport)
        ours, kernels = compare(line, sport, wire, "tcp", version)
        assert ours[0].bytes > BULK
        if line.plain == "server":
            assert kernels[0].packets < ours[0].packets / 2  # large packets have come in

    @VERSIONS
    def test_download(self, line, version, tmp_path):
        with TcpEcho(line.server, 80, greeting=b"x" * BULK), line.watched(str(tmp_path)) as wire:
            with line.client.connect(OUTSIDE[version], 8080) as s:
                sport = s.getsockname()[1]
                receive(s, BULK)
            line.settled(sport)
        ours, kernels = compare(line, sport, wire, "tcp", version)
        assert ours[1].bytes > BULK
        if line.plain == "client":
            assert kernels[1].packets < ours[1].packets / 2

    @VERSIONS
    def test_udp_segments(self, line, version, tmp_path):
        """One call of the sender, many datagrams, the last of them shorter."""
        sizes = [1200] * 10 + [77]
        with line.server.listen(SERVER[version], 80, socket.SOCK_DGRAM) as server, \
                line.watched(str(tmp_path)) as wire, \
                line.client.open_socket(family_of(CLIENT[version]), socket.SOCK_DGRAM) as s:
            s.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1200)
            s.connect((OUTSIDE[version], 8080))
            sport = s.getsockname()[1]
            for _ in range(5):
                s.send(b"x" * sum(sizes))
                assert [len(server.recv(2000)) for _ in sizes] == sizes
        ours, kernels = compare(line, sport, wire, "udp", version)
        octets = sum(sizes) + HEADERS["udp", version] * len(sizes)
        assert ours == [Counts(5 * len(sizes), 5 * octets), Counts(0, 0)]
        if line.plain == "server":
            assert kernels[0].packets == 5

    @VERSIONS
    def test_small_packets(self, line, version, tmp_path):
        with TcpEcho(line.server, 80), line.watched(str(tmp_path)) as wire:
            with line.client.connect(OUTSIDE[version], 8080) as s:
                sport = s.getsockname()[1]
                for _ in range(200):
                    s.sendall(b"hello")
                    assert receive(s, 5) == b"hello"
            line.settled(sport)
        ours, kernels = compare(line, sport, wire, "tcp", version)
        assert ours == kernels and ours[0].packets > 200


    @VERSIONS
    def test_repeated_syn(self, line, version, tmp_path):
        """The answer is lost once: both ends begin again, and each packet counts."""
        line.client.run("nft", "-f", "-", input=SYN_ACK_LOST)
        try:
            with TcpEcho(line.server, 80), line.watched(str(tmp_path)) as wire:
                with line.client.connect(OUTSIDE[version], 8080) as s:
                    sport = s.getsockname()[1]
                    s.sendall(b"hello")
                    assert receive(s, 5) == b"hello"
                line.settled(sport)
        finally:
            line.client.run("nft", "delete", "table", "inet", "t")
        assert min(syns.packets for syns in wire(sport, syn=True)) >= 2
        ours, kernels = compare(line, sport, wire, "tcp", version)
        assert ours == kernels


class TestNothingIsLost:
    """What a rule has counted, against what both ends have sent."""

    HEADERS = HEADERS["udp", 4]
    ports = itertools.count(20000)

    @pytest.fixture(scope="class")
    def quiet_line(self):
        with Line("both") as made:
            made.daemon.end()
            yield made

    @pytest.fixture
    def echo(self, quiet_line):
        with quiet_line.server.listen(SERVER[4], 53, socket.SOCK_DGRAM) as server:
            yield server

    def ask(self, line, server, times):
        """Datagrams and answers, each from a client port of its own; returns what they add up to."""
        total = 0
        for number in range(times):
            with line.client.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.bind((CLIENT[4], next(self.ports)))
                s.sendto(b"x" * number, (OUTSIDE[4], 5300))
                data, peer = server.recvfrom(2000)
                server.sendto(data + b"answer", peer)
                assert len(s.recv(2000)) == number + 6
            total += 2 * self.HEADERS + 2 * number + 6
        return total

    def test_flows_that_expire_between_reads(self, quiet_line, echo):
        """Every flow dies after a second; no read may see less than the one before, the last sees all."""
        config = (f"timeout udp 1s\ntimeout udp-stream 1s\n"
                  f"redirect udp {OUTSIDE[4]}:5300 to {SERVER[4]}:53 masquerade name short\n")
        with Daemon(quiet_line.gateway, config=config) as daemon:
            expected, before = 0, 0
            for _ in range(6):
                expected += self.ask(quiet_line, echo, 60)
                seen = daemon.rule("short")["counters"]["bytes"]
                assert seen == expected >= before
                before = seen
            eventually(lambda: daemon.rule("short")["counters"]["active"] == 0, "all have expired")
            counters = daemon.rule("short")["counters"]
            assert counters == {"packets": 720, "bytes": expected, "flows": 360, "active": 0,
                                "refused": 0}
            eventually(lambda: daemon.json("stats")["flows"]["expired"] == 360, "all are swept")
            assert daemon.rule("short")["counters"] == counters

    @pytest.mark.parametrize("how", ["reload", "restart", "crash"])
    def test_daemon_comes_and_goes(self, quiet_line, echo, how):
        """A start loads its own programs over the maps that are there, as after an upgrade."""
        rule = f"udp {OUTSIDE[4]}:5300 to {SERVER[4]}:53 masquerade name kept"
        with Daemon(quiet_line.gateway, config=f"redirect {rule}\n") as daemon:
            expected, flows = self.ask(quiet_line, echo, 20), 20
            if how == "reload":
                daemon.write(f"redirect udp 1 to 2\nredirect {rule}\n")
                daemon.ctl("reload")
            else:
                programs = tcx_programs(quiet_line.gateway, "out", "ingress")
                daemon.end(signal.SIGKILL if how == "crash" else signal.SIGUSR2)
                expected, flows = expected + self.ask(quiet_line, echo, 20), 40  # while none runs
                daemon.start()
                assert not programs or tcx_programs(quiet_line.gateway, "out", "ingress") != programs
            expected, flows = expected + self.ask(quiet_line, echo, 20), flows + 20
            assert daemon.rule("kept")["counters"] == {"packets": 2 * flows, "bytes": expected, "flows": flows,
                                                       "active": flows, "refused": 0}
