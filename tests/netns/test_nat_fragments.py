# SPDX-License-Identifier: GPL-2.0-or-later
"""Fragments: only the first has ports, yet all must go where the first one goes.

Large datagrams as a host cuts them, and fragments made by hand that come in any order, doubled, or
between those of other datagrams; through redirect, DNAT and masquerade, in both directions
(RFC 4787, REQ-14).
"""

import os
import socket
import struct

import pytest

from engines import Redirectd
from gateway import BACKEND, CLIENT, CLIENT2, GATEWAY, GATEWAY_LAN, dual
from netns import family_of
from packets import Sniffer, fragments, ip, send, udp
from peers import UdpEcho, udp_ask

FAMILIES = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
MODES = pytest.mark.parametrize("port", [8080, 8180, 8280], ids=["dnat", "masquerade", "redirect"])
ORDERS = {
    "in-order": (0, 1, 2, 3, 4), "backwards": (4, 3, 2, 1, 0), "last-first": (4, 0, 1, 2, 3),
    "first-last": (1, 2, 3, 4, 0), "mixed": (2, 0, 4, 1, 3)}
# A client port for each rule, of those that no socket gets by itself: nothing collides.
SPORT = {8080: 20000, 8180: 21000, 8280: 22000}
SIZE = 5800  # five fragments of 1200 bytes, with the UDP header


@pytest.fixture(scope="module")
def net(any_gateway, engine):
    with engine(any_gateway.gateway, *dual("udp {gateway}:8080 to {backend}:80",
                                           "udp {gateway}:8180 to {backend}:80 masquerade",
                                           "udp {gateway}:8280 to 80")):
        yield any_gateway


def place(net, version, port):
    """Where the service is: namespace, address, and the client as it sees it."""
    if port == 8280:
        return net.gateway, GATEWAY[version], CLIENT[version]
    return net.backend, BACKEND[version], (GATEWAY_LAN if port == 8180 else CLIENT)[version]


def cut(version, port, sport, payload, number, source=CLIENT):
    """The client's datagram to the gateway, in fragments."""
    src, dst = source[version], GATEWAY[version]
    return fragments(src, dst, 17, udp(src, dst, sport, port, payload), number)


class Numbers:
    """Identifications that no other datagram of these tests has: nobody mixes up fragments.

    What a socket sends has any identification. Fragments that stay alone are CLIENT2's, therefore,
    from whom no socket sends: with another's they would make a datagram that overlaps, and is lost.
    """

    def __init__(self):
        self.last = os.getpid() & 0xff

    def __call__(self):
        self.last += 1
        return self.last & 0xffff


number = Numbers()


class TestWhole:
    @FAMILIES
    @MODES
    @pytest.mark.parametrize("size", [1500, 9000, 60000])
    def test_large_datagrams(self, net, version, port, size):
        """As the hosts cut them, there and back."""
        ns, address, client = place(net, version, port)
        message = os.urandom(size)
        with UdpEcho(ns, address, 80) as echo:
            for _ in range(3):
                assert udp_ask(net.client, GATEWAY[version], port, message) == b"echo:" + message
            assert {peer[0] for _, peer in echo.seen} == {client}


class TestNarrow:
    """Only IPv4: IPv6's routers cut nothing."""

    @staticmethod
    def assert_cut(wire, address, message, service):
        """It comes whole, in two fragments, the first one first. Who sent it."""
        first, second = (wire.wait(lambda p: p.protocol == 17 and p.dst == address) for _ in range(2))
        assert [struct.unpack_from("!H", p.data, 6)[0] & 0x3fff for p in (first, second)] == [
            0x2000, len(first.payload) >> 3]
        data, peer = service.recvfrom(65536)
        assert data == message
        return peer

    @pytest.mark.parametrize("port", [8080, 8180], ids=["dnat", "masquerade"])
    def test_gateway_cuts(self, net, port):
        """RFC 4787, REQ-13 a: too large for the next cable, but not marked DF. There and back."""
        message, sport = os.urandom(1400), SPORT[port] + 10
        source = CLIENT[4] if port == 8080 else GATEWAY_LAN[4]
        with net.backend.listen(BACKEND[4], 80, socket.SOCK_DGRAM) as service, \
             net.client.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind((CLIENT[4], sport))
            with net.narrow(net.gateway, "lan0"), Sniffer(net.backend, "eth0") as wire:
                send(net.client, ip(CLIENT[4], GATEWAY[4], 17, udp(CLIENT[4], GATEWAY[4], sport, port, message), number()))
                assert self.assert_cut(wire, BACKEND[4], message, service) == (source, sport)
            with net.narrow(net.gateway, "wan0"), Sniffer(net.client, "eth0") as wire:
                send(net.backend, ip(BACKEND[4], source, 17, udp(BACKEND[4], source, 80, sport, message), number()))
                assert self.assert_cut(wire, CLIENT[4], message, s) == (GATEWAY[4], port)


class TestOrder:
    @FAMILIES
    @MODES
    @pytest.mark.parametrize("order", ORDERS)
    def test_request(self, net, version, port, order):
        ns, address, client = place(net, version, port)
        message = os.urandom(SIZE)
        with ns.listen(address, 80, socket.SOCK_DGRAM) as service:
            parts = cut(version, port, SPORT[port], message, number())
            send(net.client, *(parts[n] for n in ORDERS[order]))
            data, peer = service.recvfrom(65536)
            assert data == message
            assert peer[:2] == (client, SPORT[port])

    @FAMILIES
    @MODES
    @pytest.mark.parametrize("order", ORDERS)
    def test_answer(self, net, version, port, order):
        ns, address, _ = place(net, version, port)
        message = os.urandom(SIZE)
        with ns.listen(address, 80, socket.SOCK_DGRAM) as service:
            with net.client.open_socket(family_of(address), socket.SOCK_DGRAM) as s:
                s.connect((GATEWAY[version], port))
                s.send(b"hello")
                _, peer = service.recvfrom(100)
                datagram = udp(address, peer[0], 80, peer[1], message)
                parts = fragments(address, peer[0], 17, datagram, number())
                send(ns, *(parts[n] for n in ORDERS[order]))
                assert s.recv(65536) == message

    @FAMILIES
    @MODES
    def test_two_datagrams_interleaved(self, net, version, port):
        """Of two clients, fragment by fragment, backwards."""
        ns, address, _ = place(net, version, port)
        messages = {SPORT[port] + n: os.urandom(SIZE) for n in (1, 2)}
        with ns.listen(address, 80, socket.SOCK_DGRAM) as service:
            one = cut(version, port, SPORT[port] + 1, messages[SPORT[port] + 1], number())
            two = cut(version, port, SPORT[port] + 2, messages[SPORT[port] + 2], number(), CLIENT2)
            send(net.client, *(part for both in zip(reversed(one), reversed(two)) for part in both))
            received = {}
            for _ in range(2):
                data, peer = service.recvfrom(65536)
                received[peer[1]] = data
            assert received == messages

    @FAMILIES
    @MODES
    def test_one_identification_of_two_clients(self, net, version, port):
        """What tells datagrams apart is source, destination and number together."""
        ns, address, _ = place(net, version, port)
        messages = {SPORT[port] + n: os.urandom(SIZE) for n in (3, 4)}
        with ns.listen(address, 80, socket.SOCK_DGRAM) as service:
            same = number()
            send(net.client, *reversed(cut(version, port, SPORT[port] + 3, messages[SPORT[port] + 3], same)))
            data, peer = service.recvfrom(65536)
            assert (peer[1], data) == (SPORT[port] + 3, messages[SPORT[port] + 3])
            send(net.client, *reversed(cut(version, port, SPORT[port] + 4, messages[SPORT[port] + 4], same, CLIENT2)))
            data, peer = service.recvfrom(65536)
            assert (peer[1], data) == (SPORT[port] + 4, messages[SPORT[port] + 4])


class TestHostile:
    @FAMILIES
    @MODES
    def test_fragments_that_never_become_whole(self, net, version, port):
        """They leave room for those that do. (A host's own memory for them ends at some 1500.)"""
        ns, address, _ = place(net, version, port)
        lonely = [cut(version, port, SPORT[port] + 5, bytes(SIZE), 30000 + n, CLIENT2)[2] for n in range(100)]
        message = os.urandom(SIZE)
        with ns.listen(address, 80, socket.SOCK_DGRAM) as service:
            send(net.client, *lonely)
            send(net.client, *reversed(cut(version, port, SPORT[port] + 6, message, number())))
            data, peer = service.recvfrom(65536)
            assert (peer[1], data) == (SPORT[port] + 6, message)

    @FAMILIES
    @MODES
    def test_tiny_first_fragment(self, net, version, port):
        """Its header is not whole: it is not translated, and what follows is not disturbed."""
        ns, address, _ = place(net, version, port)
        src, dst = CLIENT2[version], GATEWAY[version]
        datagram = udp(src, dst, SPORT[port] + 7, port, bytes(3000))
        send(net.client, ip(src, dst, 17, datagram[:0], 40000, 0, True),
             ip(src, dst, 17, datagram[1600:], 40000, 1600))
        with UdpEcho(ns, address, 80):
            assert udp_ask(net.client, GATEWAY[version], port, b"x" * 4000) == b"echo:" + b"x" * 4000


class TestFlood:
    """More than a host would keep: only redirectd, since nf_defrag shares the host's memory for them."""

    @FAMILIES
    def test_thousands_of_lonely_fragments(self, gateway, version):
        message = os.urandom(SIZE)
        with Redirectd(gateway.gateway, *dual("udp {gateway}:8080 to {backend}:80")):
            with gateway.backend.listen(BACKEND[version], 80, socket.SOCK_DGRAM) as service:
                send(gateway.client,
                     *(cut(version, 8080, 20008, bytes(SIZE), n, CLIENT2)[3] for n in range(10000, 14000)))
                for order in ORDERS.values():
                    parts = cut(version, 8080, 20009, message, number())
                    send(gateway.client, *(parts[n] for n in order))
                    data, peer = service.recvfrom(65536)
                    assert (peer[:2], data) == ((CLIENT[version], 20009), message)
                with gateway.client.open_socket(family_of(GATEWAY[version]), socket.SOCK_DGRAM) as s:
                    s.sendto(b"whole", (GATEWAY[version], 8080))
                    assert service.recvfrom(100)[0] == b"whole"
