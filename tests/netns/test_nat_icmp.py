# SPDX-License-Identifier: GPL-2.0-or-later
"""ICMP errors about translated traffic: closed ports, path MTU, hops that run out, short quotes.

Through DNAT, masquerade and redirect, in both directions: what a sender learns must be what it
learns without translation, about addresses and ports that it knows. test_icmp.py has the redirect
alone. The path: client – access – gateway – inner – deep, see tests/lib/gateway.py.
"""

import contextlib
import errno
import hashlib
import re
import socket
import struct

import pytest

from engines import Redirectd
from gateway import (ACCESS, ACCESS_WAN, CLIENT, CLIENTS, DEEP, GATEWAY, GATEWAY_LAN, INNER, NARROW,
                     Gateway, dual, learned_mtu)
from netns import eventually, family_of, host
from packets import TIME_EXCEEDED, IcmpErrors, Ip, Sniffer, checksum, icmp_error, ip, send, udp
from peers import Nginx, TcpEcho, UdpEcho, Upload, curl, random_file, udp_refused, upload

SIZE = 2 << 20
FAMILIES = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
UNREACHABLE = {4: (3, 3), 6: (1, 4)}  # port unreachable: type and code
TOO_BIG = {4: (3, 4), 6: (2, 0)}
HOPS = {4: (socket.IPPROTO_IP, socket.IP_TTL), 6: (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)}
# Ports of one purpose are 100 apart: DNAT, masquerade, redirect.
MODES = pytest.mark.parametrize("shift", [0, 100, 200], ids=["dnat", "masquerade", "redirect"])
FORWARDED = pytest.mark.parametrize("shift", [0, 100], ids=["dnat", "masquerade"])


def rules():
    return dual("tcp+udp {gateway}:8000 to {deep}:80", "tcp+udp {gateway}:8100 to {deep}:80 masquerade",
                "tcp+udp {gateway}:8200 to 80",
                "tcp {gateway}:9000 to {deep}:90", "tcp {gateway}:9100 to {deep}:90 masquerade",
                "tcp {gateway}:9200 to 90",
                "tcp+udp {gateway}:7000 to {backend}:70")


def server(net, shift):
    return net.gateway if shift == 200 else net.deep


def address(version, shift):
    """Of the server."""
    return (GATEWAY if shift == 200 else DEEP)[version]


def client_seen(version, shift):
    """The client's address as the server knows it."""
    return (GATEWAY_LAN if shift == 100 else CLIENT)[version]


@pytest.fixture(scope="class")
def net(gateway, engine):
    with engine(gateway.gateway, *rules()) as translating:
        gateway.engine = translating
        yield gateway


@contextlib.contextmanager
def datagram(ns, version, port, source=CLIENT):
    """A connected UDP socket of the client that has sent something."""
    with ns.open_socket(family_of(source[version]), socket.SOCK_DGRAM) as s:
        s.bind((source[version], 0))
        s.connect((GATEWAY[version], port))
        yield s


def error_of(s):
    return eventually(lambda: s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "the socket hears of it")


@pytest.fixture(scope="module", params=["offloads", "plain"])
def path(request):
    with Gateway(request.param) as g:
        yield g


class TestPathMtu:
    @pytest.fixture(scope="class")
    def page(self, path, engine, tmp_path_factory):
        folder = tmp_path_factory.mktemp("www")
        path.noise, path.digest = folder / "noise", random_file(folder / "noise", SIZE)
        with contextlib.ExitStack() as stack:
            stack.enter_context(engine(path.gateway, *rules()))
            for ns in (path.deep, path.gateway):
                scratch = str(tmp_path_factory.mktemp("nginx"))
                stack.enter_context(Nginx(ns, 80, folder, scratch))
                stack.enter_context(Upload(ns, 90))
            yield path

    def download(self, page, version, shift, router, interface):
        ns, peer = server(page, shift), client_seen(version, shift)
        with page.narrow(router, interface):
            assert learned_mtu(ns, peer) is None
            body = curl(page.client, f"http://{host(GATEWAY[version])}:{8000 + shift}/noise")
            assert hashlib.sha256(body).hexdigest() == page.digest
            assert learned_mtu(ns, peer) == NARROW

    def upload(self, page, version, shift, router, interface):
        with page.narrow(router, interface):
            assert upload(page.client, GATEWAY[version], 9000 + shift, page.noise) == page.digest
            assert learned_mtu(page.client, GATEWAY[version]) == NARROW

    @FAMILIES
    @MODES
    def test_download_narrow_outside(self, page, version, shift):
        """A router towards the client tells the server about the address that the client knows."""
        self.download(page, version, shift, page.access, "client0")

    @FAMILIES
    @FORWARDED
    def test_download_narrow_gateway(self, page, version, shift):
        """The gateway itself cannot send on what the server sent."""
        self.download(page, version, shift, page.gateway, "wan0")

    @FAMILIES
    @FORWARDED
    def test_upload_narrow_inside(self, page, version, shift):
        """A router towards the server speaks of an address that the client has never heard of."""
        self.upload(page, version, shift, page.inner, "deep0")

    @FAMILIES
    @FORWARDED
    def test_upload_narrow_gateway(self, page, version, shift):
        self.upload(page, version, shift, page.gateway, "lan0")

    @FAMILIES
    def test_upload_narrow_outside(self, page, version):
        """Before the gateway: nothing to translate."""
        self.upload(page, version, 100, page.access, "wan0")


class TestClosedPort:
    @FAMILIES
    @MODES
    def test_client_hears(self, net, version, shift):
        assert udp_refused(net.client, GATEWAY[version], 8000 + shift)

    @FAMILIES
    @MODES
    def test_error_is_the_listeners(self, net, version, shift):
        """From the address that was asked, about what was sent."""
        with IcmpErrors(net.client, version, UNREACHABLE[version][0]) as errors:
            with datagram(net.client, version, 8000 + shift) as s:
                s.send(b"hello")
                sender, quote = errors.quote()
                packet = Ip(quote)
                assert sender == GATEWAY[version]
                assert (packet.src, packet.dst) == (CLIENT[version], GATEWAY[version])
                assert packet.ports == (s.getsockname()[1], 8000 + shift)

    @FAMILIES
    @MODES
    def test_client_has_gone(self, net, version, shift):
        """The server's answer finds nobody: its connected socket hears of it."""
        with server(net, shift).listen(address(version, shift), 80, socket.SOCK_DGRAM) as service:
            with datagram(net.client, version, 8000 + shift) as s:
                s.send(b"hello")
                _, peer = service.recvfrom(100)
            service.connect(peer)
            service.send(b"is anybody there?")
            assert error_of(service) == errno.ECONNREFUSED

    @FAMILIES
    def test_hairpin(self, net, version):
        """RFC 5508, REQ-7: the error of a hairpinned flow."""
        assert udp_refused(net.backend, GATEWAY[version], 7000)

    @FAMILIES
    def test_local_process(self, net, version):
        net.gateway.sysctl("ipv4/conf/lo/accept_local", 1)  # see TestLocalProcess of test_nat_dnat.py
        try:
            assert udp_refused(net.gateway, GATEWAY[version], 7000)
        finally:
            net.gateway.sysctl("ipv4/conf/lo/accept_local", 0)

    @FAMILIES
    @FORWARDED
    def test_flow_lives_on(self, net, version, shift):
        """RFC 4787, REQ-12: an error ends no mapping. The next datagram comes from the same port."""
        with datagram(net.client, version, 8000 + shift) as s:
            s.send(b"hello")
            assert error_of(s) == errno.ECONNREFUSED
            with UdpEcho(net.deep, DEEP[version], 80) as echo:
                s.send(b"again")
                assert s.recv(100) == b"echo:again"
            assert echo.seen[-1][1][:2] == (client_seen(version, shift), s.getsockname()[1])


def hops(ns, version, port, *options):
    """What traceroute prints, hop by hop; '*' where nobody answered."""
    shown = ns.run("traceroute", f"-{version}", "-n", "-q", "1", "-N", "1", "-w", "3", "-m", "8",
                   "-p", port, *options, GATEWAY[version]).stdout
    return re.findall(r"^ *\d+  (\S+)", shown, re.MULTILINE)


class TestTimeExceeded:
    @FAMILIES
    @FORWARDED
    @pytest.mark.parametrize("option", ["-U", "-T"], ids=["udp", "tcp"])
    def test_traceroute(self, net, version, shift, option):
        """The real path, router by router; nf_nat hides those behind the gateway."""
        inner = INNER[version] if net.engine.shows_routers else GATEWAY[version]
        with TcpEcho(net.deep, 80):  # UDP's probes end at a closed port
            assert hops(net.client, version, 8000 + shift, option) == [
                ACCESS[version], GATEWAY[version], inner, GATEWAY[version]]

    @FAMILIES
    def test_traceroute_of_a_redirect(self, net, version):
        assert hops(net.client, version, 8200, "-U") == [ACCESS[version], GATEWAY[version]]

    @FAMILIES
    @FORWARDED
    @pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["udp", "tcp"])
    @pytest.mark.parametrize("ttl", [2, 3], ids=["gateway", "inner"])
    def test_quote_is_what_was_sent(self, net, version, shift, kind, ttl):
        with IcmpErrors(net.client, version, TIME_EXCEEDED[version]) as errors:
            with net.client.open_socket(family_of(CLIENT[version]), kind) as s:
                s.setsockopt(*HOPS[version], ttl)
                s.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    s.connect((GATEWAY[version], 8000 + shift))
                if kind == socket.SOCK_DGRAM:
                    s.send(b"hello")
                sender, quote = errors.quote()
                packet = Ip(quote)
                assert (packet.src, packet.dst) == (CLIENT[version], GATEWAY[version])
                assert packet.ports == (s.getsockname()[1], 8000 + shift)
                if ttl == 3 and net.engine.shows_routers:
                    assert sender == INNER[version]

    @FAMILIES
    @FORWARDED
    def test_answer_runs_out_of_hops(self, net, version, shift):
        """The server is told by a router outside, about what the server sent."""
        with net.deep.listen(DEEP[version], 80, socket.SOCK_DGRAM) as service:
            with IcmpErrors(net.deep, version, TIME_EXCEEDED[version]) as errors:
                with datagram(net.client, version, 8000 + shift) as s:
                    s.send(b"hello")
                    _, peer = service.recvfrom(100)
                    service.setsockopt(*HOPS[version], 3)
                    service.sendto(b"too far", peer)
                    sender, quote = errors.quote()
                    packet = Ip(quote)
                    assert (packet.src, packet.dst) == (DEEP[version], client_seen(version, shift))
                    assert packet.ports == (80, peer[1])
                    if net.engine.shows_routers:
                        assert sender == ACCESS_WAN[version]


class TestShortQuotes:
    """Errors that quote no more than the IP header and 8 bytes, as RFC 792 lets them."""

    @FAMILIES
    @FORWARDED
    @pytest.mark.parametrize("who", ["target", "router"])
    def test_udp(self, net, version, shift, who):
        kind, code = UNREACHABLE[version]
        ns, own = (net.deep, DEEP) if who == "target" else (net.inner, INNER)
        with net.deep.listen(DEEP[version], 80, socket.SOCK_DGRAM), Sniffer(net.deep, "eth0") as wire:
            with datagram(net.client, version, 8000 + shift) as s, IcmpErrors(net.client, version, kind) as errors:
                s.send(b"hello")
                seen = wire.wait(lambda p: p.protocol == 17 and p.ports[1] == 80)
                send(ns, icmp_error(own[version], seen.src, kind, code, seen.data[:seen.header + 8]))
                assert error_of(s) == errno.ECONNREFUSED
                sender, quote = errors.quote()
                assert len(quote) == seen.header + 8
                packet = Ip(quote)
                assert (packet.src, packet.dst) == (CLIENT[version], GATEWAY[version])
                assert packet.ports == (s.getsockname()[1], 8000 + shift)
                hidden = who == "target" or not net.engine.shows_routers
                assert sender == (GATEWAY if hidden else INNER)[version]

    @FAMILIES
    @FORWARDED
    def test_extensions(self, net, version, shift):
        """Behind the quote, which is filled up with zeroes (RFC 5508, REQ-3 d; RFC 4884)."""
        kind, code = UNREACHABLE[version]
        label = struct.pack("!HBBI", 8, 1, 1, 0x12345140)  # of MPLS (RFC 4950)
        extension = struct.pack("!HH", 0x2000, checksum(b"\x20\0\0\0" + label)) + label
        words = {4: 128 // 4 << 16, 6: 128 // 8 << 24}[version]
        with net.deep.listen(DEEP[version], 80, socket.SOCK_DGRAM), Sniffer(net.deep, "eth0") as wire:
            with datagram(net.client, version, 8000 + shift) as s, IcmpErrors(net.client, version, kind) as errors:
                s.send(b"hello")
                seen = wire.wait(lambda p: p.protocol == 17 and p.ports[1] == 80)
                quoted = seen.data[:seen.header + 8].ljust(128, b"\0") + extension
                send(net.inner, icmp_error(INNER[version], seen.src, kind, code, quoted, words))
                assert error_of(s) == errno.ECONNREFUSED
                _, quote = errors.quote()
                packet = Ip(quote)
                assert (packet.src, packet.dst) == (CLIENT[version], GATEWAY[version])
                assert packet.ports == (s.getsockname()[1], 8000 + shift)
                assert quote[seen.header + 8:] == quoted[seen.header + 8:]

    @FAMILIES
    @FORWARDED
    def test_tcp(self, net, version, shift):
        """A SYN that nobody answers, but a router does."""
        hole = (CLIENTS[version] if shift == 0
                else GATEWAY_LAN[version] + ("/32" if version == 4 else "/128"))
        net.deep.run("ip", "route", "add", "blackhole", hole)
        try:
            with Sniffer(net.deep, "eth0") as wire:
                with net.client.open_socket(family_of(CLIENT[version]), socket.SOCK_STREAM) as s:
                    s.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        s.connect((GATEWAY[version], 8000 + shift))
                    seen = wire.wait(lambda p: p.protocol == 6 and p.ports[1] == 80)
                    kind, code = {4: (3, 1), 6: (1, 3)}[version]
                    send(net.inner, icmp_error(INNER[version], seen.src, kind, code,
                                               seen.data[:seen.header + 8]))
                    assert error_of(s) == errno.EHOSTUNREACH
        finally:
            net.deep.run("ip", "route", "delete", "blackhole", hole)

    @FAMILIES
    @FORWARDED
    def test_too_big(self, net, version, shift):
        """Path MTU from a quote of 8 bytes."""
        kind, code = TOO_BIG[version]
        with net.deep.listen(DEEP[version], 80, socket.SOCK_DGRAM), Sniffer(net.deep, "eth0") as wire:
            with datagram(net.client, version, 8000 + shift) as s:
                s.send(bytes(1400))
                seen = wire.wait(lambda p: p.protocol == 17 and p.ports[1] == 80)
                send(net.inner, icmp_error(INNER[version], seen.src, kind, code,
                                           seen.data[:seen.header + 8], rest=NARROW))
                eventually(lambda: learned_mtu(net.client, GATEWAY[version]) == NARROW, "the client knows")
        net.client.run("ip", f"-{version}", "route", "flush", "cache")

    @FAMILIES
    @FORWARDED
    def test_about_the_answer(self, net, version, shift):
        """From outside, to the server."""
        kind, code = UNREACHABLE[version]
        with net.deep.listen(DEEP[version], 80, socket.SOCK_DGRAM) as service:
            with datagram(net.client, version, 8000 + shift) as s, Sniffer(net.client, "eth0") as wire:
                s.send(b"hello")
                _, peer = service.recvfrom(100)
                service.connect(peer)
                service.send(b"answer")
                seen = wire.wait(lambda p: p.protocol == 17 and p.ports[0] == 8000 + shift)
                assert (seen.src, seen.dst) == (GATEWAY[version], CLIENT[version])
                send(net.client, icmp_error(CLIENT[version], GATEWAY[version], kind, code,
                                            seen.data[:seen.header + 8]))
                assert error_of(service) == errno.ECONNREFUSED


class TestWrongErrors:
    @FAMILIES
    @FORWARDED
    def test_broken_checksum_stays_broken(self, net, version, shift):
        """RFC 5508, REQ-3: an error whose checksum fails tells nobody anything."""
        kind, code = UNREACHABLE[version]
        with UdpEcho(net.deep, DEEP[version], 80), Sniffer(net.deep, "eth0") as wire:
            with datagram(net.client, version, 8000 + shift) as s:
                s.send(b"hello")
                assert s.recv(100) == b"echo:hello"
                seen = wire.wait(lambda p: p.protocol == 17 and p.ports[1] == 80)
                error = bytearray(icmp_error(INNER[version], seen.src, kind, code, seen.data[:seen.header + 8]))
                error[seen.header + 2] ^= 0x55
                send(net.inner, bytes(error))
                for _ in range(3):
                    s.send(b"again")
                    assert s.recv(100) == b"echo:again"

    @FAMILIES
    def test_about_no_flow(self, net, version):
        """An error about something unknown passes as it is."""
        kind, code = UNREACHABLE[version]
        quote = ip(CLIENT[version], DEEP[version], 17, udp(CLIENT[version], DEEP[version], 5, 80, b"never sent"))
        with IcmpErrors(net.client, version, kind) as errors:
            send(net.inner, icmp_error(INNER[version], CLIENT[version], kind, code, quote))
            assert errors.quote() == (INNER[version], quote)

    @FAMILIES
    @FORWARDED
    def test_connection_survives_errors(self, net, version, shift):
        """RFC 5382, REQ-10: whatever an error says, the connection goes on."""
        with TcpEcho(net.deep, 80), Sniffer(net.deep, "eth0") as wire:
            with net.client.connect(GATEWAY[version], 8000 + shift) as s:
                s.sendall(b"hello")
                assert s.recv(5) == b"hello"
                seen = wire.wait(lambda p: p.protocol == 6 and p.ports[1] == 80 and len(p.payload) > 36)
                for kind, code in ((3, 1), (3, 3), (11, 0)) if version == 4 else ((1, 3), (1, 4), (3, 0)):
                    send(net.inner, icmp_error(INNER[version], seen.src, kind, code, seen.data[:seen.header + 8]))
                s.sendall(b"still")
                assert s.recv(5) == b"still"


class TestFlowTable:
    """Only redirectd: its own table tells."""

    @FAMILIES
    def test_errors_leave_the_flow_as_it_is(self, gateway, version):
        """Neither state, counters nor timer (RFC 4787, REQ-12, RFC 5508, REQ-6)."""
        net, (kind, code) = gateway, UNREACHABLE[version]
        with Redirectd(net.gateway, *rules()) as daemon, Sniffer(net.deep, "eth0") as wire:
            with UdpEcho(net.deep, DEEP[version], 80), datagram(net.client, version, 8100) as s:
                s.send(b"hello")
                assert s.recv(100) == b"echo:hello"
                seen = wire.wait(lambda p: p.protocol == 17 and p.ports[1] == 80)
                before, = daemon.flows()
                send(net.inner, icmp_error(INNER[version], seen.src, kind, code, seen.data[:seen.header + 8]))
                assert error_of(s) == errno.ECONNREFUSED
                after, = daemon.flows()
        for same in ("state", "assured", "original", "reply"):
            assert after[same] == before[same]
        assert after["expires_ms"] <= before["expires_ms"]
