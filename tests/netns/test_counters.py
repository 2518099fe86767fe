# SPDX-License-Identifier: GPL-2.0-or-later
"""Counters against the wire: tcpdump and nftables count the same packets and bytes."""

import contextlib
import json
import os
import re
import signal
import socket

import pytest

from capture import Capture
from netns import Pair, eventually, family_of, host
from peers import Nginx, TcpEcho, UdpEcho, curl, tcp_ask, udp_ask
from redirectd import Daemon

BOTH = pytest.mark.parametrize("server", Pair.SERVERS, ids=["ipv4", "ipv6"])


@pytest.fixture(scope="class")
def net(plain_pair):
    yield plain_pair


@pytest.fixture
def daemon(net):
    with Daemon(net.server, "tcp+udp 8080 to 80 name web", "tcp 8081 to 81 name other") as d:
        yield d


def settled_flow(daemon, **tuple_fields):
    """The one flow that matches, once its connection is over on both sides."""
    def closed():
        found = [f for f in daemon.flows()
                 if all(f["original"][k] == v for k, v in tuple_fields.items())]
        assert len(found) <= 1, found
        return found[0] if found and found[0]["state"] in ("TIME_WAIT", "LAST_ACK", "CLOSE") else None
    return eventually(closed, "the flow has closed")


# At each receiver, where a packet arrives, before any part of the stack has put it together with
# others. In the server that is behind redirectd's hook: its packets bear port 80 already.
NFT = """
table netdev count {{
  counter arrived {{}}
  chain ingress {{ type filter hook ingress device eth0 priority 0; tcp {port} counter name arrived; }}
}}
"""


@contextlib.contextmanager
def nft_count(ns, port):
    """Yields a function that tells (packets, bytes) of what arrived in ns."""
    def count():
        shown = json.loads(ns.run("nft", "-j", "list", "counters").stdout)
        return [(c["counter"]["packets"], c["counter"]["bytes"])
                for c in shown["nftables"] if "counter" in c][0]
    ns.run("nft", "-f", "-", input=NFT.format(port=port))
    try:
        yield count
    finally:
        ns.run("nft", "delete", "table", "netdev", "count")


class TestCounters:
    @BOTH
    def test_tcp_flow_equals_tcpdump(self, net, daemon, server, tmp_path):
        (tmp_path / "data").write_bytes(os.urandom(3 << 20))
        with Nginx(net.server, 80, tmp_path, str(tmp_path)), \
                Capture(net.client, "eth0", "tcp port 8080", str(tmp_path)) as wire:
            body = curl(net.client, f"http://{host(server)}:8080/data")
            assert len(body) == 3 << 20
            flow = settled_flow(daemon, dst=server)
        flow = settled_flow(daemon, dst=server)
        sent, received = wire.count(dport=8080), wire.count(sport=8080)
        assert received.bytes > 3 << 20
        assert (flow["original"]["packets"], flow["original"]["bytes"]) == sent
        assert (flow["reply"]["packets"], flow["reply"]["bytes"]) == received

    @BOTH
    def test_tcp_flow_equals_nftables(self, net, daemon, server):
        with nft_count(net.server, "dport 80") as there, nft_count(net.client, "sport 8080") as back, \
                TcpEcho(net.server, 80):
            tcp_ask(net.client, server, 8080, b"x" * 100000)
            settled_flow(daemon, dst=server)
            flow = settled_flow(daemon, dst=server)
            assert there()[0] > 10
            assert (flow["original"]["packets"], flow["original"]["bytes"]) == there()
            assert (flow["reply"]["packets"], flow["reply"]["bytes"]) == back()

    @BOTH
    def test_udp_flow(self, net, daemon, server):
        """Sizes that are known beforehand: IP header, UDP header, payload."""
        headers = (40 if ":" in server else 20) + 8
        with UdpEcho(net.server, server, 80):
            with net.client.open_socket(family_of(server), socket.SOCK_DGRAM) as s:
                s.connect((server, 8080))
                for size in (0, 1, 100, 1400):
                    s.send(b"x" * size)
                    assert len(s.recv(2000)) == size + 5
                port = s.getsockname()[1]
        flow, = [f for f in daemon.flows("-p", "udp") if f["original"]["sport"] == port]
        assert flow["original"]["packets"] == 4
        assert flow["original"]["bytes"] == 4 * headers + 1501
        assert flow["reply"]["packets"] == 4
        assert flow["reply"]["bytes"] == 4 * headers + 1501 + 4 * 5

    def test_rule_is_the_sum_of_its_flows(self, net, daemon):
        with TcpEcho(net.server, 80), UdpEcho(net.server, Pair.SERVER4, 80):
            for server in Pair.SERVERS:
                tcp_ask(net.client, server, 8080)
            for _ in range(3):
                udp_ask(net.client, Pair.SERVER4, 8080)
            eventually(lambda: all(f["state"] in ("TIME_WAIT", "CLOSE") for f in daemon.flows("-p", "tcp")),
                       "both connections are over")
        flows, rule = daemon.flows(), daemon.rule("web")
        assert len(flows) == 5
        counters = rule["counters"]
        for what in ("packets", "bytes"):
            assert counters[what] == sum(f[d][what] for f in flows for d in ("original", "reply"))
        assert counters["flows"] == 5
        assert daemon.rule("other")["counters"] == {"packets": 0, "bytes": 0, "flows": 0, "active": 0,
                                                    "refused": 0}

    def test_target_is_the_sum_of_its_flows(self, net, daemon):
        """Of each; together they are the rule. One that drains keeps what it has counted."""
        rule = "udp 5300 to 91,92 name two balance random"
        daemon.add(rule)
        with UdpEcho(net.server, Pair.SERVER4, 91), UdpEcho(net.server, Pair.SERVER4, 92):
            for _ in range(20):
                udp_ask(net.client, Pair.SERVER4, 5300)
            before, flows = daemon.rule("two"), daemon.flows("--rule", "two")
            assert len(flows) == 20
            for target in before["targets"]:
                mine = [f for f in flows if f["reply"]["sport"] == target["ports"][0]]
                assert target["counters"] == {
                    "packets": 2 * len(mine), "flows": len(mine), "active": len(mine),
                    "bytes": sum(f[d]["bytes"] for f in mine for d in ("original", "reply"))}
            for what in ("packets", "bytes", "flows", "active"):
                assert before["counters"][what] == sum(t["counters"][what] for t in before["targets"])
            daemon.ctl("replace", "two", *rule.replace("92", "92 weight 0").split())
            for _ in range(10):
                udp_ask(net.client, Pair.SERVER4, 5300)
            after = daemon.rule("two")
            assert after["targets"][1]["counters"] == before["targets"][1]["counters"]
            assert after["targets"][0]["counters"]["flows"] == before["targets"][0]["counters"]["flows"] + 10
            shown = [line.split(None, 1)[1] for line in daemon.ctl("show", "two").stdout.splitlines()
                     if line.startswith("target")]
            assert shown[0].startswith("91: 100 % of new flows; ")
            n = before["targets"][1]["counters"]["flows"]
            assert shown[1].startswith(f"92: no new flows; {n} active, {n} so far, {2 * n} packets, ")
            daemon.ctl("replace", "two", *f"{rule} timeout udp 1s".split())
            ended = eventually(lambda: not (r := daemon.rule("two"))["counters"]["active"] and r,
                               "all flows have ended")
            for one, other in zip(after["targets"], ended["targets"]):
                assert other["counters"] == {**one["counters"], "active": 0}

    def test_targets_that_come_and_go(self, net):
        """What one has counted stays its own when others go or come, and when another daemon takes over."""
        rule = "udp 5300 to {} name some balance random"

        def counted(daemon):
            return {t["ports"][0]: t["counters"]["flows"] for t in daemon.rule("some")["targets"]}

        with Daemon(net.server, rule.format("91,92")) as daemon, contextlib.ExitStack() as stack:
            for port in (91, 92, 93):
                stack.enter_context(UdpEcho(net.server, Pair.SERVER4, port))
            for _ in range(20):
                udp_ask(net.client, Pair.SERVER4, 5300)
            first = counted(daemon)
            assert sum(first.values()) == 20 and all(first.values())
            daemon.ctl("replace", "some", *rule.format("93,92").split())
            assert counted(daemon) == {93: 0, 92: first[92]}
            for _ in range(20):
                udp_ask(net.client, Pair.SERVER4, 5300)
            second = counted(daemon)
            assert second[92] > first[92] and second[92] - first[92] + second[93] == 20
            daemon.end(signal.SIGKILL)
            daemon.rules = [rule.format("92,91,93")]
            daemon.start()
            third = counted(daemon)
            assert (third[92], third[93]) == (second[92], second[93])
            assert third[91] == 0, "it has come anew"
            assert daemon.rule("some")["counters"]["flows"] == 40

    def test_refused_flows(self, net, daemon):
        """Datagrams of five clients' ports, of which the rate lets two through."""
        daemon.add("udp 5300 to 91 name few rate 2/h")
        with UdpEcho(net.server, Pair.SERVER4, 91), contextlib.ExitStack() as stack:
            dropped = daemon.json("stats")["drops"]["rate"]
            for _ in range(5):
                s = stack.enter_context(net.client.open_socket(socket.AF_INET, socket.SOCK_DGRAM))
                s.sendto(b"x", (Pair.SERVER4, 5300))
            eventually(lambda: daemon.json("stats")["drops"]["rate"] == dropped + 3, "three are refused")
            counters = daemon.rule("few")["counters"]
        assert (counters["flows"], counters["refused"]) == (2, 3)
        shown = daemon.ctl("show", "few").stdout
        assert re.search(r"^refused +3 new flows, by its limits$", shown, re.MULTILINE)

    def test_active_counts_live_flows(self, net, daemon):
        with TcpEcho(net.server, 80):
            with net.client.connect(Pair.SERVER4, 8080) as one, \
                    net.client.connect(Pair.SERVER6, 8080) as two:
                for s in (one, two):
                    s.sendall(b"x")
                    assert s.recv(1) == b"x"
                assert daemon.rule("web")["counters"]["active"] == 2
                assert int(daemon.json("conntrack", "count")["count"]) == 2
                assert daemon.json("stats")["flows"]["active"] == 2

    def test_statistics(self, net, daemon):
        before = daemon.json("stats")
        with TcpEcho(net.server, 80), TcpEcho(net.server, 81):
            tcp_ask(net.client, Pair.SERVER4, 8080)
            tcp_ask(net.client, Pair.SERVER4, 81)
            flow = settled_flow(daemon, dport=8080)
        after = daemon.json("stats")
        redirected = flow["original"]["packets"] + flow["reply"]["packets"]
        assert after["redirected"] - before["redirected"] == redirected
        assert after["packets"] - before["packets"] > redirected
        assert after["flows"]["created"] - before["flows"]["created"] == 1

    def test_local_flow_counts_once(self, net, daemon, tmp_path):
        """Over lo every packet leaves and comes in; it is still one packet."""
        with TcpEcho(net.server, 80), Capture(net.server, "lo", "tcp", str(tmp_path)) as wire:
            tcp_ask(net.server, "127.0.0.1", 8080)
            flow = settled_flow(daemon, dst="127.0.0.1")
        flow = settled_flow(daemon, dst="127.0.0.1")
        total = wire.count()
        assert flow["original"]["packets"] + flow["reply"]["packets"] == total.packets
        assert flow["original"]["bytes"] + flow["reply"]["bytes"] == total.bytes

    def test_states(self, net, daemon):
        with TcpEcho(net.server, 80), net.client.connect(Pair.SERVER4, 8080) as s:
            s.sendall(b"x")
            assert s.recv(1) == b"x"
            flow, = daemon.flows("-p", "tcp")
            assert flow["state"] == "ESTABLISHED"
            assert flow["assured"] is True
            assert flow["original"]["src"] == Pair.CLIENT4
            assert flow["original"]["dst"] == Pair.SERVER4
            assert flow["original"]["dport"] == 8080
            assert flow["original"]["sport"] == s.getsockname()[1]
            assert flow["reply"]["src"] == Pair.SERVER4
            assert flow["reply"]["sport"] == 80
            assert flow["reply"]["dst"] == Pair.CLIENT4
            assert flow["reply"]["dport"] == s.getsockname()[1]
            assert flow["interface"] == "eth0"
            assert flow["rule"] == daemon.rule("web")["id"]
            assert flow["expires_ms"] > 2 * 3600 * 1000

    def test_filters(self, net, daemon):
        with TcpEcho(net.server, 80), UdpEcho(net.server, Pair.SERVER6, 80):
            tcp_ask(net.client, Pair.SERVER4, 8080, sport=33333)
            udp_ask(net.client, Pair.SERVER6, 8080)
        assert len(daemon.flows()) == 2
        for filters, expected in (
                (["-p", "tcp"], 1), (["-p", "udp"], 1), (["-s", Pair.CLIENT4], 1),
                (["-d", Pair.SERVER6], 1), (["-d", "2001:db8::/32"], 1), (["--sport", "33333"], 1),
                (["--dport", "8080"], 2), (["--dport", "80"], 0), (["--rule", "web"], 2),
                (["--rule", "other"], 0), (["-s", "198.51.100.0/24"], 0)):
            assert len(daemon.flows(*filters)) == expected, filters
            assert daemon.json("conntrack", "count", *filters)["count"] == expected, filters
