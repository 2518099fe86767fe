# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP states, packet by packet: the same segments through redirectd and through nf_conntrack.

Both ends are made up: their addresses belong to nobody, so that no kernel answers in between. After
every segment both programs are asked for the state; where the two differ on purpose, the step has
both, and docs/CONFORMANCE.md the reason.
"""

import contextlib
import itertools

import pytest

from engines import Nftables, Redirectd
from netns import Namespace, eventually, host, veth
from packets import TCP, Sniffer, ip, send, tcp

CLIENT, SERVER = {4: "203.0.113.7", 6: "2001:db8:7::7"}, {4: "10.9.0.7", 6: "2001:db8:9::7"}
OUTSIDE, INSIDE = {4: "198.51.100.254", 6: "2001:db8:1::fe"}, {4: "10.0.0.254", 6: "2001:db8:2::fe"}
NEAR, BEHIND = {4: "198.51.100.1", 6: "2001:db8:1::1"}, {4: "10.0.0.2", 6: "2001:db8:2::2"}
RULES = [f"tcp {host(OUTSIDE[v])}:8080 to {host(SERVER[v])}:80" for v in (4, 6)]
GONE = "NONE"  # not known, or not any more
FIRST = {"c": 1000, "s": 500000}  # sequence numbers
_ports = itertools.count(20000)


class Path:
    """Client, translator, server in namespaces of their own; what comes to the ends is dropped there."""

    def __init__(self, engine):
        self.engine, self.stack = engine, contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.client, self.middle, self.server = (stack.enter_context(Namespace(label)) for label in "cms")
            both = [[f"{a[4]}/24", f"{a[6]}/64"] for a in (NEAR, OUTSIDE, INSIDE, BEHIND)]
            veth(self.client, "eth0", both[0], self.middle, "out", both[1])
            veth(self.server, "eth0", both[3], self.middle, "in", both[2])
            for v in (4, 6):
                self.client.run("ip", "route", "add", "default", "via", OUTSIDE[v])
                self.server.run("ip", "route", "add", "default", "via", INSIDE[v])
                self.middle.run("ip", "route", "add", CLIENT[v], "via", NEAR[v])
                self.middle.run("ip", "route", "add", SERVER[v], "via", BEHIND[v])
            self.middle.sysctl("ipv4/ip_forward", 1)
            self.middle.sysctl("ipv6/conf/all/forwarding", 1)
            self.translator = stack.enter_context(self.engine(self.middle, *RULES))
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self.stack.__exit__(*error)

    def known(self, sport):
        """The state of the one flow from that port."""
        if self.engine is Redirectd:
            found = [f["state"] for f in self.translator.flows("--sport", sport)]
        else:
            lines = self.middle.run("cat", "/proc/net/nf_conntrack").stdout.splitlines()
            found = [line.split()[5] for line in lines if f" sport={sport} dport=8080 " in line]
        assert len(found) <= 1, found
        return found[0] if found else GONE


@pytest.fixture(scope="module")
def paths():
    with Path(Redirectd) as ours, Path(Nftables) as theirs:
        yield ours, theirs


class Conversation:
    """Two ends with their sequence numbers."""

    def __init__(self, version):
        self.version, self.sport = version, next(_ports)
        self.next = dict(FIRST)  # what each sends next

    def segment(self, who, flags, payload=b""):
        """As it is on the wire at its own end."""
        other = "s" if who == "c" else "c"
        v, seq = self.version, self.next[who]
        if "S" in flags and "A" in flags and seq == FIRST[who] + 1:
            seq -= 1  # its own SYN again, with the answer to the other end's
        ends = (CLIENT[v], OUTSIDE[v], (self.sport, 8080)) if who == "c" else (
            SERVER[v], CLIENT[v], (80, self.sport))
        data = ip(ends[0], ends[1], TCP, tcp(*ends, flags, seq, self.next[other] if "A" in flags else 0, payload))
        self.next[who] = seq + len(payload) + ("S" in flags) + ("F" in flags)
        return data


def pass_through(path, who, data, sport):
    """Sends it at one end, waits until it has come out at the other."""
    near, far = (path.client, path.server) if who == "c" else (path.server, path.client)
    with Sniffer(far, "eth0") as wire:
        send(near, data)
        wire.wait(lambda p: p.protocol == TCP and sport in p.ports)


def send_only(path, who, data, _):
    """What nobody translates goes to the middle itself."""
    with Sniffer(path.middle, "out" if who == "c" else "in") as wire:
        send(path.client if who == "c" else path.server, data)
        wire.wait(lambda p: p.data[:20] == data[:20] or p.protocol == TCP)


def handshake(*then):
    return [("c", "S", "SYN_SENT"), ("s", "SA", "SYN_RECV"), ("c", "A", "ESTABLISHED"), *then]


# Who sends which flags, and the state then; a second state is nf_conntrack's where it is another.
# Lower case: that end's segment with these flags again. A number is a payload's length.
STORIES = {
    "the client closes": handshake(
        ("c", "PA", 100, "ESTABLISHED"), ("s", "PA", 1000, "ESTABLISHED"), ("c", "FA", "FIN_WAIT"),
        ("s", "A", "CLOSE_WAIT"), ("s", "FA", "LAST_ACK"), ("c", "A", "TIME_WAIT")),
    "the server closes": handshake(
        ("s", "FA", "FIN_WAIT"), ("c", "A", "CLOSE_WAIT"), ("c", "FA", "LAST_ACK"), ("s", "A", "TIME_WAIT")),
    "both close at once": handshake(
        ("c", "FA", "FIN_WAIT"), ("s", "FA", "LAST_ACK"), ("c", "A", "TIME_WAIT"), ("s", "A", "TIME_WAIT")),
    "half closed, and much data after it": handshake(
        ("c", "FA", "FIN_WAIT"), ("s", "A", "CLOSE_WAIT"),
        *[("s", "PA", 1400, "CLOSE_WAIT"), ("c", "A", "CLOSE_WAIT")] * 10,
        ("s", "FA", "LAST_ACK"), ("c", "A", "TIME_WAIT")),
    "both ends open": [
        ("c", "S", "SYN_SENT"), ("s", "S", "SYN_SENT2"), ("c", "SA", "SYN_RECV"), ("s", "SA", "SYN_RECV"),
        ("c", "A", "ESTABLISHED"), ("s", "PA", 10, "ESTABLISHED")],
    "the client resets": handshake(("c", "R", "CLOSE")),
    "the server resets": handshake(("s", "RA", "CLOSE")),
    "the port is closed": [("c", "S", "SYN_SENT"), ("s", "RA", "CLOSE", GONE)],
    "reset while it closes": handshake(("c", "FA", "FIN_WAIT"), ("s", "RA", "CLOSE")),
    "a SYN sent again": [("c", "S", "SYN_SENT"), ("c", "s", "SYN_SENT"), ("s", "SA", "SYN_RECV"),
                         ("s", "sa", "SYN_RECV"), ("c", "A", "ESTABLISHED")],
    "a SYN amid a connection": handshake(
        ("c", "PA", 10, "ESTABLISHED"), ("c", "S", "ESTABLISHED"), ("s", "A", "ESTABLISHED"),
        ("c", "PA", 10, "ESTABLISHED")),
    "a FIN sent again": handshake(
        ("c", "FA", "FIN_WAIT"), ("c", "fa", "FIN_WAIT", "LAST_ACK")),
    "a FIN sent again after it was acknowledged": handshake(
        ("c", "FA", "FIN_WAIT"), ("s", "A", "CLOSE_WAIT"), ("c", "fa", "CLOSE_WAIT", "LAST_ACK")),
    "who has sent a FIN acknowledges": handshake(
        ("c", "FA", "FIN_WAIT"), ("c", "A", "FIN_WAIT", "CLOSE_WAIT")),
    "a SYN after TIME_WAIT": handshake(
        ("c", "FA", "FIN_WAIT"), ("s", "FA", "LAST_ACK"), ("c", "A", "TIME_WAIT"), ("c", "S", "SYN_SENT")),
    "a SYN after the client's reset": handshake(("c", "R", "CLOSE"), ("c", "S", "SYN_SENT")),
    "a SYN after the server's reset": handshake(("s", "RA", "CLOSE"), ("c", "S", "SYN_SENT", "CLOSE")),
    "a SYN before the last acknowledgement": handshake(
        ("c", "FA", "FIN_WAIT"), ("s", "FA", "LAST_ACK"), ("c", "S", "SYN_SENT", "LAST_ACK")),
    "an answer to no question": [("c", "SA", GONE)],
    "the end of nothing": [("c", "FA", GONE), ("c", "R", GONE)],
    "picked up in the middle": [
        ("c", "PA", 10, "ESTABLISHED"), ("s", "PA", 10, "ESTABLISHED"), ("c", "FA", "FIN_WAIT"),
        ("s", "A", "CLOSE_WAIT")],
}


class TestBesideConntrack:
    @pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
    @pytest.mark.parametrize("story", STORIES)
    def test_same_states(self, paths, story, version):
        talk, sent = Conversation(version), {}
        for number, (who, flags, *rest) in enumerate(STORIES[story], 1):
            payload = b"x" * rest.pop(0) if isinstance(rest[0], int) else b""
            if flags.isupper():
                sent[who, flags] = talk.segment(who, flags, payload)
            for path, expected in zip(paths, (rest[0], rest[-1])):
                (pass_through if rest[0] != GONE else send_only)(path, who, sent[who, flags.upper()], talk.sport)
                place = f"{story}, step {number}: {who} sends {flags}, {path.engine.__name__}"
                eventually(lambda p=path, e=expected: p.known(talk.sport) == e, f"{place}: {expected}", deadline=10)
