# SPDX-License-Identifier: GPL-2.0-or-later
"""flows-max changes while packets go on: no flow, no datagram and no count is lost by it."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time

import pytest

from netns import Pair, eventually, family_of
from peers import Stream, TcpEcho, UdpEcho, tcp_ask, udp_ask
from redirectd import Daemon

RULES = """
timeout udp 1h
timeout udp-stream 1h
redirect tcp 8080 to 80 name web
redirect udp 5300 to 53 name dns
redirect udp 20000-49999 to 10000-39999 name many
"""
SIZES = (65536, 30000, 200000, 40000, 25000)


def configuration(flows_max):
    return f"flows-max {flows_max}\n{RULES}"


def settled(daemon, flows_max):
    def is_so():
        status = daemon.json("status")
        return status["resize"] is None and status["flows"]["max"] == flows_max \
            and table(daemon)["max_entries"] >= flows_max
    eventually(is_so, f"a table for {flows_max} flows:\n{daemon.log()}", deadline=60)


def table(daemon, name="flows"):
    folder = [d for d in os.listdir(daemon.pins) if d.startswith("v")][0]
    done = subprocess.run(["bpftool", "-j", "map", "show", "pinned", f"{daemon.pins}/{folder}/{name}"],
                          capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def pins(daemon):
    return {name for folder in os.listdir(daemon.pins) if folder.startswith("v")
            for name in os.listdir(os.path.join(daemon.pins, folder))}


class Datagrams:
    """One UDP flow: numbered datagrams, each of which must be answered."""

    def __init__(self, ns, address, port):
        self.socket = ns.open_socket(family_of(address), socket.SOCK_DGRAM)
        self.socket.connect((address, port))
        self.sent, self.answered, self.ended = 0, set(), False
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self._send, self._receive)]

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.stop()
        self.socket.close()

    def _send(self):
        while not self.ended:
            self.socket.send(b"%015d" % self.sent)
            self.sent += 1
            time.sleep(0.001)

    def _receive(self):
        self.socket.settimeout(1)
        while not self.ended or len(self.answered) < self.sent:
            try:
                self.answered.add(int(self.socket.recv(100).removeprefix(b"echo:")))
            except TimeoutError:
                if self.ended:
                    return

    def stop(self):
        self.ended = True
        for t in self.threads:
            t.join()

    @property
    def lost(self):
        return sorted(set(range(self.sent)) - self.answered)


class Asker:
    """Short connections and single datagrams, each a flow of its own, one after the other."""

    def __init__(self, ns, server):
        self.ns, self.server = ns, server
        self.ended, self.asked, self.failures = False, 0, []
        self.thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended = True
        self.thread.join()

    def _ask(self):
        while not self.ended:
            self.asked += 1
            try:
                assert tcp_ask(self.ns, self.server, 8080) == b"hello"
                assert udp_ask(self.ns, self.server, 5300) == b"echo:hello"
            except (OSError, AssertionError) as error:
                self.failures.append((self.asked, error))
            time.sleep(0.005)


def fill(pair, n):
    """So many flows of one packet each."""
    with pair.client.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for port in range(20000, 20000 + n):
            s.sendto(b"x", (Pair.SERVER4, port))
            if port % 100 == 0:
                time.sleep(0.001)


class Traffic:
    """All of it at once, and what must be true of it afterwards."""

    def __init__(self, pair):
        self.pair = pair
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        enter = self.stack.enter_context
        enter(TcpEcho(self.pair.server, 80))
        enter(UdpEcho(self.pair.server, "::", 53))
        self.streams = [enter(Stream(self.pair.client, s, 8080)) for s in Pair.SERVERS]
        self.datagrams = [enter(Datagrams(self.pair.client, s, 5300)) for s in Pair.SERVERS]
        self.askers = [enter(Asker(self.pair.client, s)) for s in Pair.SERVERS]
        return self

    def __exit__(self, *error):
        return self.stack.__exit__(*error)

    def must_go_on(self):
        for s in self.streams:
            s.must_go_on()

    def end(self, daemon):
        for s in self.streams + self.askers:
            s.ended = True
            s.thread.join()
        for d in self.datagrams:
            d.stop()
        for a in self.askers:
            assert a.asked > 10 and not a.failures
        for d in self.datagrams:
            assert not d.lost, f"{len(d.lost)} of {d.sent} datagrams: {d.lost[:10]}"
        flows = {(f["protocol"], f["original"]["src"], f["original"]["sport"]): f
                 for f in daemon.flows()}
        for d in self.datagrams:
            self.expect_datagrams(d, flows["udp", *d.socket.getsockname()[:2]])
        for s in self.streams:
            assert s.error is None, s.error
            self.expect_stream(s, flows["tcp", *s.socket.getsockname()[:2]])

    @staticmethod
    def expect_datagrams(d, flow):
        """Exactly what the ends have sent, packets and bytes."""
        header = 28 if d.socket.family == socket.AF_INET else 48
        assert flow["original"]["packets"] == flow["reply"]["packets"] == d.sent
        assert flow["original"]["bytes"] == d.sent * (header + 15)
        assert flow["reply"]["bytes"] == d.sent * (header + 20)

    @staticmethod
    def expect_stream(s, flow):
        """Every header has timestamps, the SYN 8 bytes more; the rest is what was said."""
        header = 52 if s.socket.family == socket.AF_INET else 72
        for direction in ("original", "reply"):
            counted = flow[direction]
            assert counted["bytes"] == counted["packets"] * header + 8 + 16 * s.count


@pytest.fixture
def daemon(plain_pair):
    with Daemon(plain_pair.server, config=configuration(2000)) as d:
        yield d
    assert not os.path.exists(d.pins)


def change(daemon, flows_max):
    daemon.write(configuration(flows_max))
    daemon.process.send_signal(signal.SIGHUP)


class TestResize:
    def test_ten_times_under_traffic(self, plain_pair, daemon):
        with Traffic(plain_pair) as traffic:
            traffic.must_go_on()
            before = {f["original"]["sport"]: f for f in daemon.flows()}
            ids = {r["name"]: r["id"] for r in daemon.listed()}
            memory = {}
            for flows_max in SIZES * 2:
                change(daemon, flows_max)
                traffic.must_go_on()
                settled(daemon, flows_max)
                memory[flows_max] = table(daemon)["bytes_memlock"]
                assert not {"flows_new", "flow_index_new"} & pins(daemon)
            assert {r["name"]: r["id"] for r in daemon.listed()} == ids
            for flow in daemon.flows():
                known = before.get(flow["original"]["sport"])
                if known:
                    assert known["reply"]["dport"] == flow["reply"]["dport"]
                    assert flow["age_ms"] >= known["age_ms"]
            traffic.end(daemon)
        assert memory[200000] > 7 * memory[25000]
        stats = daemon.json("stats")["flows"]
        assert stats["insert_failed"] == 0
        daemon.end()
        assert not os.path.exists(daemon.pins)

    def test_killed_at_any_moment(self, plain_pair):
        """The next daemon goes on with it."""
        n, choose = 20000, random.Random(7)

        def moves():
            return (daemon.json("status")["resize"] or {}).get("moved", 0) > 0

        with Daemon(plain_pair.server, config=configuration(60000)) as daemon, \
                Traffic(plain_pair) as traffic:
            fill(plain_pair, n)
            assert daemon.rule("many")["counters"]["active"] == n
            for i in range(9):
                flows_max = 200000 if i % 2 == 0 else 60000
                change(daemon, flows_max)
                if i % 3:
                    eventually(moves, "flows move", deadline=60)
                time.sleep(choose.uniform(0, 1.5) if i % 3 != 1 else 0)
                daemon.end(signal.SIGKILL)
                traffic.must_go_on()
                if i % 4 == 3:
                    flows_max = 100000
                    daemon.write(configuration(flows_max))
                daemon.start()
                traffic.must_go_on()
                settled(daemon, flows_max)
            assert "going on to move flows" in daemon.log()
            traffic.end(daemon)
            counters = daemon.rule("many")["counters"]
            assert (counters["active"], counters["flows"]) == (n, n)
            assert counters["packets"] == n and counters["bytes"] == n * 29
            flows = daemon.flows("--rule", "many")
            assert len({f["original"]["dport"] for f in flows}) == len(flows) == n

    def test_started_with_another_size(self, plain_pair, daemon):
        with TcpEcho(plain_pair.server, 80), Stream(plain_pair.client, Pair.SERVER4, 8080) as stream:
            stream.must_go_on()
            for how in (signal.SIGUSR2, signal.SIGKILL):
                for flows_max in (50000, 3000):
                    daemon.end(how)
                    daemon.write(configuration(flows_max))
                    daemon.start()
                    settled(daemon, flows_max)
                    stream.must_go_on()

    def test_less_than_there_are(self, plain_pair, daemon):
        fill(plain_pair, 1900)
        change(daemon, 100)
        daemon.logged("1900 flows that are there")
        status = daemon.json("status")
        assert status["flows"]["active"] == 1900
        assert status["problems"] == ["flows", "flows_max"]
        assert "flows-max 100 is less" in status["resize_error"]
        daemon.write(configuration(100).replace("udp 1h", "udp 1s"))
        daemon.process.send_signal(signal.SIGHUP)
        eventually(lambda: not daemon.flows(), "no flow is left")
        daemon.process.send_signal(signal.SIGHUP)
        settled(daemon, 100)
        assert daemon.json("status")["problems"] == []

    def test_changed_again_meanwhile(self, plain_pair, daemon):
        for flows_max in (100000, 5000, 70000):
            change(daemon, flows_max)
            time.sleep(0.3)
        settled(daemon, 70000)

    def test_a_list_is_whole(self, plain_pair):
        """Lists that are read while flows move have every flow once."""
        with Daemon(plain_pair.server, config=configuration(32768)) as daemon:
            fill(plain_pair, 20000)
            for flows_max in (100000, 32768):
                change(daemon, flows_max)
                for _ in range(8):
                    ports = [f["original"]["dport"] for f in daemon.flows("--rule", "many")]
                    assert len(ports) == len(set(ports)) == 20000
                    assert daemon.rule("many")["counters"]["packets"] == 20000
                settled(daemon, flows_max)
