# SPDX-License-Identifier: GPL-2.0-or-later
"""Targets on other hosts: DNAT, masquerade, snat, hairpin, the gateway's own processes.

Every case runs through nftables and through redirectd: client – access – gateway – backend, see
tests/lib/gateway.py. What a backend sees, what comes back to whom, and that nothing is harmed.
"""

import contextlib
import hashlib
import itertools
import os
import socket
import struct

import pytest

from gateway import (BACKEND, BACKEND_LAN1, CLIENT, CLIENT2, CLIENTS, GATEWAY, GATEWAY_LAN,
                     GATEWAY_LAN1, ACCESS_WAN1, OTHER, dual)
from netns import DEADLINE, Thread, family_of, host
from packets import TCP, Sniffer, ip, l4_holds, ping, send, tcp, udp
from peers import (Nginx, Stream, TcpEcho, UdpEcho, Upload, curl, random_file, receive, tcp_ask,
                   tcp_refused, udp_ask, upload)

FAMILIES = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
SIZE = 8 << 20
SO_NO_CHECK, IPV6_DSTOPTS = 11, 59
PORTS = itertools.count(20000)  # of clients: none that a socket gets by itself


@contextlib.contextmanager
def echoes(ns, *places):
    """TCP and UDP echo servers of a host, each on (address, port); UDP tags with its address."""
    with contextlib.ExitStack() as stack:
        tcp = {port: stack.enter_context(TcpEcho(ns, port)) for port in {p for _, p in places}}
        tcp_udp = [(tcp[port], stack.enter_context(UdpEcho(ns, address, port, b"echo:")))
                   for address, port in places]
        yield tcp_udp


def ask_both(ns, address, port, servers, **where):
    """One TCP and one UDP exchange; the client as the server saw it, in both."""
    tcp, datagrams = servers
    where.setdefault("sport", next(PORTS))
    before = len(tcp.peers), len(datagrams.seen)
    with ns.connect(address, port, **where) as s:
        s.sendall(b"hello")
        assert receive(s, 5) == b"hello"
        assert s.getpeername()[:2] == (address, port)
    assert udp_ask(ns, address, port, source=where.get("source")) == b"echo:hello"
    assert (len(tcp.peers), len(datagrams.seen)) == (before[0] + 1, before[1] + 1)
    assert tcp.peers[-1][1] == where["sport"], "the client's port was free and should have been kept"
    assert tcp.peers[-1][0] == datagrams.seen[-1][1][0]
    return tcp.peers[-1][0]


@contextlib.contextmanager
def lost_syns(ns, port):
    """The host hears no SYN to that port, but everything else."""
    ns.run("nft", f"table inet lost_syns {{ chain in {{ type filter hook input priority 0; "
           f"tcp dport {port} tcp flags & (syn | ack) == syn drop; }}; }}")
    try:
        yield
    finally:
        ns.run("nft", "delete table inet lost_syns")


@pytest.fixture(scope="class")
def transfers(any_gateway, engine, tmp_path_factory):
    """nginx and an upload server on the backend, behind DNAT and behind masquerade."""
    net = any_gateway
    folder = tmp_path_factory.mktemp("www")
    net.digest, net.noise = random_file(folder / "noise", SIZE), folder / "noise"
    with engine(net.gateway, *dual("tcp {gateway}:8080 to {backend}:80", "tcp {gateway}:9000 to {backend}:9001",
                                   "tcp {gateway}:8180 to {backend}:80 masquerade",
                                   "tcp {gateway}:9100 to {backend}:9001 masquerade",
                                   "udp {gateway}:8080 to {backend}:81",
                                   "udp {gateway}:8180 to {backend}:81 masquerade")):
        with Nginx(net.backend, 80, folder, str(tmp_path_factory.mktemp("nginx"))), Upload(net.backend, 9001):
            yield net


MODES = pytest.mark.parametrize("shift", [0, 100], ids=["dnat", "masquerade"])


class TestTransfers:
    @FAMILIES
    @MODES
    def test_download_is_unharmed(self, transfers, version, shift):
        body = curl(transfers.client, f"http://{host(GATEWAY[version])}:{8080 + shift}/noise")
        assert hashlib.sha256(body).hexdigest() == transfers.digest

    @FAMILIES
    @MODES
    def test_upload_is_unharmed(self, transfers, version, shift):
        assert upload(transfers.client, GATEWAY[version], 9000 + shift, transfers.noise) == transfers.digest

    @FAMILIES
    @MODES
    def test_udp(self, transfers, version, shift):
        with UdpEcho(transfers.backend, BACKEND[version], 81):
            for size in (0, 1, 1400):
                message = os.urandom(size)
                assert udp_ask(transfers.client, GATEWAY[version], 8080 + shift, message) == b"echo:" + message


class TestDnat:
    @pytest.fixture(scope="class")
    def net(self, gateway, engine):
        with engine(gateway.gateway, *dual("tcp+udp 8080 to {backend}:80",
                                           "tcp {gateway}:8180 to {backend}:80 masquerade")):
            yield gateway

    @FAMILIES
    def test_client_is_kept(self, net, version):
        """Any address of the gateway is listened on; the backend sees who really asks."""
        with echoes(net.backend, (BACKEND[version], 80)) as (servers,):
            for address in (GATEWAY[version], GATEWAY_LAN[version]):
                assert ask_both(net.client, address, 8080, servers) == CLIENT[version]
            assert ask_both(net.client, GATEWAY[version], 8080, servers,
                            source=CLIENT2[version]) == CLIENT2[version]

    @FAMILIES
    def test_backend_answers_directly_too(self, net, version):
        with echoes(net.backend, (BACKEND[version], 80)) as (servers,):
            assert ask_both(net.client, BACKEND[version], 80, servers) == CLIENT[version]

    @FAMILIES
    def test_nobody_listens_is_refused(self, net, version):
        assert tcp_refused(net.client, GATEWAY[version], 8080)

    @FAMILIES
    def test_other_ports_are_the_gateways(self, net, version):
        with echoes(net.gateway, (GATEWAY[version], 80)) as (servers,):
            assert ask_both(net.client, GATEWAY[version], 80, servers) == CLIENT[version]
        assert tcp_refused(net.client, GATEWAY[version], 8081)

    @FAMILIES
    def test_echo_is_the_gateways(self, net, version):
        """A ping has no port: it is for the host that has the address."""
        key = "ipv4/icmp_echo_ignore_all" if version == 4 else "ipv6/icmp/echo_ignore_all"
        net.backend.sysctl(key, 1)
        try:
            assert ping(net.client, CLIENT[version], GATEWAY[version], 77) == GATEWAY[version]
            assert ping(net.client, CLIENT[version], OTHER[version], 78) == OTHER[version]
        finally:
            net.backend.sysctl(key, 0)

    @FAMILIES
    def test_half_closed_connection(self, net, version):
        with net.backend.listen("::", 80) as listener, net.client.connect(GATEWAY[version], 8080) as client:
            connection, _ = listener.accept()
            with connection:
                client.shutdown(socket.SHUT_WR)
                assert connection.recv(10) == b""
                connection.sendall(b"x" * 50000)
            assert receive(client, 50000) == b"x" * 50000
            assert client.recv(1) == b""

    @FAMILIES
    def test_reset_from_the_client(self, net, version):
        with net.backend.listen("::", 80) as listener, net.client.connect(GATEWAY[version], 8080) as client:
            connection, _ = listener.accept()
            with connection:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
                connection.settimeout(10)
                with pytest.raises(ConnectionResetError):
                    connection.recv(10)

    @FAMILIES
    def test_wrong_reset_ends_nothing(self, net, version):
        """One that neither end has sent, with a number that neither expects: who got it goes on."""
        with TcpEcho(net.backend, 80), net.client.connect(GATEWAY[version], 8080) as s:
            s.sendall(b"hello")
            assert receive(s, 5) == b"hello"
            ends, ports = (CLIENT[version], GATEWAY[version]), (s.getsockname()[1], 8080)
            with Sniffer(net.gateway, "wan0") as wire:
                send(net.client, ip(*ends, TCP, tcp(*ends, ports, "R", 4711)))
                wire.wait(lambda p: p.protocol == TCP and p.ports == ports)
            for _ in range(3):
                s.sendall(b"still")
                assert receive(s, 5) == b"still"

    @FAMILIES
    @MODES
    def test_simultaneous_open(self, net, version, shift):
        """RFC 5382, REQ-2 a: both ends connect to each other, and their SYNs cross."""
        sport = 21500 + shift
        with lost_syns(net.backend, 80), net.client.open_socket(family_of(CLIENT[version]), socket.SOCK_STREAM) as one:
            one.bind((CLIENT[version], sport))
            one.setblocking(False)
            with Sniffer(net.backend, "eth0") as wire, contextlib.suppress(BlockingIOError):
                one.connect((GATEWAY[version], 8080 + shift))
                wire.wait(lambda p: p.protocol == TCP and p.ports == (sport, 80))
            with net.backend.open_socket(family_of(CLIENT[version]), socket.SOCK_STREAM) as other:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                other.bind((BACKEND[version], 80))
                other.connect(((GATEWAY_LAN if shift else CLIENT)[version], sport))
                one.settimeout(DEADLINE)
                for sender, receiver in ((one, other), (other, one)):
                    sender.sendall(b"hello")
                    assert receive(receiver, 5) == b"hello"
                assert one.getpeername()[:2] == (GATEWAY[version], 8080 + shift)

    @FAMILIES
    def test_many_at_once(self, net, version):
        with echoes(net.backend, (BACKEND[version], 80)), Stream(net.client, GATEWAY[version], 8080) as stream:
            threads = [Thread(tcp_ask, net.client, GATEWAY[version], 8080, os.urandom(3000)) for _ in range(30)]
            for t in threads:
                t.result()
            stream.must_go_on()

    def test_udp_without_checksum(self, net):
        """It stays without one: zero means that the sender made none."""
        with echoes(net.backend, (BACKEND[4], 80)), Sniffer(net.backend, "eth0") as wire:
            with net.client.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
                s.connect((GATEWAY[4], 8080))
                s.send(b"hello")
                assert s.recv(100) == b"echo:hello"
            packet = wire.wait(lambda p: p.protocol == 17 and p.ports[1] == 80)
            assert struct.unpack_from("!H", packet.payload, 6)[0] == 0

    def test_checksum_that_becomes_zero(self, net):
        """A UDP checksum that computes to zero is sent as 0xffff (RFC 768)."""
        for payload in zero_sum_payloads(CLIENT[4], BACKEND[4], 40001, 80):
            with Sniffer(net.backend, "eth0") as wire:
                send(net.client, ip(CLIENT[4], GATEWAY[4], 17, udp(CLIENT[4], GATEWAY[4], 40001, 8080, payload)))
                packet = wire.wait(lambda p: p.protocol == 17 and p.ports == (40001, 80))
                assert struct.unpack_from("!H", packet.payload, 6)[0] == 0xffff

    def test_ipv4_options(self, net):
        with echoes(net.backend, (BACKEND[4], 80)) as ((_, echo),):
            with net.client.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01\x01\x01\x01\x01\x01\x01\x00")
                s.connect((GATEWAY[4], 8080))
                s.send(b"hello")
                assert s.recv(100) == b"echo:hello"
            assert echo.seen[-1][1][0] == CLIENT[4]

    def test_ipv6_extension_header(self, net):
        with echoes(net.backend, (BACKEND[6], 80)) as ((_, echo),):
            with net.client.open_socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
                s.setsockopt(socket.IPPROTO_IPV6, IPV6_DSTOPTS, b"\x00\x00\x01\x04" + bytes(4))
                s.connect((GATEWAY[6], 8080))
                s.send(b"hello")
                assert s.recv(100) == b"echo:hello"
            assert echo.seen[-1][1][0] == CLIENT[6]


def zero_sum_payloads(src, dst, sport, dport):
    """Two bytes of payload that make the datagram's checksum zero after translation."""
    for word in range(65536):
        payload = struct.pack("!H", word)
        if udp(src, dst, sport, dport, payload)[6:8] == b"\xff\xff":
            yield payload
            return


class TestFrom:
    @pytest.fixture(scope="class")
    def net(self, gateway, engine):
        with engine(gateway.gateway, *dual("tcp {gateway}:8080 to {backend}:80 from {client}")):
            yield gateway

    @FAMILIES
    def test_only_clients_from_there(self, net, version):
        with TcpEcho(net.backend, 80):
            assert tcp_ask(net.client, GATEWAY[version], 8080, source=CLIENT[version]) == b"hello"
            assert tcp_refused(net.client, GATEWAY[version], 8080, source=CLIENT2[version])


@contextlib.contextmanager
def second_address(ns, name, address):
    """Another address of an interface; IPv6's is deprecated, so that no process chooses it by itself."""
    place = [f"{address}/{64 if ':' in address else 24}", "dev", name]
    ns.run("ip", "address", "add", *place, *(["nodad", "preferred_lft", "0"] if ":" in address else []))
    try:
        yield
    finally:
        ns.run("ip", "address", "delete", *place)


class TestSource:
    """masquerade and snat: whom the backend sees."""

    SNAT = {4: "10.0.0.77", 6: "2001:db8:10::77"}
    NEAR, FAR = "10.5.0.1", "10.5.0.2"  # a second subnet on the same cable

    @pytest.fixture(scope="class")
    def net(self, gateway, engine):
        rules = dual("tcp+udp {gateway}:8080 to {backend}:80 masquerade")
        rules += [f"tcp+udp {host(GATEWAY[v])}:8081 to {host(BACKEND[v])}:81 snat {self.SNAT[v]}" for v in (4, 6)]
        rules.append(f"tcp+udp {GATEWAY[4]}:8082 to {self.FAR}:82 masquerade")
        with contextlib.ExitStack() as stack:
            for ns, name, address in ((gateway.gateway, "lan0", self.SNAT[4]), (gateway.gateway, "lan0", self.SNAT[6]),
                                      (gateway.gateway, "lan0", self.NEAR), (gateway.backend, "eth0", self.FAR)):
                stack.enter_context(second_address(ns, name, address))
            stack.enter_context(engine(gateway.gateway, *rules))
            yield gateway

    @FAMILIES
    def test_masquerade(self, net, version):
        with echoes(net.backend, (BACKEND[version], 80)) as (servers,):
            assert ask_both(net.client, GATEWAY[version], 8080, servers) == GATEWAY_LAN[version]

    @FAMILIES
    def test_snat(self, net, version):
        with echoes(net.backend, (BACKEND[version], 81)) as (servers,):
            assert ask_both(net.client, GATEWAY[version], 8081, servers) == self.SNAT[version]

    def test_address_of_the_next_hops_subnet(self, net):
        """Of several addresses of an interface the one that the backend shares a subnet with."""
        with echoes(net.backend, (self.FAR, 82)) as (servers,):
            assert ask_both(net.client, GATEWAY[4], 8082, servers) == self.NEAR

    @FAMILIES
    def test_client_of_the_same_network(self, net, version):
        """The backend would answer its neighbour directly; with masquerade it cannot."""
        with echoes(net.backend, (BACKEND[version], 80)) as (servers,):
            assert ask_both(net.other, GATEWAY[version], 8080, servers) == GATEWAY_LAN[version]

    @FAMILIES
    def test_backend_without_a_route_to_the_client(self, net, version):
        flag = "-4" if version == 4 else "-6"
        net.backend.run("ip", flag, "route", "delete", "default")
        try:
            with echoes(net.backend, (BACKEND[version], 80)) as (servers,):
                assert ask_both(net.client, GATEWAY[version], 8080, servers) == GATEWAY_LAN[version]
        finally:
            net.backend.run("ip", flag, "route", "add", "default", "via", GATEWAY_LAN[version])


class TestOtherWays:
    """Packets of one flow take different interfaces in each direction."""

    @pytest.fixture(scope="class")
    def net(self, gateway, engine):
        with engine(gateway.gateway, *dual("tcp+udp {gateway}:8080 to {backend}:80",
                                           "tcp+udp {gateway}:8081 to {backend}:80 masquerade",
                                           "tcp+udp {gateway}:8082 to 82")):
            yield gateway

    @FAMILIES
    def test_answer_comes_in_elsewhere(self, net, version):
        with net.detour(net.backend, CLIENTS[version], GATEWAY_LAN1[version], "eth1"):
            with echoes(net.backend, (BACKEND[version], 80)) as (servers,):
                assert ask_both(net.client, GATEWAY[version], 8080, servers) == CLIENT[version]

    @FAMILIES
    def test_masqueraded_answer_comes_in_elsewhere(self, net, version):
        prefix = GATEWAY_LAN[version] + ("/32" if version == 4 else "/128")
        with net.detour(net.backend, prefix, GATEWAY_LAN1[version], "eth1"):
            with echoes(net.backend, (BACKEND[version], 80)) as (servers,):
                assert ask_both(net.client, GATEWAY[version], 8081, servers) == GATEWAY_LAN[version]

    @FAMILIES
    @pytest.mark.parametrize("port", [8080, 8081], ids=["dnat", "masquerade"])
    def test_answer_leaves_elsewhere(self, net, version, port):
        with net.detour(net.gateway, CLIENTS[version], ACCESS_WAN1[version], "wan1"):
            with echoes(net.backend, (BACKEND[version], 80)) as (servers,):
                ask_both(net.client, GATEWAY[version], port, servers)

    @FAMILIES
    def test_local_answer_leaves_elsewhere(self, net, version):
        with net.detour(net.gateway, CLIENTS[version], ACCESS_WAN1[version], "wan1"):
            with echoes(net.gateway, (GATEWAY[version], 82)) as (servers,):
                assert ask_both(net.client, GATEWAY[version], 8082, servers) == CLIENT[version]

    @FAMILIES
    def test_request_leaves_elsewhere(self, net, version):
        """Masqueraded: the source is the address of the interface that the packet really takes."""
        prefix = BACKEND[version] + ("/32" if version == 4 else "/128")
        with net.detour(net.gateway, prefix, BACKEND_LAN1[version], "lan1"):
            with echoes(net.backend, (BACKEND[version], 80)) as (servers,):
                assert ask_both(net.client, GATEWAY[version], 8081, servers) == GATEWAY_LAN1[version]

    @FAMILIES
    def test_way_changes_under_a_connection(self, net, version):
        with echoes(net.backend, (BACKEND[version], 80)), Stream(net.client, GATEWAY[version], 8080) as stream:
            stream.must_go_on()
            with net.detour(net.backend, CLIENTS[version], GATEWAY_LAN1[version], "eth1"):
                stream.must_go_on()
                with net.detour(net.gateway, CLIENTS[version], ACCESS_WAN1[version], "wan1"):
                    stream.must_go_on()
            stream.must_go_on()


class TestHairpin:
    @pytest.fixture(scope="class")
    def net(self, gateway, engine):
        with engine(gateway.gateway, *dual("tcp+udp {gateway}:8080 to {backend}:80"),
                    *[f"tcp+udp {host(GATEWAY[v])}:8081 to {host(BACKEND[v])}:80 snat {GATEWAY[v]}" for v in (4, 6)]):
            yield gateway

    @FAMILIES
    def test_backend_reaches_itself(self, net, version):
        """Without a new source it would answer itself past the gateway."""
        with echoes(net.backend, (BACKEND[version], 80)) as (servers,):
            assert ask_both(net.backend, GATEWAY[version], 8080, servers) == GATEWAY_LAN[version]

    @FAMILIES
    def test_external_source(self, net, version):
        """RFC 4787, REQ-9 a, by rule: who is inside is seen with the address that it has outside."""
        with echoes(net.backend, (BACKEND[version], 80)) as (servers,):
            for inside in (net.other, net.backend):
                assert ask_both(inside, GATEWAY[version], 8081, servers) == GATEWAY[version]

    @FAMILIES
    def test_beside_a_client_from_outside(self, net, version):
        """Both use one source port."""
        with TcpEcho(net.backend, 80) as echo:
            with net.client.connect(GATEWAY[version], 8080, sport=21000) as outside:
                with net.backend.connect(GATEWAY[version], 8080, sport=21000) as inside:
                    for s in (outside, inside, outside):
                        s.sendall(b"hello")
                        assert receive(s, 5) == b"hello"
            assert {a for a, _ in echo.peers} == {CLIENT[version], GATEWAY_LAN[version]}


class TestLocalProcess:
    """A process of the gateway connects to an address and port of its own, the target is elsewhere."""

    @pytest.fixture(scope="class")
    def net(self, gateway, engine):
        # redirectd sends such packets back in through lo, where IPv4 wants to be told that a source
        # of this host, or of 127.0.0.0/8, may come in; nftables sends the latter out by lan0.
        settings = ("lo/accept_local", "lo/route_localnet", "lan0/route_localnet")
        for setting in settings:
            gateway.gateway.sysctl(f"ipv4/conf/{setting}", 1)
        with engine(gateway.gateway, *dual("tcp+udp 8080 to {backend}:80",
                                           "tcp+udp {gateway}:8081 to {backend}:80 masquerade")):
            yield gateway
        for setting in settings:
            gateway.gateway.sysctl(f"ipv4/conf/{setting}", 0)

    @FAMILIES
    @pytest.mark.parametrize("listen", [GATEWAY, GATEWAY_LAN], ids=["wan", "lan"])
    def test_own_address(self, net, version, listen):
        with echoes(net.backend, (BACKEND[version], 80)) as (servers,):
            seen = ask_both(net.gateway, listen[version], 8080, servers)
            assert seen in (GATEWAY[version], GATEWAY_LAN[version])

    @FAMILIES
    def test_masquerade(self, net, version):
        with echoes(net.backend, (BACKEND[version], 80)) as (servers,):
            assert ask_both(net.gateway, GATEWAY[version], 8081, servers) == GATEWAY_LAN[version]

    def test_loopback(self, net):
        """127.0.0.1 cannot leave the host: it is masqueraded without being asked for."""
        with echoes(net.backend, (BACKEND[4], 80)) as (servers,):
            assert ask_both(net.gateway, "127.0.0.1", 8080, servers) == GATEWAY_LAN[4]

    @FAMILIES
    def test_refused(self, net, version):
        assert tcp_refused(net.gateway, GATEWAY[version], 8080)

    @FAMILIES
    def test_transfer(self, net, version, tmp_path):
        digest = random_file(tmp_path / "noise", 4 << 20)
        with Upload(net.backend, 80):
            assert upload(net.gateway, GATEWAY[version], 8080, tmp_path / "noise") == digest


class TestLoopbackTarget:
    def test_service_on_127(self, gateway, engine):
        """Needs route_localnet, with nftables as with redirectd."""
        gateway.gateway.sysctl("ipv4/conf/wan0/route_localnet", 1)
        try:
            with engine(gateway.gateway, f"tcp+udp {GATEWAY[4]}:8080 to 127.0.0.1:80"):
                with UdpEcho(gateway.gateway, "127.0.0.1", 80), gateway.gateway.listen("127.0.0.1", 80) as listener:
                    assert udp_ask(gateway.client, GATEWAY[4], 8080) == b"echo:hello"
                    with gateway.client.connect(GATEWAY[4], 8080) as client:
                        connection, peer = listener.accept()
                        with connection:
                            assert peer[0] == CLIENT[4]
                            client.sendall(b"hello")
                            assert receive(connection, 5) == b"hello"
                            connection.sendall(b"world")
                            assert receive(client, 5) == b"world"
        finally:
            gateway.gateway.sysctl("ipv4/conf/wan0/route_localnet", 0)


class TestTransit:
    """Packets to others that pass through the gateway."""

    @pytest.fixture(scope="class")
    def net(self, gateway, engine):
        rules = ["tcp+udp *:8080 to 80"]
        for version, prefix in ((4, "10.0.0.0/24"), (6, "[2001:db8:10::]/64")):
            rules += [f"tcp+udp {prefix}:8081 to {host(OTHER[version])}:81",
                      f"tcp+udp *:8082 to {host(OTHER[version])}:81 masquerade"]
        with engine(gateway.gateway, *rules):
            yield gateway

    @FAMILIES
    def test_port_only(self, net, version):
        with echoes(net.backend, (BACKEND[version], 80)) as (servers,):
            assert ask_both(net.client, BACKEND[version], 8080, servers) == CLIENT[version]

    @FAMILIES
    def test_other_host(self, net, version):
        with echoes(net.other, (OTHER[version], 81)) as (servers,):
            assert ask_both(net.client, BACKEND[version], 8081, servers) == CLIENT[version]

    @FAMILIES
    def test_other_host_masqueraded(self, net, version):
        with echoes(net.other, (OTHER[version], 81)) as (servers,):
            assert ask_both(net.client, BACKEND[version], 8082, servers) == GATEWAY_LAN[version]

    @FAMILIES
    def test_host_that_does_not_exist(self, net, version):
        """Nobody has the address; the rule sends it on to somebody who exists."""
        address = {4: "10.0.0.200", 6: "2001:db8:10::200"}[version]
        with echoes(net.other, (OTHER[version], 81)) as (servers,):
            assert ask_both(net.client, address, 8081, servers) == CLIENT[version]


class TestUntouched:
    """What is not translated passes as it came: other protocols, broken packets, other ports."""

    @pytest.fixture(scope="class")
    def net(self, gateway, engine):
        with engine(gateway.gateway, *dual("tcp+udp {gateway}:8080 to {backend}:80 masquerade"),
                    "tcp+udp *:8080 to 80"):
            yield gateway

    PORTS = struct.pack("!HH", 40000, 8080)
    OTHERS = {"sctp": (132, PORTS + bytes(28)), "udplite": (136, PORTS + bytes(16)), "dccp": (33, PORTS + bytes(24)),
              "esp": (50, PORTS + bytes(36)), "unknown": (253, PORTS + bytes(4))}
    BROKEN = {"udp-too-short": (17, PORTS + struct.pack("!HH", 7, 0) + bytes(20)),
              "udp-too-long": (17, PORTS + struct.pack("!HH", 2000, 0) + bytes(20)),
              "tcp-offset": (6, PORTS + bytes(8) + b"\x40\x02" + bytes(6)),
              "tcp-beyond": (6, PORTS + bytes(8) + b"\xf0\x02" + bytes(6)),
              "tcp-cut": (6, PORTS + bytes(8)), "udp-cut": (17, PORTS)}

    @FAMILIES
    @pytest.mark.parametrize("kind", [*OTHERS, *BROKEN])
    def test_in_transit(self, net, version, kind):
        protocol, payload = {**self.OTHERS, **self.BROKEN}[kind]
        with Sniffer(net.backend, "eth0") as wire:
            send(net.client, ip(CLIENT[version], BACKEND[version], protocol, payload))
            packet = wire.wait(lambda p: p.protocol == protocol and p.payload[:4] == self.PORTS)
            assert (packet.src, packet.dst, packet.payload) == (CLIENT[version], BACKEND[version], payload)

    @FAMILIES
    @pytest.mark.parametrize("kind", OTHERS)
    def test_to_the_gateway(self, net, version, kind):
        protocol, payload = self.OTHERS[kind]
        with net.gateway.entered():
            s = socket.socket(family_of(GATEWAY[version]), socket.SOCK_RAW, protocol)
        with s:
            s.settimeout(30)
            send(net.client, ip(CLIENT[version], GATEWAY[version], protocol, payload))
            data, sender = s.recvfrom(2048)
            assert (data[20:] if version == 4 else data) == payload
            assert sender[0] == CLIENT[version]

    @FAMILIES
    def test_whole_packets_still_pass(self, net, version):
        """The same, unbroken, is translated; with its checksum right."""
        with Sniffer(net.backend, "eth0") as wire:
            send(net.client, ip(CLIENT[version], BACKEND[version], 17,
                                udp(CLIENT[version], BACKEND[version], 40000, 8080, b"hello")))
            packet = wire.wait(lambda p: p.protocol == 17 and p.ports == (40000, 80))
            assert l4_holds(packet)
