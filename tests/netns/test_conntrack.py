# SPDX-License-Identifier: GPL-2.0-or-later
"""redirectctl conntrack: filters, get, delete and flush on real traffic; lines beside those of
`conntrack -L` for the same traffic through nf_conntrack; dumps of a million flows."""

import contextlib
import ipaddress
import itertools
import json
import re
import shutil
import signal
import socket
import subprocess

import jsonschema
import pytest

from engines import Nftables
from fill import fill
from netns import Pair, eventually, stop
from peers import TcpEcho, UdpEcho, receive, tcp_ask, udp_ask
from redirectd import (EXIT_DENIED, EXIT_NO_DAEMON, EXIT_NO_SUCH, EXIT_USAGE, NOBODY, REDIRECTCTL, Daemon,
                       ctl_run)
from test_control import schema
from test_monitor import Monitor
from test_protocol import Caller

RULES = ("tcp+udp 8080 to 80 name web", "udp 5300 to 80 name dns")


def tuple_of(flow):
    o = flow["original"]
    return flow["protocol"], o["src"], o["sport"], o["dst"], o["dport"]


def options(protocol, src, sport, dst, dport):
    """`conntrack get` of that tuple."""
    return "-p", protocol, "-s", src, "--sport", sport, "-d", dst, "--dport", dport


class Traffic:
    """Connections that stay open and datagrams, both families: one flow each. Ports are used once."""

    ports = itertools.count(30001, 2)

    def __init__(self, pair):
        self.pair, self.stack = pair, contextlib.ExitStack()

    def __enter__(self):
        self.one = next(self.ports)
        self.tcp = [self.connection(server, port) for server in Pair.SERVERS for port in (self.one, self.one + 1)]
        for server in Pair.SERVERS:
            self.datagram(server, 8080)
            self.datagram(server, 5300)
        return self

    def __exit__(self, *_):
        self.stack.close()

    def connection(self, server, sport):
        s = self.stack.enter_context(self.pair.client.connect(server, 8080, sport=sport))
        s.sendall(b"hello")
        assert receive(s, 5) == b"hello"
        return s

    def datagram(self, server, port):
        """Asked twice: a stream."""
        s = self.pair.client.open_socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM)
        self.stack.enter_context(s)
        s.connect((server, port))
        for _ in range(2):
            s.send(b"x")
            assert s.recv(100) == b"echo:x"


@pytest.fixture(scope="class")
def net(pair):
    with Daemon(pair.server, *RULES) as daemon, TcpEcho(pair.server, 80), \
            UdpEcho(pair.server, Pair.SERVER4, 80), UdpEcho(pair.server, Pair.SERVER6, 80):
        pair.daemon = daemon
        yield pair


@pytest.fixture
def traffic(net):
    net.daemon.ctl("conntrack", "flush")
    with Traffic(net) as t:
        assert len(net.daemon.flows()) == 8
        yield t


def within(prefix, key):
    network = ipaddress.ip_network(prefix)
    return lambda f, _: ipaddress.ip_address(f["original"][key]) in network


# Each filter, and what it has to choose; ONE is the port of one connection in each family.
FILTERS = (
    (["-p", "tcp"], lambda f, _: f["protocol"] == "tcp"),
    (["--protocol", "UDP"], lambda f, _: f["protocol"] == "udp"),
    (["-s", Pair.CLIENT4], within(Pair.CLIENT4, "src")),
    (["-s", "192.0.2.0/24"], within("192.0.2.0/24", "src")),
    (["-s", "192.0.2.2/31"], within("192.0.2.2/31", "src")),
    (["-s", "0.0.0.0/0"], within("0.0.0.0/0", "src")),
    (["--src", Pair.CLIENT6], within(Pair.CLIENT6, "src")),
    (["-s", "2001:DB8::/64"], within("2001:db8::/64", "src")),
    (["-s", "[2001:db8::1]"], within("2001:db8::1", "src")),
    (["-s", "::/0"], within("::/0", "src")),
    (["-s", "::ffff:192.0.2.1"], lambda f, _: False),
    (["-d", Pair.SERVER4], within(Pair.SERVER4, "dst")),
    (["--dst", "2001:db8::2/127"], within("2001:db8::2/127", "dst")),
    (["-d", Pair.CLIENT4], lambda f, _: False),
    (["--sport", "ONE"], lambda f, one: f["original"]["sport"] == one),
    (["--sport", "80"], lambda f, _: False),
    (["--dport", "8080"], lambda f, _: f["original"]["dport"] == 8080),
    (["--dport", "80"], lambda f, _: False),
    (["--state", "established"], lambda f, _: f["state"] == "ESTABLISHED"),
    (["--state", "REPLIED"], lambda f, _: f["state"] == "REPLIED"),
    (["--state", "TIME_WAIT"], lambda f, _: False),
    (["--rule", "web"], lambda f, _: f["original"]["dport"] == 8080),
    (["--rule", "2"], lambda f, _: f["original"]["dport"] == 5300),
    (["-p", "tcp", "-s", "192.0.2.0/24", "-d", Pair.SERVER4, "--sport", "ONE", "--dport", "8080", "--state",
      "ESTABLISHED", "--rule", "web"],
     lambda f, one: f["original"]["sport"] == one and ":" not in f["original"]["src"]),
    (["-p", "udp", "--rule", "web", "-s", "::/0"],
     lambda f, _: f["protocol"] == "udp" and f["original"]["dport"] == 8080 and ":" in f["original"]["src"]),
)


class TestFilters:
    @pytest.mark.parametrize("filters, fits", FILTERS, ids=[" ".join(f) for f, _ in FILTERS])
    def test_list_count_and_delete(self, net, traffic, filters, fits):
        filters = [word.replace("ONE", str(traffic.one)) for word in filters]
        before = net.daemon.flows()
        chosen = sorted(tuple_of(f) for f in before if fits(f, traffic.one))
        others = sorted(tuple_of(f) for f in before if not fits(f, traffic.one))
        code = 0 if chosen else EXIT_NO_SUCH

        assert sorted(map(tuple_of, net.daemon.flows(*filters))) == chosen
        assert net.daemon.json("conntrack", "count", *filters)["count"] == len(chosen)
        assert len(net.daemon.ctl("conntrack", "list", *filters).stdout.splitlines()) == len(chosen)

        tried = net.daemon.ctl("-n", "conntrack", "delete", *filters, code=code)
        assert len(tried.stdout.splitlines()) == len(chosen)
        assert len(net.daemon.flows()) == 8, "a dry run deletes nothing"

        done = json.loads(net.daemon.ctl("-j", "conntrack", "delete", *filters, code=code).stdout)
        if chosen:
            jsonschema.validate(done, schema("conntrack"), cls=jsonschema.Draft202012Validator)
            assert sorted(map(tuple_of, done["flows"])) == chosen
        else:
            assert done["error"]["code"] == "not-found"
        assert sorted(map(tuple_of, net.daemon.flows())) == others

    @pytest.mark.parametrize("arguments", [
        ["list", "-s", "192.0.2.256"], ["list", "-s", "192.0.2.0/33"], ["list", "-d", "host"],
        ["list", "--sport", "0"], ["list", "--dport", "65536"], ["list", "--dport", "80x"],
        ["list", "-s", "192.0.2.1", "-d", "2001:db8::1"], ["list", "-s", "192.0.2.1", "-s", "192.0.2.2"],
        ["get", "-p", "tcp", "-s", "192.0.2.1", "-d", "2001:db8::1", "--sport", "1", "--dport", "2"],
        ["list", "--dport", "-1"], ["list", "-p", "icmp"], ["list", "--state", "OPEN"], ["list", "--rule"], ["list", "-o", "table"],
        ["list", "-j", "-o", "extended"], ["delete"], ["delete", "-o", "extended"], ["flush", "-p", "tcp"],
        ["get"], ["get", "-p", "tcp", "-s", "192.0.2.1", "-d", "192.0.2.2", "--sport", "1"],
        ["get", "-p", "tcp", "-s", "192.0.2.0/24", "-d", "192.0.2.2", "--sport", "1", "--dport", "2"],
        ["get", "-p", "tcp", "-s", "192.0.2.1", "-d", "192.0.2.2", "--sport", "1", "--dport", "2", "--rule", "web"],
        ["frobnicate"], []], ids=" ".join)
    def test_mistakes(self, net, traffic, arguments):
        done = net.daemon.ctl("conntrack", *arguments, code=EXIT_USAGE)
        assert bool(done.stdout) == ("-j" in arguments) and bool(done.stderr) == ("-j" not in arguments)
        assert len(net.daemon.flows()) == 8

    def test_what_it_could_be(self, net, traffic):
        said = net.daemon.ctl("conntrack", "list", "-p", "icmp", code=EXIT_USAGE).stderr
        assert said.endswith("redirectctl: it is one of tcp, udp\n")
        said = net.daemon.ctl("conntrack", "list", "--state", "ESTABLISED", code=EXIT_USAGE).stderr
        assert 'did you mean "ESTABLISHED"?' in said and said.endswith(" UNREPLIED, REPLIED\n")

    @pytest.mark.parametrize("verb", ["list", "count", "delete"])
    @pytest.mark.parametrize("rule", ["nosuch", "4000", "99999999999999999999", "we\nb"])
    def test_no_such_rule(self, net, traffic, verb, rule):
        done = net.daemon.ctl("-j", "conntrack", verb, "--rule", rule, code=EXIT_NO_SUCH)
        assert json.loads(done.stdout)["error"]["code"] == "not-found"
        assert len(net.daemon.flows()) == 8


class TestGet:
    def test_every_flow_by_both_of_its_tuples(self, net, traffic):
        for flow in net.daemon.flows():
            reply = flow["reply"]
            found, = net.daemon.json("conntrack", "get", *options(*tuple_of(flow)))["flows"]
            assert tuple_of(found) == tuple_of(flow)
            found, = net.daemon.json("conntrack", "get", *options(flow["protocol"], *(
                reply[k] for k in ("src", "sport", "dst", "dport"))))["flows"]
            assert tuple_of(found) == tuple_of(flow)
            line, = net.daemon.ctl("conntrack", "get", *options(*tuple_of(flow))).stdout.splitlines()
            assert f"sport={flow['original']['sport']} dport={flow['original']['dport']} " in line

    def test_none(self, net, traffic):
        protocol, src, sport, dst, dport = tuple_of(net.daemon.flows("-p", "tcp")[0])
        for other in (("udp", src, sport, dst, dport), (protocol, dst, sport, src, dport),
                      (protocol, src, sport + 7, dst, dport), (protocol, src, sport, dst, dport + 1)):
            done = net.daemon.ctl("conntrack", "get", *options(*other), code=EXIT_NO_SUCH)
            assert "no such flow" in done.stderr and not done.stdout


class TestDelete:
    def test_what_is_printed(self, net, traffic):
        done = net.daemon.ctl("conntrack", "delete", "-p", "tcp", "-s", Pair.CLIENT4)
        lines = done.stdout.splitlines()
        assert len(lines) == 2 and all(line.startswith("tcp      6 ") for line in lines)
        assert done.stderr == "2 flows deleted\n"
        done = net.daemon.ctl("-n", "conntrack", "delete", "--sport", traffic.one)
        assert done.stderr == "1 flow would be deleted\n"
        assert not net.daemon.ctl("-q", "conntrack", "delete", "--sport", traffic.one).stderr
        done = net.daemon.ctl("conntrack", "delete", "--sport", traffic.one, code=EXIT_NO_SUCH)
        assert "no flow fits" in done.stderr and not done.stdout

    def test_flush(self, net, traffic):
        assert net.daemon.ctl("-n", "conntrack", "flush").stdout == "8 flows would be deleted\n"
        assert len(net.daemon.flows()) == 8
        assert net.daemon.json("conntrack", "flush") == {"deleted": 8}
        assert net.daemon.flows() == []
        assert net.daemon.ctl("conntrack", "flush").stdout == "0 flows deleted\n"
        assert not net.daemon.ctl("-q", "conntrack", "flush").stdout

    def test_connections_go_on_as_new_flows(self, net, traffic):
        """The next packet begins one; what the deleted one has counted is its rule's."""
        before = net.daemon.rule("web")["counters"]
        old = {tuple_of(f): f for f in net.daemon.flows("-p", "tcp")}
        net.daemon.ctl("conntrack", "flush")
        after = net.daemon.rule("web")["counters"]
        assert (after["packets"], after["bytes"]) == (before["packets"], before["bytes"])
        assert (after["active"], after["flows"]) == (0, before["flows"])
        for s in traffic.tcp:
            s.sendall(b"again")
            assert receive(s, 5) == b"again"
        new = {tuple_of(f): f for f in net.daemon.flows("-p", "tcp")}
        assert new.keys() == old.keys()
        for tuple_, flow in new.items():
            assert flow["state"] == "ESTABLISHED"
            assert flow["original"]["packets"] < old[tuple_]["original"]["packets"]
        assert net.daemon.rule("web")["counters"]["flows"] == before["flows"] + 4

    def test_rules_as_they_are_then(self, net, traffic):
        """Without its rule a deleted flow's connection is at its end."""
        net.daemon.ctl("disable", "web")
        try:
            kept, lost = traffic.tcp[0], traffic.tcp[1]
            net.daemon.ctl("conntrack", "delete", "-p", "tcp", "--sport", lost.getsockname()[1])
            kept.sendall(b"again")
            assert receive(kept, 5) == b"again"
            with pytest.raises(ConnectionResetError):  # by the host, which has nobody on port 8080
                lost.sendall(b"again")
                lost.recv(5)
        finally:
            net.daemon.ctl("enable", "web")

    def test_flows_of_a_removed_rule(self, net, traffic):
        net.daemon.add("udp 5301 to 80 name gone")
        with UdpEcho(net.server, Pair.SERVER4, 81):
            udp_ask(net.client, Pair.SERVER4, 5301)
            number = net.daemon.rule("gone")["id"]
            net.daemon.ctl("remove", "gone")
            assert len(net.daemon.ctl("conntrack", "delete", "--rule", number).stdout.splitlines()) == 1
            net.daemon.ctl("conntrack", "delete", "--rule", number, code=EXIT_NO_SUCH)

    def test_events_and_totals(self, net, traffic):
        flows = {tuple_of(f): f for f in net.daemon.flows("--rule", "dns")}
        expired = net.daemon.json("stats")["flows"]["expired"]
        with Monitor(net.daemon, as_json=True) as m:
            net.daemon.ctl("conntrack", "delete", "--rule", "dns")
            events = m.wait(2)
        assert {tuple_of(e["flow"]) for e in events} == flows.keys()
        for e in events:
            assert (e["event"], e["reason"]) == ("DESTROY", "requested")
            assert e["flow"]["original"]["packets"] == flows[tuple_of(e["flow"])]["original"]["packets"]
        assert net.daemon.json("stats")["flows"]["expired"] == expired

    def test_masqueraded(self, net, traffic):
        """Four places in the index; a new flow gets its tuples at once."""
        net.daemon.add(f"tcp 8090 to {Pair.SERVER4}:80 masquerade name m")
        try:
            for _ in range(3):
                assert tcp_ask(net.client, Pair.SERVER4, 8090, sport=42001) == b"hello"
                net.daemon.ctl("conntrack", "delete", "--rule", "m")
        finally:
            net.daemon.ctl("remove", "m")

    @pytest.mark.parametrize("arguments", [["delete", "-p", "tcp"], ["flush"], ["-n", "flush"]], ids=" ".join)
    def test_who_may(self, net, traffic, arguments):
        stranger = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        net.daemon.ctl("conntrack", *arguments, code=EXIT_DENIED, **stranger)
        assert len(net.daemon.flows()) == 8
        tcp = options(*tuple_of(net.daemon.flows("-p", "tcp")[0]))
        net.daemon.ctl("conntrack", "get", *tcp, **stranger)

    def test_no_daemon(self, tmp_path):
        for arguments in (["delete", "-p", "tcp"], ["flush"], ["get", *options("tcp", "::1", 1, "::1", 2)]):
            done = ctl_run("-s", str(tmp_path / "none"), "conntrack", *arguments)
            assert done.returncode == EXIT_NO_DAEMON

    def test_oneway(self, net, traffic):
        """No answer is wanted, but the deed."""
        with Caller(net.daemon.socket) as caller:
            caller.socket.sendall(b'{"method":"io.redirectd.ConntrackFlush","oneway":true}\0')
            reply, = caller.call({"method": "io.redirectd.ConntrackCount"})
            assert reply["parameters"]["count"] == 0

    def test_protocol(self, net, traffic):
        with Caller(net.daemon.socket) as caller:
            def refused(method, **parameters):
                reply, = caller.call({"method": f"io.redirectd.{method}", "parameters": parameters})
                return reply["error"].rpartition(".")[2], reply["parameters"].get("parameter")
            one = {"protocol": "tcp", "src": "192.0.2.1", "dst": "192.0.2.2", "sport": 1, "dport": 2}
            assert refused("ConntrackDelete") == ("FilterNeeded", None)
            assert refused("ConntrackDelete", dryRun=True) == ("FilterNeeded", None)
            assert refused("ConntrackDelete", src=None) == ("FilterNeeded", None)
            assert refused("ConntrackFlush", protocol="tcp") == ("InvalidParameter", "protocol")
            assert refused("Conntrack", dryRun=True) == ("InvalidParameter", "dryRun")
            assert refused("ConntrackGet", **{**one, "sport": None}) == ("InvalidParameter", "sport")
            assert refused("ConntrackGet", **{**one, "src": "192.0.2.0/24"}) == ("InvalidParameter", "src")
            assert refused("ConntrackGet", **{**one, "dst": "::/0"}) == ("InvalidParameter", "dst")
            assert refused("ConntrackGet", **one, rule="web") == ("InvalidParameter", "rule")
            assert refused("ConntrackGet", **one) == ("NoSuchFlow", None)
        assert len(net.daemon.flows()) == 8


# ---- beside nf_conntrack ----

def kept_listener(ns, port):
    """Accepts by itself, and never answers."""
    return ns.listen("::", port)


def client_of(server):
    return Pair.CLIENT6 if ":" in server else Pair.CLIENT4


def make_states(pair, stack):
    """One flow in each state that both trackers can be brought to from here, in both families."""
    pair.client.run("nft", "-f", "-", input="table inet deaf { chain in { type filter hook input priority 0; "
                    "tcp sport 8082 drop; }; }")
    stack.callback(pair.client.run, "nft", "delete table inet deaf")
    silent = stack.enter_context(kept_listener(pair.server, 81))
    stack.enter_context(kept_listener(pair.server, 82))
    for server in Pair.SERVERS:
        open_ = stack.enter_context(pair.client.connect(server, 8080, sport=40001))
        open_.sendall(b"hello")
        assert receive(open_, 5) == b"hello"
        with pair.client.connect(server, 8080, sport=40002) as closed:  # TIME_WAIT
            closed.sendall(b"hello")
            assert receive(closed, 5) == b"hello"
        half = stack.enter_context(pair.client.connect(server, 8081, sport=40003))  # CLOSE_WAIT
        stack.enter_context(silent.accept()[0])
        half.shutdown(socket.SHUT_WR)
        reset = pair.client.connect(server, 8081, sport=40004)  # CLOSE
        stack.enter_context(silent.accept()[0])
        reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        reset.close()
        begun = stack.enter_context(pair.client.open_socket(half.family, socket.SOCK_STREAM))  # SYN_RECV
        begun.bind((client_of(server), 40005))
        begun.setblocking(False)
        begun.connect_ex((server, 8082))
        make_datagrams(pair, stack, server)


def make_datagrams(pair, stack, server):
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    for sport, dport in ((40006, 8083), (40007, 8080)):  # no answer; one
        s = stack.enter_context(pair.client.open_socket(family, socket.SOCK_DGRAM))
        s.bind((client_of(server), sport))
        s.connect((server, dport))
        s.send(b"x")
        if dport == 8080:
            assert s.recv(100) == b"echo:x"


def normal(line):
    """Without numbers that depend on time (seconds left, counts of segments, references), and without
    the marks by which the rules for nftables know their connections."""
    line = re.sub(r"\b(packets|bytes|use)=(?!0\b)\d+", r"\1=N", line)
    return re.sub(r" mark=\d+ ", " mark=M ", re.sub(r"^((?:ipv\d +\d+ )?\w+ +\d+) \d+ ", r"\1 T ", line))


def settled(lines):
    states = sorted(re.findall(r" (SYN_RECV|ESTABLISHED|CLOSE_WAIT|TIME_WAIT|CLOSE) ", "\n".join(lines)))
    return states == sorted(2 * ["SYN_RECV", "ESTABLISHED", "CLOSE_WAIT", "TIME_WAIT", "CLOSE"]) and lines


class TestLines:
    """The same traffic through nftables with nf_conntrack, and through redirectd: the same lines."""

    RULES = ("tcp+udp 8080 to 80", "tcp 8081 to 81", "tcp 8082 to 82", "udp 8083 to 83")

    @pytest.fixture(scope="class")
    def lines(self):
        """By tracker and format, once every state is reached; and redirectd's JSON."""
        if not shutil.which("conntrack"):
            pytest.skip("conntrack is not installed")
        shown = {}
        with contextlib.ExitStack() as stack:
            for tracker in ("nf_conntrack", "redirectd"):
                pair = stack.enter_context(Pair())
                stack.enter_context(UdpEcho(pair.server, Pair.SERVER4, 80))
                stack.enter_context(UdpEcho(pair.server, Pair.SERVER6, 80))
                stack.enter_context(TcpEcho(pair.server, 80))
                for address in Pair.SERVERS:  # so that no port unreachable comes back
                    stack.enter_context(pair.server.listen(address, 83, socket.SOCK_DGRAM))
                make = self.nf_conntrack if tracker == "nf_conntrack" else self.redirectd
                list_ = make(stack, pair)
                make_states(pair, stack)
                eventually(lambda: settled(list_()), f"every state in {tracker}")  # pylint: disable=cell-var-from-loop
                shown[tracker] = list_(), list_("-o", "extended")
            shown["json"] = self.daemon.flows()
            yield shown

    def nf_conntrack(self, stack, pair):
        pair.server.sysctl("netfilter/nf_conntrack_acct", 1)
        stack.enter_context(Nftables(pair.server, *self.RULES))
        return lambda *o: [line for family in ("ipv4", "ipv6") for line in pair.server.run(
            "conntrack", "-L", "-f", family, *o).stdout.splitlines() if "port=80" in line]

    def redirectd(self, stack, pair):
        self.daemon = stack.enter_context(Daemon(pair.server, *self.RULES))
        return lambda *o: self.daemon.ctl("conntrack", "list", *o).stdout.splitlines()

    @pytest.mark.parametrize("form", [0, 1], ids=["plain", "extended"])
    def test_same_lines(self, lines, form):
        theirs, ours = (sorted(map(normal, lines[tracker][form])) for tracker in ("nf_conntrack", "redirectd"))
        assert len(ours) == 14
        assert ours == theirs

    @pytest.mark.parametrize("tracker", ["nf_conntrack", "redirectd"])
    def test_every_word(self, lines, tracker):
        """That the traffic brings out the words whose place matters, in either tracker."""
        text = "\n".join(lines[tracker][0])
        for word in (r"\[UNREPLIED\] src=", r"\[ASSURED\] mark=\d use=", "ESTABLISHED src=", r"^udp {6}17 \d+ src="):
            assert re.search(word, text, re.M), word

    def test_netstat_nat(self, lines):
        """A program that reads /proc/net/nf_conntrack reads ours, sees what JSON says, and in both the same."""
        if not shutil.which("netstat-nat"):
            pytest.skip("netstat-nat is not installed")
        read = {tracker: netstat_nat(lines[tracker][1]) for tracker in ("nf_conntrack", "redirectd")}
        assert read["redirectd"] == read["nf_conntrack"]
        ours = [f for f in lines["json"] if ":" not in f["original"]["src"]]  # it knows IPv4 only
        ends = {(protocol, *(f"{f['original'][a]}:{f['original'][p]}" for a, p in (("src", "sport"), ("dst", "dport")))):
                f["state"] for f in ours for protocol in [f["protocol"]]}
        assert {(p, s, d) for p, s, d, _ in read["redirectd"]} == ends.keys() and len(ends) == 7
        for protocol, source, destination, state in read["redirectd"]:
            if protocol == "tcp":  # CLOSE_WAIT is CLOSE to it, of either tracker
                assert ends[protocol, source, destination].startswith(state)


def netstat_nat(lines):
    """Its rows of (protocol, source, destination, state), with these lines in /proc/net/nf_conntrack."""
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-ec",
         "mount -t tmpfs tmpfs /proc; mkdir /proc/net; cat > /proc/net/nf_conntrack; netstat-nat -n -o -L"],
        input="".join(f"{line}\n" for line in lines), capture_output=True, text=True, check=True)
    return sorted(tuple(line.split()) for line in done.stdout.splitlines() if line.strip())


# ---- a million ----

SMALL, LARGE = 10_000, 1_000_000
GROWTH = 8 << 10  # KiB


def memory(pid, what):
    """KiB, of a line of /proc/PID/status."""
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(f"{what}:"))


class Dump:
    """A running `conntrack list` whose output is read when told to."""

    def __init__(self, daemon, *arguments):
        self.command = [REDIRECTCTL, "-s", daemon.socket, *arguments, "conntrack", "list"]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        return self

    def __exit__(self, *_):
        stop(self.process)

    def lines(self, most=None):
        """How many came: all, or the first ones."""
        n = 0
        while n != most and self.process.stdout.readline():
            n += 1
        return n


@pytest.fixture(scope="class")
def crowd(pair):
    """Daemon and client that have done with a table of SMALL flows, then has LARGE."""
    config = f"flows-max {LARGE + LARGE // 10}\ntimeout tcp-syn 1h\ntimeout udp 1h\nredirect tcp+udp 8080 to 80\n"
    with Daemon(pair.server, config=config) as daemon, TcpEcho(pair.server, 80):
        pair.daemon = daemon
        yield pair


def dump_memory(daemon, flows, *arguments):
    """KiB of client and daemon, near the end of a dump."""
    with Dump(daemon, *arguments) as dump:
        assert dump.lines(flows - 500) == flows - 500  # the rest is more than the pipe holds
        sizes = memory(dump.process.pid, "VmHWM"), memory(daemon.process.pid, "RssAnon")
        dump.lines()
        assert dump.process.wait(60) == 0
    return sizes


class TestMillion:
    def test_memory_does_not_grow(self, crowd):
        """Ten thousand flows, a million: the same memory in client and daemon, as text and as JSON."""
        ways, sizes = ([], ["-j"]), []
        for first, count in ((0, SMALL), (SMALL, LARGE - SMALL)):
            fill(crowd.server, "eth0", count // 2, first=first)
            fill(crowd.server, "eth0", count // 4, server=Pair.SERVER6, first=first)
            fill(crowd.server, "eth0", count // 4, protocol="udp", first=first)
            there = crowd.daemon.json("conntrack", "count")["count"]
            assert there > (first + count) * 0.999  # a full bucket now and then
            sizes.append([dump_memory(crowd.daemon, there, *way) for way in ways])
        for small, large in zip(*sizes):
            for before, after in zip(small, large):
                assert after - before < GROWTH, sizes

    def test_all_are_there(self, crowd):
        there = crowd.daemon.json("conntrack", "count")["count"]
        with Dump(crowd.daemon, "-j") as dump:
            flows = json.load(dump.process.stdout)["flows"]
        assert len({tuple_of(f) for f in flows}) == len(flows) == there

    def test_unread_dump_holds_up_nobody(self, crowd):
        """A reader that has gone to sleep: packets pass, others are answered, the dump goes on later."""
        there = crowd.daemon.json("conntrack", "count")["count"]
        with Dump(crowd.daemon) as dump:
            assert dump.lines(1000) == 1000
            assert tcp_ask(crowd.client, Pair.SERVER4, 8080) == b"hello"
            for _ in range(20):
                crowd.daemon.json("list")
                crowd.daemon.json("conntrack", "count", "--dport", "1")
            assert dump.process.poll() is None
            assert dump.lines() >= there - 1000
            assert dump.process.wait(60) == 0

    @pytest.mark.parametrize("method, parameters", [("ConntrackDelete", {"protocol": "udp"}),
                                                    ("ConntrackFlush", {})])
    def test_others_are_answered_in_between(self, crowd, method, parameters):
        """Both calls have come before the daemon looks at either; the other one sees the work half done."""
        before = crowd.daemon.json("stats")["flows"]["active"]
        with Caller(crowd.daemon.socket) as walker, Caller(crowd.daemon.socket) as other:
            other.call({"method": "org.varlink.service.GetInfo"})
            crowd.daemon.process.send_signal(signal.SIGSTOP)
            try:
                walker.socket.sendall(json.dumps({"method": f"io.redirectd.{method}",
                                                  "parameters": parameters}).encode() + b"\0")
                other.socket.sendall(20 * b'{"method":"io.redirectd.Stats"}\0')
            finally:
                crowd.daemon.process.send_signal(signal.SIGCONT)
            seen = [other.message()["parameters"]["flows"]["active"] for _ in range(20)]
            deleted = walker.message()["parameters"]["deleted"]
        after = crowd.daemon.json("stats")["flows"]["active"]
        assert deleted > LARGE // 5 and after == before - deleted
        assert after < seen[-1] < before
        assert sorted(seen, reverse=True) == seen
