# SPDX-License-Identifier: GPL-2.0-or-later
"""When room runs short it shows: in the log, in status, stats, doctor and metrics, once and in time."""

import contextlib
import itertools
import json
import os
import socket

import jsonschema
import pytest

from netns import Pair, eventually
from peers import UdpEcho
from redirectd import REDIRECTCTL, Daemon

FLOWS_MAX = 100
RULES = "redirect udp 8080 to 80 name web\nredirect udp 8081 to 80 name other\n"
ports = itertools.count(20000)  # each client has its own
SCHEMAS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "schemas")


def checked(daemon, verb):
    answer = daemon.json(verb)
    with open(os.path.join(SCHEMAS, f"{verb}.json"), encoding="utf-8") as f:
        jsonschema.validate(answer, json.load(f))
    return answer


@contextlib.contextmanager
def client(net, port):
    with net.client.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("", next(ports)))
        s.connect((Pair.SERVER4, port))
        yield s


def send(net, count, port=8080):
    """That many clients, of a datagram each."""
    for _ in range(count):
        with client(net, port) as s:
            s.send(b"x")


def establish(net, count):
    """That many clients that have heard the server and spoken again."""
    for _ in range(count):
        with client(net, 8080) as s:
            for _ in range(2):
                s.send(b"x")
                assert s.recv(10) == b"echo:x"


def room(daemon):
    """What doctor finds of it."""
    found = json.loads(daemon.ns.run(REDIRECTCTL, "-j", "-s", daemon.socket, "doctor", check=False).stdout)["findings"]
    return [(f["severity"], f["message"]) for f in found if f["check"] == "room"]


@pytest.fixture
def daemon(pair):
    with Daemon(pair.server, config=f"flows-max {FLOWS_MAX}\n{RULES}") as d:
        yield d


class TestFlowTable:
    def test_two_levels_and_back(self, pair, daemon):
        send(pair, 10, 8081)
        send(pair, 69)
        assert checked(daemon, "status")["flows"]["level"] == "ok"
        assert daemon.json("status")["problems"] == []
        send(pair, 1)
        daemon.logged("the flow table is 80 % full: 80 of 100 flows, 80 of them unassured, most (70) of rule 1 (web)")
        status = checked(daemon, "status")
        assert status["problems"] == ["flows"]
        assert status["flows"] == {"active": 80, "max": 100, "fill": 0.8, "level": "warning", "unassured": 80,
                                   "fullest_rule": {"id": 1, "active": 70}}
        said = daemon.ctl("status").stdout
        assert "problem" in said and "the flow table is nearly full" in said and "critical" not in said
        assert "80 of 100 (80.0 %), 80 unassured; most of rule 1: 70" in said
        assert room(daemon)[0][0] == "warning"

        send(pair, 15)
        daemon.logged("the flow table is 95 % full")
        assert checked(daemon, "status")["flows"]["level"] == "critical"
        assert daemon.json("status")["problems"] == ["flows"]
        said = daemon.ctl("status").stdout
        assert "critical" in said and "the flow table is full" in said
        assert room(daemon) == [("error", "the flow table is 95 % full")]

        send(pair, 50)  # they push out each other; that is no news
        stats = checked(daemon, "stats")
        assert stats["flows"]["evicted"] == 45
        assert stats["flows"]["insert_failed"] == 0 and set(stats["insert_failures"].values()) == {0}
        daemon.write(f"flows-max {FLOWS_MAX}\ntimeout udp 1s\n{RULES}")
        daemon.ctl("reload")
        daemon.logged("the flow table has room again: ")
        eventually(lambda: daemon.json("stats")["flows"]["active"] == 0, "all have expired")
        assert checked(daemon, "status")["flows"] == {"active": 0, "max": 100, "fill": 0, "level": "ok",
                                                      "unassured": 0, "fullest_rule": None}
        assert room(daemon)[0][0] == "ok"
        assert daemon.log().count("the flow table") == 3

    def test_established_flows_are_told_apart(self, pair, daemon):
        with UdpEcho(pair.server, Pair.SERVER4, 80):
            establish(pair, 90)
        daemon.logged("of rule 1 (web); once it is full of established connections new ones are turned away")


class TestTurnedAway:
    def test_reason_is_seen_everywhere(self, pair, daemon):
        with UdpEcho(pair.server, Pair.SERVER4, 80):
            establish(pair, FLOWS_MAX)
        assert "turned away" not in daemon.ctl("status").stdout
        eventually(lambda: "95 %" in daemon.log() or "100 % full" in daemon.log(), "a look at the table")
        send(pair, 7)
        eventually(lambda: daemon.json("status")["problems"] == ["flows", "turned_away"], "the daemon notices")
        daemon.logged("7 packets that would have begun a connection were dropped: table_full 7")
        stats = checked(daemon, "stats")
        assert stats["flows"]["insert_failed"] == 7
        assert {k: n for k, n in stats["insert_failures"].items() if n} == {"table_full": 7}
        assert stats["drops"]["table_full"] == 7
        assert checked(daemon, "status")["insert_failures"] == stats["insert_failures"]
        assert ("error", "new connections were turned away within the last minute") in room(daemon)
        assert "flows not inserted: table_full" in daemon.ctl("stats").stdout
        assert "7 packets of new connections: table_full 7" in daemon.ctl("status").stdout
        said = daemon.ctl("stats", "-o", "openmetrics").stdout
        assert 'redirectd_insert_failures_total{reason="table_full"} 7\n' in said
        assert "redirectd_evicted_flows_total 0\n" in said

    def test_told_once_a_minute(self, pair, daemon):
        with UdpEcho(pair.server, Pair.SERVER4, 80):
            establish(pair, FLOWS_MAX)
        eventually(lambda: "full" in daemon.log(), "a look at the table")
        send(pair, 1)
        daemon.logged("1 packets that would have")
        send(pair, 5)
        eventually(lambda: daemon.json("stats")["flows"]["insert_failed"] == 6, "five more")
        assert daemon.log().count("were dropped") == 1

    def test_limit_of_a_rule(self, pair):
        """Fills and turns away as it was told to: the log says so, and nothing is wrong."""
        with Daemon(pair.server, "udp 8080 to 80 name web max-flows 20") as daemon, \
                UdpEcho(pair.server, Pair.SERVER4, 80):
            establish(pair, 16)
            daemon.logged("rule 1 (web) has 80 % of its max-flows, 16 of 20; at its limit new connections are")
            establish(pair, 4)
            daemon.logged("rule 1 (web) has 100 % of its max-flows, 20 of 20")
            send(pair, 3)
            daemon.logged("3 packets that would have begun a connection were dropped: max_flows 3")
            assert checked(daemon, "stats")["insert_failures"]["max_flows"] == 3
            assert daemon.json("status")["problems"] == []
