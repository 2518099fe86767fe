# SPDX-License-Identifier: GPL-2.0-or-later
"""ICMP errors about redirected traffic, between real hosts with a router between them.

Path MTU discovery both ways, closed ports, hops that run out: what a sender learns through a
redirect must be what it learns without one. Every error here names a port that its receiver never
used, unless the datapath translates what the error quotes.
"""

import contextlib
import errno
import hashlib
import socket

import pytest

from gateway import NARROW, learned_mtu, narrow
from netns import Namespace, eventually, family_of, host, set_offloads, veth
from packets import TIME_EXCEEDED, IcmpErrors, Ip, l4_holds
from peers import Nginx, Upload, curl, random_file, udp_refused, upload
from redirectd import Daemon

SIZE = 2 << 20
CLIENTS = {4: "198.51.100.1", 6: "2001:db8:c::1"}
SERVERS = {4: "192.0.2.1", 6: "2001:db8::1"}
ROUTERS = {4: "198.51.100.254", 6: "2001:db8:c::fe"}  # as the client sees it
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])


class Path:
    """client – router – server; every error is sent at once and each time."""

    def __init__(self, offloads):
        self.offloads = offloads
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.client, self.router, self.server = (
                stack.enter_context(Namespace(label)) for label in "crs")
            veth(self.client, "eth0", ["198.51.100.1/24", "2001:db8:c::1/64"],
                 self.router, "client0", ["198.51.100.254/24", "2001:db8:c::fe/64"])
            veth(self.server, "eth0", ["192.0.2.1/24", "2001:db8::1/64"],
                 self.router, "server0", ["192.0.2.254/24", "2001:db8::fe/64"])
            for ns, four, six in ((self.client, "198.51.100.254", "2001:db8:c::fe"),
                                  (self.server, "192.0.2.254", "2001:db8::fe")):
                ns.run("ip", "route", "add", "default", "via", four)
                ns.run("ip", "route", "add", "default", "via", six)
            self._set_up()
            self.stack = stack.pop_all()
        return self

    def _set_up(self):
        self.router.sysctl("ipv4/ip_forward", 1)
        self.router.sysctl("ipv6/conf/all/forwarding", 1)
        for ns in (self.client, self.router, self.server):
            ns.sysctl("ipv4/icmp_ratelimit", 0)
            ns.sysctl("ipv6/icmp/ratelimit", 0)
            ns.sysctl("ipv4/tcp_mtu_probing", 0)  # nothing but ICMP tells the path's MTU
        for ns, name in ((self.client, "eth0"), (self.router, "client0"),
                         (self.router, "server0"), (self.server, "eth0")):
            set_offloads(ns, name, self.offloads)

    def __exit__(self, *error):
        return self.stack.__exit__(*error)

    def narrow(self, interface):
        return narrow(self.router, interface, self.client, self.server)


def errors(daemon):
    return daemon.json("stats")["icmp_errors"]


@pytest.fixture(name="path", scope="class", params=[True, False], ids=["offloads", "plain"])
def path_(request):
    with Path(request.param) as path:
        yield path


@pytest.fixture(scope="class")
def net(path):
    """The redirect on the server; nobody listens on 81."""
    with Daemon(path.server, "tcp 8080 to 80", "tcp 9000 to 9001", "udp 8080 to 81",
                "udp 5300 to 53") as daemon:
        path.daemon = daemon
        yield path


@pytest.fixture(scope="class")
def page(net, tmp_path_factory):
    folder = tmp_path_factory.mktemp("www")
    net.noise = folder / "noise"
    net.digest = random_file(net.noise, SIZE)
    with Nginx(net.server, 80, folder, str(tmp_path_factory.mktemp("nginx"))):
        yield net


class TestPathMtu:
    @FAMILIES
    def test_download(self, page, family):
        """The server is told by the router; the router names port 8080, the server knows 80."""
        with page.narrow("client0"):
            before = errors(page.daemon)
            assert learned_mtu(page.server, CLIENTS[family]) is None
            body = curl(page.client, f"http://{host(SERVERS[family])}:8080/noise")
            assert hashlib.sha256(body).hexdigest() == page.digest
            assert learned_mtu(page.server, CLIENTS[family]) == NARROW
            assert errors(page.daemon) > before

    @FAMILIES
    def test_upload(self, page, family):
        """The client is told, about the port that it knows: nothing to translate."""
        with page.narrow("server0"), Upload(page.server, 9001):
            before = errors(page.daemon)
            assert upload(page.client, SERVERS[family], 9000, page.noise) == page.digest
            assert learned_mtu(page.client, SERVERS[family]) == NARROW
            assert errors(page.daemon) == before


class TestClosedPort:
    @FAMILIES
    def test_from_outside(self, net, family):
        before = errors(net.daemon)
        assert udp_refused(net.client, SERVERS[family], 8080)
        assert errors(net.daemon) == before + 1

    @pytest.mark.parametrize("address", ["127.0.0.1", "::1", *SERVERS.values()])
    def test_through_lo(self, net, address):
        before = errors(net.daemon)
        assert udp_refused(net.server, address, 8080)
        assert errors(net.daemon) == before + 1

    @FAMILIES
    @pytest.mark.parametrize("place", ["outside", "lo"])
    def test_client_has_gone(self, net, family, place):
        """The server's answer finds nobody: its connected socket hears of it."""
        client = net.client if place == "outside" else net.server
        before = errors(net.daemon)
        with net.server.listen(SERVERS[family], 53, socket.SOCK_DGRAM) as service:
            with client.open_socket(service.family, socket.SOCK_DGRAM) as asking:
                asking.sendto(b"hello", (SERVERS[family], 5300))
                _, peer = service.recvfrom(100)
            service.connect(peer)
            service.send(b"is anybody there?")

            def heard():
                return service.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            assert eventually(heard, "the service hears of it") == errno.ECONNREFUSED
        assert errors(net.daemon) == before + 1


def probe(ns, family, kind, port):
    """One packet that the first router ends. Returns the socket, connected or about to be."""
    address = SERVERS[family]
    s = ns.open_socket(family_of(address), kind)
    if family == 4:
        s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
    else:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
    s.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        s.connect((address, port))
    if kind == socket.SOCK_DGRAM:
        s.send(b"probe")
    return s


KINDS = pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["udp", "tcp"])


def assert_time_exceeded(path, family, kind, port):
    with IcmpErrors(path.client, family, TIME_EXCEEDED[family]) as heard:
        with probe(path.client, family, kind, port) as sender:
            router, quote = heard.quote()
            packet = Ip(quote)
            assert router == ROUTERS[family]
            assert packet.protocol == (17 if kind == socket.SOCK_DGRAM else 6)
            assert packet.ports == (sender.getsockname()[1], port)
            # With offloads the client's checksum is not made yet where the router quotes it.
            assert l4_holds(packet) or path.offloads


class TestTimeExceeded:
    @FAMILIES
    @KINDS
    def test_redirect_behind_the_router(self, net, family, kind):
        before = errors(net.daemon)
        assert_time_exceeded(net, family, kind, 8080)
        assert errors(net.daemon) == before


@pytest.fixture(scope="class")
def transit(path):
    """The redirect on the router, of packets on their way to the server."""
    with Daemon(path.router, "tcp *:8080 to 80", "udp *:8080 to 81", "udp *:5300 to 53") as daemon:
        path.daemon = daemon
        yield path


class TestTransit:
    @FAMILIES
    @KINDS
    def test_time_exceeded(self, transit, family, kind):
        """The router speaks of port 80 or 81, which the client has never heard of."""
        before = errors(transit.daemon)
        assert_time_exceeded(transit, family, kind, 8080)
        assert errors(transit.daemon) == before + 1

    @FAMILIES
    def test_closed_port(self, transit, family):
        """The server's error is translated on its way through."""
        before = errors(transit.daemon)
        assert udp_refused(transit.client, SERVERS[family], 8080)
        assert errors(transit.daemon) == before + 1

    @FAMILIES
    def test_download_over_a_narrow_path(self, transit, family, tmp_path):
        """The router's own error is about what the server sent, which it must not touch."""
        digest = random_file(tmp_path / "noise", SIZE)
        tmp_path.chmod(0o755)
        with Nginx(transit.server, 80, tmp_path, str(tmp_path)), transit.narrow("client0"):
            before = errors(transit.daemon)
            body = curl(transit.client, f"http://{host(SERVERS[family])}:8080/noise")
            assert hashlib.sha256(body).hexdigest() == digest
            assert learned_mtu(transit.server, CLIENTS[family]) == NARROW
            assert errors(transit.daemon) == before
