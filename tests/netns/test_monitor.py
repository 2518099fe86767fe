# SPDX-License-Identifier: GPL-2.0-or-later
"""Flow events: `redirectctl monitor`, the method Monitor, losses, and their price when nobody
listens: none."""

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess

import jsonschema
import pytest

from netns import Pair, eventually, stop
from packets import UDP, ip, send, udp
from peers import TcpEcho, UdpEcho, receive, tcp_ask, udp_ask
from redirectd import EXIT_FAILED, EXIT_NO_SUCH, EXIT_USAGE, NOBODY, REDIRECTCTL, Daemon

HERE = os.path.dirname(os.path.abspath(__file__))
EVENTS_OFFSET, SAMPLE_OFFSET = 76, 128  # of struct datapath_config


def schema():
    with open(os.path.join(HERE, "schemas", "monitor.json"), encoding="utf-8") as f:
        return json.load(f)


@pytest.fixture(scope="class")
def net(pair):
    with Daemon(pair.server, "tcp 8080 to 80 name web", "udp 5300 to 53 name dns") as daemon, \
            TcpEcho(pair.server, 80), UdpEcho(pair.server, Pair.SERVER4, 53):
        pair.daemon = daemon
        yield pair


def config_word(daemon, offset):
    """A word of the datapath's configuration, by bpftool: not by the daemon."""
    folder, = (os.path.join(daemon.pins, name) for name in os.listdir(daemon.pins) if name.startswith("v"))
    shown = json.loads(subprocess.run(["bpftool", "-j", "map", "dump", "pinned",
                                       os.path.join(folder, "config")], capture_output=True,
                                      check=True).stdout)
    data = bytes(int(byte, 16) for byte in shown[0]["value"])
    return struct.unpack_from("=I", data, offset)[0]


class Monitor:
    """A running `redirectctl monitor`; `lines` grows as it prints."""

    def __init__(self, daemon, *arguments, as_json=False, **more):
        self.command = [REDIRECTCTL, "-s", daemon.socket, *(["-j"] if as_json else []), "monitor", *arguments]
        self.daemon, self.as_json, self.more = daemon, as_json, more
        self.out = os.path.join(daemon.folder, f"monitor{id(self)}")

    def __enter__(self):
        with open(self.out, "wb") as out, open(f"{self.out}.err", "wb") as err:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=err, **self.more)
        eventually(lambda: "watching" in self.said(), "it watches")
        return self

    def __exit__(self, *_):
        stop(self.process)

    def said(self):
        with open(f"{self.out}.err", encoding="utf-8") as f:
            return f.read()

    def lines(self):
        with open(self.out, encoding="utf-8") as f:
            whole = f.read().rpartition("\n")[0]
        lines = whole.splitlines()
        return [json.loads(line) for line in lines] if self.as_json else lines

    def wait(self, count):
        return eventually(lambda: len(self.lines()) >= count and self.lines(), f"{count} events")


class TestEvents:
    def test_json_lines(self, net):
        with Monitor(net.daemon, as_json=True) as m:
            assert tcp_ask(net.client, Pair.SERVER4, 8080) == b"hello"
            new, = m.wait(1)
            jsonschema.validate(new, schema(), cls=jsonschema.Draft202012Validator)
            assert new["event"] == "NEW" and new["reason"] is None and new["packet"] is None
            flow = net.daemon.flows("--rule", "web")[-1]
            for key in ("src", "dst", "sport", "dport"):
                assert new["flow"]["original"][key] == flow["original"][key]
                assert new["flow"]["reply"][key] == flow["reply"][key]
            assert new["flow"]["interface"] == "eth0"
            assert new["flow"]["rule"] == net.daemon.rule("web")["id"]

    def test_end_has_final_counts(self, pair):
        with Daemon(pair.server, config="timeout udp 1s\nredirect udp 7000 to 7001\n") as daemon, \
                UdpEcho(pair.server, Pair.SERVER4, 7001), Monitor(daemon, as_json=True) as m:
            udp_ask(pair.client, Pair.SERVER4, 7000, b"x" * 100)
            new, end = m.wait(2)
            assert (new["event"], end["event"], end["reason"]) == ("NEW", "DESTROY", "expired")
            jsonschema.validate(end, schema(), cls=jsonschema.Draft202012Validator)
            assert end["flow"]["original"]["packets"] == 1
            assert end["flow"]["original"]["bytes"] == 128
            assert end["flow"]["reply"]["bytes"] == 133
            assert end["time_us"] >= new["time_us"]

    def test_same_words_as_the_daemon(self, pair):
        """A line of `monitor` is the line of `redirectd -v`."""
        config = "timeout udp 1s\nredirect udp 7000 to 7001\n"
        with Daemon(pair.server, config=config, arguments=["-v"]) as daemon, \
                UdpEcho(pair.server, Pair.SERVER4, 7001), Monitor(daemon) as m:
            udp_ask(pair.client, Pair.SERVER4, 7000)
            for line in m.wait(2):
                daemon.logged(line + "\n")

    @pytest.mark.parametrize("filters, fits", [
        (["-p", "udp"], {"udp"}), (["-p", "tcp"], {"tcp"}), (["-s", Pair.CLIENT4], {"tcp", "udp"}),
        (["-s", "192.0.2.128/25"], set()), (["-d", f"{Pair.SERVER4}/32"], {"tcp", "udp"}),
        (["--dport", "8080"], {"tcp"}), (["--dport", "80"], set()), (["--rule", "web"], {"tcp"}),
        (["--rule", "dns", "-p", "tcp"], set()), (["--rule", "dns"], {"udp"}),
        (["--state", "SYN_SENT"], {"tcp"}), (["--state", "ESTABLISHED"], set())])
    def test_filters(self, net, filters, fits):
        """A filtered and an unfiltered one listen; what the second has seen has passed the first."""
        with Monitor(net.daemon, *filters) as filtered, Monitor(net.daemon) as all_of_it:
            tcp_ask(net.client, Pair.SERVER4, 8080)
            udp_ask(net.client, Pair.SERVER4, 5300)
            seen = all_of_it.wait(2)
            assert sorted(line.split()[1] for line in seen) == ["tcp", "udp"]
            expected = [line for line in seen if line.split()[1] in fits]
            eventually(lambda: filtered.lines() == expected, f"{expected} are told")

    def test_packets(self, net):
        with Monitor(net.daemon, "--packets=1", "-p", "tcp", as_json=True) as m:
            assert config_word(net.daemon, SAMPLE_OFFSET) == 0
            with net.client.connect(Pair.SERVER4, 8080) as s:
                s.sendall(b"hello")
                receive(s, 5)
                flow = eventually(lambda: [f for f in net.daemon.flows() if f["state"] == "ESTABLISHED"],
                                  "the flow")[0]
                count = flow["original"]["packets"] + flow["reply"]["packets"]
                lines = m.wait(1 + count)
            packets = [e for e in lines if e["event"] == "PACKET"
                       and e["flow"]["original"]["sport"] == flow["original"]["sport"]]
            for event in packets:
                jsonschema.validate(event, schema(), cls=jsonschema.Draft202012Validator)
            lengths = sum(e["packet"]["length"] for e in packets[:count])
            assert lengths == flow["original"]["bytes"] + flow["reply"]["bytes"]

    def test_samples_of_two_listeners(self, net):
        """The datapath samples for the one that wants most; the other gets its share."""
        with Monitor(net.daemon, "--packets=8", as_json=True) as few, \
                Monitor(net.daemon, "--packets=2") as many:
            assert config_word(net.daemon, SAMPLE_OFFSET) == 1
            with net.client.connect(Pair.SERVER4, 8080) as s:
                for _ in range(400):
                    s.sendall(b"x")
                    receive(s, 1)
            many.wait(200)
            seen = len([e for e in few.wait(20) if e["event"] == "PACKET"])
            assert 0 < seen < len(many.lines()) / 2


class TestPrice:
    def test_off_when_the_last_one_leaves(self, net):
        assert config_word(net.daemon, EVENTS_OFFSET) == 0
        with Monitor(net.daemon):
            assert config_word(net.daemon, EVENTS_OFFSET) == 1
            with Monitor(net.daemon, "--packets"):
                assert config_word(net.daemon, EVENTS_OFFSET) == 3
                assert config_word(net.daemon, SAMPLE_OFFSET) == 1023
            eventually(lambda: config_word(net.daemon, EVENTS_OFFSET) == 1, "packets are off")
        eventually(lambda: config_word(net.daemon, EVENTS_OFFSET) == 0, "events are off")

    def test_old_events_are_not_told(self, net):
        with Monitor(net.daemon, as_json=True) as m:
            tcp_ask(net.client, Pair.SERVER4, 8080)
            m.wait(1)
        eventually(lambda: config_word(net.daemon, EVENTS_OFFSET) == 0, "events are off")
        tcp_ask(net.client, Pair.SERVER4, 8080)
        with Monitor(net.daemon, as_json=True) as m:
            udp_ask(net.client, Pair.SERVER4, 5300)
            assert [e["flow"]["protocol"] for e in m.wait(1)] == ["udp"]


def send_many(ns, first, count, server=Pair.SERVER4):
    """One datagram from each of `count` source ports."""
    for port in range(first, first + count):
        with ns.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind(("0.0.0.0", port))
            s.sendto(b"x", (server, 7000))


class TestSlowReader:
    FLOWS = 20000

    @staticmethod
    def told(monitor):
        """Flows, and losses: a busy machine may lose some for everybody."""
        events = monitor.lines()
        return (sum(e["event"] == "NEW" for e in events),
                max([e["total"] for e in events if e["event"] == "LOST"], default=0))

    def read(self, s, waiting):
        while b"\0" not in waiting:
            waiting += s.recv(1 << 20)
        text, _, waiting = waiting.partition(b"\0")
        return json.loads(text)["parameters"], waiting

    def test_paused_counted_and_nobody_waits(self, pair):
        """One that does not read: the others see everything, and it is told what it has missed."""
        config = "timeout udp 1h\nredirect udp 7000 to 7001 name many\n"
        with Daemon(pair.server, config=config) as daemon, \
                UdpEcho(pair.server, Pair.SERVER4, 7001), socket.socket(socket.AF_UNIX) as slow:
            slow.settimeout(60)
            slow.connect(daemon.socket)
            slow.sendall(b'{"method":"io.redirectd.Monitor","more":true}\0')
            first, waiting = self.read(slow, b"")
            assert first == {"schema": 1, "events": [], "lost": 0}
            with Monitor(daemon, as_json=True) as m:
                send_many(pair.client, 10000, self.FLOWS)
                eventually(lambda: sum(self.told(m)) == self.FLOWS, "the one that reads knows of all")
                assert self.told(m)[0] > 4096 + 512, "more than waits for one that does not read"
                assert len(daemon.listed()) == 1
            seen = lost = 0
            while seen + lost < self.FLOWS:
                reply, waiting = self.read(slow, waiting)
                seen, lost = seen + len(reply["events"]), reply["lost"]
            assert 0 < lost < self.FLOWS and seen + lost == self.FLOWS


class TestDaemonThatStands:
    """More events than the ring buffer holds (1 MiB), while nobody takes any out."""

    FLOWS = 12000

    def test_losses_are_told_everywhere(self, pair):
        config = "timeout udp 1h\nredirect udp 7000 to 7001\n"
        datagrams = [ip(Pair.CLIENT4, Pair.SERVER4, UDP, udp(Pair.CLIENT4, Pair.SERVER4, port, 7000, b"x"))
                     for port in range(20000, 20000 + self.FLOWS)]
        with Daemon(pair.server, config=config, arguments=["-v"]) as daemon, \
                pair.server.listen(Pair.SERVER4, 7001, socket.SOCK_DGRAM), Monitor(daemon, as_json=True) as m:
            daemon.process.send_signal(signal.SIGSTOP)
            try:
                send(pair.client, *datagrams)
            finally:
                daemon.process.send_signal(signal.SIGCONT)
            stats = daemon.json("stats")
            assert stats["flows"]["created"] == self.FLOWS
            lost = stats["events_lost"]
            assert 0 < lost < self.FLOWS
            eventually(lambda: sum(TestSlowReader.told(m)) == self.FLOWS, "monitor knows of all")
            assert TestSlowReader.told(m)[1] >= lost  # and what its own queue had no room for

            def printed():
                lines = daemon.log().splitlines()
                return (sum(line.startswith("NEW ") for line in lines),
                        max([int(line.split()[3]) for line in lines if line.startswith("LOST ")], default=0))
            eventually(lambda: printed() == (self.FLOWS - lost, lost), f"-v knows of all: {printed()}")


class TestFailures:
    @pytest.mark.parametrize("arguments, code", [
        (["--rule", "nosuch"], EXIT_NO_SUCH), (["--rule", "4000"], EXIT_NO_SUCH),
        (["--packets=0"], EXIT_USAGE), (["--packets=x"], EXIT_USAGE), (["--state", "OPEN"], EXIT_USAGE),
        (["surplus"], EXIT_USAGE)])
    def test_refused(self, net, arguments, code):
        net.daemon.ctl("monitor", *arguments, code=code)
        assert config_word(net.daemon, EVENTS_OFFSET) == 0

    def test_anybody_may_watch(self, net):
        with Monitor(net.daemon, user=NOBODY, group=NOBODY, extra_groups=[]) as m:
            tcp_ask(net.client, Pair.SERVER4, 8080)
            m.wait(1)

    def test_the_daemon_ends(self, net):
        with Monitor(net.daemon) as m:
            net.daemon.end()
            assert m.process.wait(30) == EXIT_FAILED
            assert "went away" in m.said() or "closed" in m.said()
        net.daemon.start()

    def test_call_without_more(self, net):
        done = net.daemon.ctl("call", "Monitor", code=EXIT_FAILED)
        assert "with `more`" in done.stderr

    def test_reader_goes(self, net):
        """`monitor | head -n 1` ends at the second event, without a word of complaint."""
        with contextlib.closing(open(f"{net.daemon.folder}/piped", "w+", encoding="utf-8")) as out:
            shell = subprocess.Popen(["sh", "-c", f"{REDIRECTCTL} -q -s {net.daemon.socket} monitor | head -n 1"],
                                     stdout=out, stderr=out)
            eventually(lambda: config_word(net.daemon, EVENTS_OFFSET), "it watches")

            def ended():
                tcp_ask(net.client, Pair.SERVER4, 8080)
                return shell.poll() is not None
            eventually(ended, "the pipeline ends")
            out.seek(0)
            line, = out.read().splitlines()
            assert line.startswith("NEW tcp")
