# SPDX-License-Identifier: GPL-2.0-or-later
"""What is shown of source ports: how long the search was, how full the room is, flows of no rule."""

import collections
import contextlib
import json
import os
import socket

import jsonschema
import pytest

from netns import Namespace, eventually, veth
from peers import UdpEcho
from redirectd import Daemon

ROUTER, TARGET, ROUTER_THERE = "192.0.2.1", "198.51.100.2", "198.51.100.1"
CLIENTS = ("192.0.2.2", "192.0.2.3")
CAPACITY = 64512
SCHEMAS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "schemas")


class Site:
    """Clients, a router with redirectd, and a server behind it that answers through it."""

    def __init__(self, stack):
        self.client, self.router, self.server = (stack.enter_context(Namespace(n)) for n in "crs")
        veth(self.client, "eth0", [f"{c}/24" for c in CLIENTS], self.router, "in", [f"{ROUTER}/24"])
        veth(self.server, "eth0", [f"{TARGET}/24"], self.router, "out", [f"{ROUTER_THERE}/24"])
        self.router.sysctl("ipv4/ip_forward", 1)
        self.client.run("ip", "route", "add", "default", "via", ROUTER)
        self.server.run("ip", "route", "add", "default", "via", ROUTER_THERE)

    def ask(self, client, sport, address=ROUTER, dport=53):
        """The answer to a datagram from a port of the client's choice."""
        with self.client.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind((client, sport))
            s.sendto(b"q", (address, dport))
            data, source = s.recvfrom(100)
            assert source == (address, dport)
            return data


@pytest.fixture(scope="module")
def site():
    with contextlib.ExitStack() as stack:
        yield Site(stack)


def tried(daemon):
    """The histogram, without the classes in which there is nothing."""
    stats = daemon.json("stats")
    with open(os.path.join(SCHEMAS, "stats.json"), encoding="utf-8") as f:
        jsonschema.validate(stats, json.load(f))
    return {k: n for k, n in stats["port_searches"].items() if n}


def room_of(daemon):
    """The fullest room, by the list of flows."""
    rooms = collections.Counter()
    for f in daemon.flows():
        if f["reply"]["dst"] != f["original"]["src"]:
            rooms[f["protocol"], f["reply"]["dst"], f["reply"]["src"], f["reply"]["sport"]] += 1
    (protocol, src, dst, dport), used = rooms.most_common(1)[0]
    return {"protocol": protocol, "src": src, "dst": dst, "dport": dport, "used": used, "of": CAPACITY,
            "fill": used / CAPACITY, "level": "ok"}


class TestFill:
    def test_no_translated_source(self, site):
        with Daemon(site.router, f"udp 53 to {TARGET}:5353") as daemon, UdpEcho(site.server, TARGET, 5353):
            site.ask(CLIENTS[0], 4000)
            assert daemon.json("stats")["source_ports"] is None
            assert daemon.json("status")["source_ports"] is None
            assert "source ports in use" not in daemon.ctl("stats").stdout

    def test_fullest_room(self, site):
        with Daemon(site.router, f"udp 53 to {TARGET}:5353 masquerade",
                    f"udp 54 to {TARGET}:5354 masquerade") as daemon, \
                UdpEcho(site.server, TARGET, 5353), UdpEcho(site.server, TARGET, 5354):
            for sport in range(4000, 4300):
                site.ask(CLIENTS[0], sport)
            for sport in range(4000, 4100):
                site.ask(CLIENTS[1], sport, dport=54)
            expected = {"protocol": "udp", "src": ROUTER_THERE, "dst": TARGET, "dport": 5353, "used": 300,
                        "of": CAPACITY, "fill": 300 / CAPACITY, "level": "ok"}
            assert daemon.json("stats")["source_ports"] == expected == room_of(daemon)
            assert daemon.json("status")["source_ports"] == expected
            assert f"300 of 64512 (0.5 %) of {ROUTER_THERE} to udp {TARGET}:5353" in daemon.ctl("status").stdout
            assert f"source ports in use: {ROUTER_THERE} to udp {TARGET}:5353" in daemon.ctl("stats").stdout

    def test_low_ports_are_not_counted(self, site):
        """They have rooms of their own: a client below 1024 gets another port below 1024."""
        with Daemon(site.router, f"udp 53 to {TARGET}:5353 masquerade") as daemon, \
                UdpEcho(site.server, TARGET, 5353):
            site.ask(CLIENTS[0], 700)
            assert daemon.json("stats")["source_ports"] is None

    def test_expired_flows_leave_it(self, site):
        with Daemon(site.router, config=f"timeout udp 1s\nredirect udp 53 to {TARGET}:5353 masquerade\n") \
                as daemon, UdpEcho(site.server, TARGET, 5353):
            site.ask(CLIENTS[0], 4000)
            eventually(lambda: daemon.json("stats")["source_ports"] is None, "nothing is in use")


class TestSearches:
    def test_two_clients_with_one_port(self, site):
        with Daemon(site.router, f"udp 53 to {TARGET}:5353 masquerade") as daemon, \
                UdpEcho(site.server, TARGET, 5353):
            for sport in range(5000, 5050):
                site.ask(CLIENTS[0], sport)
            assert tried(daemon) == {"1": 50}
            for sport in range(5000, 5050):
                site.ask(CLIENTS[1], sport)
            later = tried(daemon)
            assert later["1"] == 50 and sum(later.values()) == 100
            assert "source ports tried: 2 " in daemon.ctl("stats").stdout

    def test_flow_of_no_rule(self, site):
        """A client reaches one server by the rule and directly, from one port: rule 0."""
        with Daemon(site.router, f"udp 53 to {TARGET}:5353") as daemon, UdpEcho(site.server, TARGET, 5353):
            site.ask(CLIENTS[0], 6000)
            assert site.ask(CLIENTS[0], 6000, TARGET, 5353) == b"echo:q"
            flows = {f["rule"]: f for f in daemon.flows()}
            assert set(flows) == {0, 1}
            with open(os.path.join(SCHEMAS, "conntrack.json"), encoding="utf-8") as f:
                jsonschema.validate(daemon.json("conntrack", "list"), json.load(f))
            direct = flows[0]
            assert (direct["original"]["dst"], direct["original"]["dport"]) == (TARGET, 5353)
            assert direct["reply"]["dport"] != 6000 == direct["original"]["sport"]
