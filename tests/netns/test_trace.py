# SPDX-License-Identifier: GPL-2.0-or-later
"""redirectctl trace: what it says is what then happens to a real packet, and it changes nothing."""

import json
import os
import socket

import jsonschema
import pytest

from netns import Namespace, Pair, eventually, host, veth
from peers import TcpEcho
from redirectd import EXIT_FAILED, EXIT_USAGE, Daemon

HERE = os.path.dirname(os.path.abspath(__file__))
BEHIND4, BEHIND6 = "198.51.100.2", "2001:db8:1::2"
SPORT = 40000

with open(os.path.join(HERE, "schemas", "trace.json"), encoding="utf-8") as schema_file:
    SCHEMA = json.load(schema_file)

RULES = (
    "tcp+udp 8080 to 80 name web",
    "tcp 8080 to 81 from 203.0.113.0/24",
    "tcp 8080 to 82 on lo",
    "udp 7000-7009 to 6000-6009",
    f"tcp {Pair.OTHER4}:8081 to 80",
    f"tcp 8082 to {BEHIND4}:80",
    f"tcp+udp 8083 to {BEHIND4}:80 masquerade",
    f"udp 8084 to [{BEHIND6}]:80 masquerade",
    "tcp 8085 to 80 disabled",
    "tcp *:8086 to 80",
    f"tcp 8087 to {BEHIND4}:80,{BEHIND4}:81 masquerade",
)
IDS = {rule: number for number, rule in enumerate(RULES, 1)}


@pytest.fixture(scope="class")
def hosts():
    """A pair whose server is also a router to a host behind it."""
    with Pair() as pair, Namespace("b") as behind:
        veth(pair.server, "back", ["198.51.100.1/24", "2001:db8:1::1/64"], behind, "eth0",
             [f"{BEHIND4}/24", f"{BEHIND6}/64"])
        behind.run("ip", "route", "add", "default", "via", "198.51.100.1")
        behind.run("ip", "-6", "route", "add", "default", "via", "2001:db8:1::1")
        pair.client.run("ip", "route", "add", "198.51.100.0/24", "via", Pair.SERVER4)
        pair.server.sysctl("ipv4/ip_forward", 1)
        pair.server.sysctl("ipv6/conf/all/forwarding", 1)
        pair.server.sysctl("ipv4/conf/lo/accept_local", 1)
        pair.behind = behind
        with Daemon(pair.server, config="".join(f"redirect {rule}\n" for rule in RULES)) as daemon:
            pair.daemon = daemon
            yield pair


def unchanged(daemon):
    """What must be the same behind a trace as before: rules' counters, flows; and totals of flows."""
    stats = daemon.json("stats")
    return (daemon.listed(), [{k: v for k, v in f.items() if not k.endswith("_ms")} for f in daemon.flows()],
            stats["flows"], stats["redirected"], stats["port_searches"])


def trace(daemon, protocol, src, dst, *on, sport=SPORT):
    """The answer, by the schema; `dst` is (address, port)."""
    answer = {}

    def changes_nothing():
        before = unchanged(daemon)
        answer.update(daemon.json("trace", protocol, f"{host(src)}:{sport}", f"{host(dst[0])}:{dst[1]}", *on))
        return unchanged(daemon) == before

    # Connections that are being closed may send something in between, but not for ever.
    eventually(changes_nothing, "a trace that has changed nothing")
    jsonschema.validate(answer, SCHEMA)
    return answer


def whys(answer):
    return {r["id"]: r["why"] for r in answer["rules"]}


def end(t):
    return t["src"], t["sport"]


class Real:
    """One real connection or datagram, seen at the server that it reaches."""

    def __init__(self, client, protocol, src, sport, dst, server, address, port):
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        self.listener = server.listen(address, port, kind)
        self.peer = None
        try:
            if protocol == "tcp":
                self.client = client.connect(*dst, source=src, sport=sport)
                self.peer, self.seen = self.listener.accept()
                self.met = self.peer.getsockname()
            else:
                self.client = client.open_socket(self.listener.family, kind)
                self.client.bind((src, sport))
                self.client.connect(dst)
                self.client.send(b"q")
                _, self.seen = self.listener.recvfrom(10)
                self.met = (address, port)
            self.seen, self.met = self.seen[:2], self.met[:2]
        except BaseException:
            self.close()
            raise

    def close(self):
        for s in (getattr(self, "client", None), self.peer, self.listener):
            if s:
                s.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@pytest.mark.parametrize("protocol, src, dst, rule, place", [
    ("tcp", Pair.CLIENT4, (Pair.SERVER4, 8080), 0, ("server", Pair.SERVER4, 80)),
    ("udp", Pair.CLIENT6, (Pair.SERVER6, 8080), 0, ("server", Pair.SERVER6, 80)),
    ("udp", Pair.CLIENT4, (Pair.SERVER4, 7003), 3, ("server", Pair.SERVER4, 6003)),
    ("tcp", Pair.CLIENT4, (Pair.OTHER4, 8081), 4, ("server", Pair.OTHER4, 80)),
    ("tcp", Pair.CLIENT4, (Pair.SERVER4, 8082), 5, ("behind", BEHIND4, 80)),
    ("tcp", Pair.CLIENT4, (Pair.SERVER4, 8083), 6, ("behind", BEHIND4, 80)),
    ("udp", Pair.CLIENT4, (Pair.SERVER4, 8083), 6, ("behind", BEHIND4, 80)),
    ("udp", Pair.CLIENT6, (Pair.SERVER6, 8084), 7, ("behind", BEHIND6, 80))])
class TestComesTrue:
    def test_first_packet_and_flow(self, hosts, protocol, src, dst, rule, place):
        daemon, (name, address, port) = hosts.daemon, place
        sport = SPORT + 2 * rule + (protocol == "udp")  # of no other case, whose flow may still be there
        said = trace(daemon, protocol, src, dst, sport=sport)
        assert said["verdict"] == "redirected" and said["new"] and not said["port_changed"]
        assert said["rule"] == rule + 1 and whys(said)[rule + 1] == "takes"
        assert said["interface"] == "eth0"
        with Real(hosts.client, protocol, src, sport, dst, getattr(hosts, name), address, port) as real:
            assert real.seen == end(said["stages"]["out"])
            assert real.met == (said["stages"]["out"]["dst"], said["stages"]["out"]["dport"])
            flow, = daemon.flows("--sport", sport, "-p", protocol, "--dport", dst[1])
            for direction, stage in (("original", "sent"), ("reply", "reply_sent")):
                assert {k: flow[direction][k] for k in said["stages"][stage]} == said["stages"][stage]
            # The answer reaches the client, or it would not be connected; that is what reply_out says.
            assert said["stages"]["reply_out"] == {"src": dst[0], "sport": dst[1], "dst": src,
                                                   "dport": sport}
            again = trace(daemon, protocol, src, dst, sport=sport)
            assert not again["new"] and again["flow"]["state"] == flow["state"]
            assert again["stages"] == said["stages"] and again["rule"] == said["rule"]


class TestClientsOfThisHost:
    def test_to_another_host(self, hosts):
        said = trace(hosts.daemon, "tcp", Pair.SERVER4, (Pair.SERVER4, 8083))
        assert said["interface"] == "lo" and said["rule"] == 7
        with Real(hosts.server, "tcp", Pair.SERVER4, SPORT, (Pair.SERVER4, 8083), hosts.behind, BEHIND4,
                  80) as real:
            assert real.seen == end(said["stages"]["out"]) == end(said["stages"]["in"])

    def test_more_specific_by_interface(self, hosts):
        said = trace(hosts.daemon, "tcp", "127.0.0.1", ("127.0.0.1", 8080))
        assert said["rule"] == 3 and whys(said) == {3: "takes", 1: "less-specific", 2: "source"}
        with Real(hosts.server, "tcp", "127.0.0.1", SPORT, ("127.0.0.1", 8080), hosts.server, "127.0.0.1", 82):
            pass


class TestWhyNot:
    def test_reasons(self, hosts):
        daemon = hosts.daemon
        assert whys(trace(daemon, "tcp", Pair.CLIENT4, (Pair.SERVER4, 8080))) == {
            1: "takes", 2: "source", 3: "interface"}
        assert whys(trace(daemon, "udp", Pair.CLIENT4, (Pair.SERVER4, 8080))) == {
            1: "takes", 2: "protocol", 3: "protocol"}
        assert whys(trace(daemon, "tcp", Pair.CLIENT6, (Pair.SERVER6, 8080))) == {
            1: "takes", 2: "family", 3: "interface"}
        assert whys(trace(daemon, "tcp", "203.0.113.7", (Pair.SERVER4, 8080), "on", "eth0")) == {
            2: "takes", 1: "less-specific", 3: "interface"}

    @pytest.mark.parametrize("src, dst, reason, why", [
        (Pair.CLIENT4, (Pair.SERVER4, 9999), "unrelated", {}),
        (Pair.CLIENT4, (Pair.SERVER4, 8085), "unrelated", {9: "disabled"}),
        (Pair.CLIENT4, (Pair.SERVER4, 8081), "no_match", {5: "address"}),
        (Pair.CLIENT4, (BEHIND4, 8080), "no_match", {1: "not-own", 2: "source", 3: "interface"}),
        (Pair.CLIENT6, (Pair.SERVER6, 8083), "no_match", {7: "family"}),
        (Pair.CLIENT4, (Pair.SERVER4, 7003), "unrelated", {4: "protocol"})])
    def test_none(self, hosts, src, dst, reason, why):
        before = hosts.daemon.json("stats")["passed"]
        said = trace(hosts.daemon, "tcp", src, dst)
        assert (said["verdict"], said["reason"]) == ("passed", reason) and said["rule"] is None
        want = dict(why)
        if dst[0] == BEHIND4:
            want[2] = "not-own"
        assert whys(said) == want and said["stages"] is None
        with hosts.client.open_socket(socket.AF_INET6 if ":" in src else socket.AF_INET,
                                      socket.SOCK_STREAM) as s:
            with pytest.raises(OSError):
                s.settimeout(3)
                s.connect(dst)
        after = hosts.daemon.json("stats")["passed"]
        assert after[reason] > before[reason]

    def test_transit(self, hosts):
        said = trace(hosts.daemon, "tcp", Pair.CLIENT4, (BEHIND4, 8086), sport=SPORT + 100)
        assert said["rule"] == 10
        with Real(hosts.client, "tcp", Pair.CLIENT4, SPORT + 100, (BEHIND4, 8086), hosts.behind, BEHIND4, 80):
            pass


class TestSourcePort:
    def test_taken(self, hosts):
        """Two clients' flows to one target by one source: the second one's port is another."""
        with Real(hosts.client, "udp", Pair.CLIENT4, 41000, (Pair.SERVER4, 8083), hosts.behind, BEHIND4, 80):
            hosts.client.run("ip", "address", "add", "192.0.2.9/24", "dev", "eth0")
            said = trace(hosts.daemon, "udp", "192.0.2.9", (Pair.SERVER4, 8083), sport=41000)
            assert said["port_changed"] and said["stages"]["out"]["src"] == "198.51.100.1"
            assert said["stages"]["out"]["sport"] != 41000
            free = trace(hosts.daemon, "udp", "192.0.2.9", (Pair.SERVER4, 8083), sport=41001)
            assert not free["port_changed"]
            with hosts.client.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.bind(("192.0.2.9", 41000))
                s.sendto(b"q", (Pair.SERVER4, 8083))
                flow = eventually(lambda: hosts.daemon.flows("-s", "192.0.2.9"), "its flow")[0]
                assert flow["reply"]["dport"] != 41000

    def test_target_of_several(self, hosts):
        """Of several targets the trace names the one that the packet then meets."""
        with TcpEcho(hosts.behind, 80), TcpEcho(hosts.behind, 81):
            for sport in range(42000, 42012):
                said = trace(hosts.daemon, "tcp", Pair.CLIENT4, (Pair.SERVER4, 8087), sport=sport)
                with hosts.client.connect(Pair.SERVER4, 8087, sport=sport):
                    flow, = hosts.daemon.flows("--sport", sport)
                    assert flow["reply"]["sport"] == said["stages"]["out"]["dport"]


class TestConnectionThatIsOver:
    def test_reopened(self, hosts):
        dst = (Pair.SERVER4, 8080)
        with hosts.server.listen(Pair.SERVER4, 80) as listener:
            client = hosts.client.connect(*dst, source=Pair.CLIENT4, sport=43000)
            server, _ = listener.accept()
            server.close()
            client.recv(1)
            client.close()
            eventually(lambda: [f["state"] for f in hosts.daemon.flows("--sport", 43000)] == ["TIME_WAIT"],
                       "it is over")
            said = trace(hosts.daemon, "tcp", Pair.CLIENT4, dst, sport=43000)
            assert said["ended"] == "reopened" and said["new"] and not said["port_changed"]


class TestWords:
    def test_text(self, hosts):
        shown = hosts.daemon.ctl("trace", "tcp", f"{Pair.CLIENT4}:{SPORT + 9}", f"{Pair.SERVER4}:8083", "on",
                                 "eth0").stdout.splitlines()
        assert shown[0] == f"redirected by rule 7: {RULES[6]}"
        assert [line.split() for line in shown[1:]] == [
            ["flow", "a", "new", "one"],
            ["packet", f"192.0.2.1:{SPORT + 9}", "->", "192.0.2.2:8083"],
            ["coming", "in", f"192.0.2.1:{SPORT + 9}", "->", "198.51.100.2:80"],
            ["leaving", f"198.51.100.1:{SPORT + 9}", "->", "198.51.100.2:80"],
            ["answer", "198.51.100.2:80", "->", f"198.51.100.1:{SPORT + 9}"],
            ["coming", "in", "198.51.100.2:80", "->", f"192.0.2.1:{SPORT + 9}"],
            ["leaving", "192.0.2.2:8083", "->", f"192.0.2.1:{SPORT + 9}"]]
        shown = hosts.daemon.ctl("trace", "tcp", f"{Pair.CLIENT4}:1", f"{Pair.SERVER4}:8085").stdout
        assert "passed untouched: unrelated" in shown and "it is disabled" in shown
        shown = hosts.daemon.ctl("trace", "udp", f"[{Pair.CLIENT6}]:1", f"[{Pair.SERVER6}]:9").stdout
        assert "no rule has that port" in shown

    @pytest.mark.parametrize("words, message", [
        (("sctp", "192.0.2.1:1", "192.0.2.2:1"), "is no protocol"),
        (("tcp", "192.0.2.1", "192.0.2.2:1"), "is not ADDRESS:PORT"),
        (("tcp", "192.0.2.1:0", "192.0.2.2:1"), "is no port"),
        (("tcp", "192.0.2.1:1", "192.0.2.2:70000"), "is no port"),
        (("tcp", "192.0.2.0/24:1", "192.0.2.2:1"), "is no address"),
        (("tcp", "2001:db8::1:1", "[2001:db8::2]:1"), "in brackets"),
        (("tcp", "192.0.2.1:1", "[2001:db8::2]:1"), "different families"),
        (("tcp", "192.0.2.1:1", "192.0.2.2:1", "eth0"), "on IFACE"),
        (("tcp", "192.0.2.1:1"), "needs PROTO")])
    def test_mistakes(self, hosts, words, message):
        assert message in hosts.daemon.ctl("trace", *words, code=EXIT_USAGE).stderr

    def test_place(self, hosts):
        for words, message in ((("203.0.113.1:1",), "say the interface"), (("192.0.2.1:1", "nope"), 'there is no interface "nope"')):
            on = ("on", words[1]) if len(words) > 1 else ()
            assert message in hosts.daemon.ctl("trace", "tcp", words[0], "192.0.2.2:8080", *on,
                                               code=EXIT_FAILED).stderr
