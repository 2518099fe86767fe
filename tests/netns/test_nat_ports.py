# SPDX-License-Identifier: GPL-2.0-or-later
"""Source ports: kept where they are free, another one where not; ranges of listened ports.

A collision is two flows that a backend could not tell apart, had both kept the client's port. All
of it through nftables and through redirectd.
"""

import contextlib
import socket
import struct

import pytest

from engines import Redirectd
from gateway import BACKEND, CLIENT, CLIENT2, GATEWAY, GATEWAY_LAN, OTHER, dual
from netns import eventually, family_of
from packets import Sniffer
from peers import TcpEcho, UdpEcho, receive, tcp_ask, tcp_refused, udp_ask, udp_refused
from redirectd import Daemon

FAMILIES = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
KINDS = pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])
# RFC 4787, REQ-3: a port comes from the range that the client's own is in. nf_nat knows three.
SPANS = ((1, 511), (512, 1023), (1024, 65535))
BY_THE_BOOK = """timeout udp 2m
timeout tcp-syn 4m
timeout tcp-fin-wait 2h4m
timeout tcp-close-wait 2h4m
timeout tcp-closing 4m
timeout tcp-rst 4m
"""
NOBODY = "10.0.0.200"  # in the backends' network


class Echo:
    """A TCP and a UDP echo server, and whom they saw."""

    def __init__(self, ns, address, port):
        self.tcp, self.udp = TcpEcho(ns, port), UdpEcho(ns, address, port)

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        self.stack.enter_context(self.tcp)
        self.stack.enter_context(self.udp)
        return self

    def __exit__(self, *error):
        return self.stack.__exit__(*error)

    def seen(self, kind):
        """Clients' addresses and ports, in order of appearance."""
        return list(self.tcp.peers) if kind == TCP else [peer[:2] for _, peer in self.udp.seen]


class Talk:
    """One flow from a chosen address and port, that can say something again and again."""

    def __init__(self, ns, kind, address, port, source, sport):
        self.kind, self.number = kind, 0
        self.socket = ns.open_socket(family_of(address), kind)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((source, sport))
        self.socket.connect((address, port))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def say(self):
        self.number += 1
        message = b"%d %d" % (id(self), self.number)
        self.socket.send(message)
        if self.kind == TCP:
            assert receive(self.socket, len(message)) == message
        else:
            assert self.socket.recv(1000) == b"echo:" + message

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def turned_away(ns, address, port, gateway, to):
    """Does a datagram from there to a port of the gateway find nobody?"""
    with ns.open_socket(family_of(address), UDP) as s:
        s.bind((address, port))
        s.connect((gateway, to))
        s.send(b"let me in")
        try:
            s.recv(100)
            return False
        except ConnectionRefusedError:
            return True


@pytest.fixture(scope="module")
def net(gateway):
    return gateway


@pytest.fixture(scope="class")
def rules(net, engine):
    with engine(net.gateway, *dual("tcp+udp {gateway}:8080 to {backend}:80",
                                   "tcp+udp {gateway}:8180 to {backend}:80 masquerade",
                                   "tcp+udp {gateway}:8181 to {other}:80 masquerade",
                                   "tcp+udp {gateway}:8000-8099 to {backend}:80",
                                   "tcp+udp {gateway}:8300 to 81")) as translating:
        net.engine = translating
        yield net


PLACES = pytest.mark.parametrize("place", ["dnat", "redirect"])


def assert_both_talk(net, version, kind, place, order, sport, keeps=True):
    """Both ways at once from one client port, in that order; who came first `keeps` the port."""
    ns, target, listen, port = {"dnat": (net.backend, BACKEND[version], 8080, 80),
                                "redirect": (net.gateway, GATEWAY[version], 8300, 81)}[place]
    ways = {"listened": (GATEWAY[version], listen), "target": (target, port)}
    with Echo(ns, target, port) as echo:
        with Talk(net.client, kind, *ways[order[0]], CLIENT[version], sport) as one:
            one.say()
            with Talk(net.client, kind, *ways[order[1]], CLIENT[version], sport) as two:
                for talk in (two, one, two, one):
                    talk.say()
        peers = echo.seen(kind)
        assert {a for a, _ in peers} == {CLIENT[version]}
        assert peers[0] == (CLIENT[version], sport)
        assert len(set(peers)) == 2
        if kind == UDP and keeps:  # RFC 4787, REQ-11: a flow's port stays for as long as it lives
            assert peers[0] == peers[2] == peers[4] and peers[1] == peers[3]


@pytest.mark.usefixtures("rules")
class TestCollisions:
    @FAMILIES
    @KINDS
    @PLACES
    def test_redirected_then_direct(self, net, version, kind, place):
        """One client port talks to the listened port and to the target itself, at once."""
        assert_both_talk(net, version, kind, place, ["listened", "target"], 22000)

    @FAMILIES
    @KINDS
    @PLACES
    def test_direct_then_redirected(self, net, version, kind, place):
        """
        The connection that no rule concerns was there first; it must not notice.

        That a datagram's unconnected socket here has talked to the client nothing tells redirectd, which
        does not track what is no business of its: both get their answers, but the older one's port changes.
        """
        unknown = isinstance(net.engine, Redirectd) and (place, kind) == ("redirect", UDP)
        assert_both_talk(net, version, kind, place, ["target", "listened"], 22001, keeps=not unknown)

    @FAMILIES
    @KINDS
    @pytest.mark.parametrize("sport", [300, 700, 23000])
    def test_two_masqueraded_clients_with_one_port(self, net, version, kind, sport):
        """The first keeps it; the second's comes from the same range."""
        with Echo(net.backend, BACKEND[version], 80) as echo:
            with Talk(net.client, kind, GATEWAY[version], 8180, CLIENT[version], sport) as one:
                one.say()
                with Talk(net.client, kind, GATEWAY[version], 8180, CLIENT2[version], sport) as two:
                    for talk in (two, one, two, one):
                        talk.say()
            one_seen, two_seen = list(dict.fromkeys(echo.seen(kind)))
            assert one_seen == (GATEWAY_LAN[version], sport)
            assert two_seen[0] == GATEWAY_LAN[version]
            low, high = next(span for span in SPANS if span[0] <= sport <= span[1])
            assert low <= two_seen[1] <= high and two_seen[1] != sport

    @FAMILIES
    @KINDS
    def test_two_clients_that_are_not_masqueraded(self, net, version, kind):
        """Their addresses tell them apart: both keep the port."""
        with Echo(net.backend, BACKEND[version], 80) as echo:
            with Talk(net.client, kind, GATEWAY[version], 8080, CLIENT[version], 23100) as one:
                with Talk(net.client, kind, GATEWAY[version], 8080, CLIENT2[version], 23100) as two:
                    for talk in (one, two, one):
                        talk.say()
            assert set(echo.seen(kind)) == {(CLIENT[version], 23100), (CLIENT2[version], 23100)}

    @FAMILIES
    @KINDS
    def test_gateways_own_connection_has_the_port(self, net, version, kind):
        """The gateway itself talks to the backend from the port that a masqueraded client wants."""
        with Echo(net.backend, BACKEND[version], 80) as echo:
            with Talk(net.gateway, kind, BACKEND[version], 80, GATEWAY_LAN[version], 23200) as own:
                own.say()
                with Talk(net.client, kind, GATEWAY[version], 8180, CLIENT[version], 23200) as client:
                    for talk in (client, own, client, own):
                        talk.say()
            assert len(set(echo.seen(kind))) == 2

    def assert_both_keep_it(self, net, version, kind, second, sport):
        """A client's port towards one target, a second client's towards the other."""
        with Echo(net.backend, BACKEND[version], 80) as backend, Echo(net.other, OTHER[version], 80) as other:
            with Talk(net.client, kind, GATEWAY[version], 8180, CLIENT[version], sport) as one:
                with Talk(net.client, kind, GATEWAY[version], 8181, second[version], sport) as two:
                    for talk in (one, two, one, two):
                        talk.say()
            assert set(backend.seen(kind)) == set(other.seen(kind)) == {(GATEWAY_LAN[version], sport)}

    @FAMILIES
    @KINDS
    def test_one_port_to_two_destinations(self, net, version, kind):
        """No collision: both see the client's own port (RFC 4787, REQ-1, and RFC 5382, REQ-1)."""
        self.assert_both_keep_it(net, version, kind, CLIENT, 23300)

    @FAMILIES
    @KINDS
    def test_two_clients_to_two_destinations(self, net, version, kind):
        """RFC 7857, 3: two clients with one port, whose targets are not the same, both keep it."""
        self.assert_both_keep_it(net, version, kind, CLIENT2, 23600)

    @FAMILIES
    @pytest.mark.parametrize("first, second, sport", [(TCP, UDP, 23700), (UDP, TCP, 23701)],
                             ids=["tcp-first", "udp-first"])
    def test_tcp_and_udp_with_one_port(self, net, version, first, second, sport):
        """RFC 7857, 5: a mapping is one protocol's. Two clients with one port, at once: both keep it."""
        with Echo(net.backend, BACKEND[version], 80) as echo:
            with Talk(net.client, first, GATEWAY[version], 8180, CLIENT[version], sport) as one:
                one.say()
                with Talk(net.client, second, GATEWAY[version], 8180, CLIENT2[version], sport) as two:
                    for talk in (two, one, two, one):
                        talk.say()
            assert set(echo.seen(TCP)) == set(echo.seen(UDP)) == {(GATEWAY_LAN[version], sport)}

    @FAMILIES
    @KINDS
    def test_one_port_through_two_rules(self, net, version, kind):
        """To one target, once as the client itself and once masqueraded: two flows, none disturbed."""
        with Echo(net.backend, BACKEND[version], 80) as echo:
            with Talk(net.client, kind, GATEWAY[version], 8080, CLIENT[version], 23500) as one:
                with Talk(net.client, kind, GATEWAY[version], 8180, CLIENT[version], 23500) as two:
                    for talk in (one, two, one, two):
                        talk.say()
            assert {a for a, _ in echo.seen(kind)} == {CLIENT[version], GATEWAY_LAN[version]}
            assert len(set(echo.seen(kind))) == 2

    @FAMILIES
    @KINDS
    def test_folded_ports_from_one_client_port(self, net, version, kind):
        """Several listened ports are one at the backend; the source tells the flows apart."""
        with Echo(net.backend, BACKEND[version], 80) as echo, contextlib.ExitStack() as stack:
            talks = [stack.enter_context(Talk(net.client, kind, GATEWAY[version], port, CLIENT[version], 23400))
                     for port in (8001, 8002, 8050)]
            for talk in talks + talks[::-1]:
                talk.say()
            assert len(set(echo.seen(kind))) == 3
            assert (CLIENT[version], 23400) in echo.seen(kind)

    @FAMILIES
    @KINDS
    def test_many_collisions(self, net, version, kind):
        """Sixty ports, each used by both clients at once: all different, every answer right."""
        with Echo(net.backend, BACKEND[version], 80) as echo, contextlib.ExitStack() as stack:
            talks = [stack.enter_context(Talk(net.client, kind, GATEWAY[version], 8180, source, sport))
                     for sport in range(24000, 24060) for source in (CLIENT[version], CLIENT2[version])]
            for talk in talks:
                talk.say()
            assert len(set(echo.seen(kind))) == len(talks)
            # RFC 7857, 9: by chance, over all of the range.
            others = [port for _, port in echo.seen(kind) if not 24000 <= port < 24060]
            assert others != sorted(others) and max(others) - min(others) > 10000
            for talk in reversed(talks):
                talk.say()
            if kind == UDP:
                seen = echo.seen(kind)
                assert seen[len(talks):] == seen[:len(talks)][::-1]  # RFC 4787, REQ-11: it stays so


@pytest.mark.usefixtures("rules")
class TestFiltering:
    """Who gets through the mapping that a client's packets have made."""

    @FAMILIES
    def test_only_the_target_answers(self, net, version):
        """From its address and port (RFC 4787, 5); others do not refresh the flow either (RFC 7857, 7)."""
        sport = 26100 + version
        with net.backend.listen(BACKEND[version], 80, UDP) as service, \
             net.client.open_socket(family_of(CLIENT[version]), UDP) as s:
            s.bind((CLIENT[version], sport))
            s.connect((GATEWAY[version], 8180))
            s.send(b"hello")
            _, peer = service.recvfrom(100)
            assert peer[:2] == (GATEWAY_LAN[version], sport)
            for ns, address, port in ((net.backend, BACKEND, 81), (net.other, OTHER, 80)):
                left = net.engine.seconds_left(sport)
                assert turned_away(ns, address[version], port, *peer[:2])
                assert net.engine.seconds_left(sport) <= left
            service.sendto(b"answer", peer)
            assert s.recv(100) == b"answer"

    @FAMILIES
    def test_of_one_protocol(self, net, version):
        """RFC 7857, 6: a connection lets no datagram in."""
        with TcpEcho(net.backend, 80):
            with Talk(net.client, TCP, GATEWAY[version], 8180, CLIENT[version], 26110) as talk:
                talk.say()
                assert turned_away(net.backend, BACKEND[version], 80, GATEWAY_LAN[version], 26110)
                talk.say()


@pytest.mark.usefixtures("rules")
class TestPortsRunOut:
    @FAMILIES
    @KINDS
    def test_new_flow_is_dropped(self, net, version, kind):
        """RFC 7857, 4: each port below 512 is some flow's. The next client gets none, the others keep theirs."""
        with Echo(net.backend, BACKEND[version], 80) as echo, contextlib.ExitStack() as stack:
            talks = [stack.enter_context(Talk(net.client, kind, GATEWAY[version], 8180, CLIENT[version], port))
                     for port in range(1, 512)]
            for talk in talks + talks:
                talk.say()
            with net.client.open_socket(family_of(CLIENT2[version]), kind) as late:
                late.bind((CLIENT2[version], 301))
                late.setblocking(False)
                with Sniffer(net.gateway, "wan0") as wire:
                    with contextlib.suppress(BlockingIOError):
                        late.connect((GATEWAY[version], 8180))
                        late.send(b"late")
                    wire.wait(lambda p: p.src == CLIENT2[version] and p.ports == (301, 8180))
                with Talk(net.client, kind, GATEWAY[version], 8180, CLIENT2[version], 26200) as talk:
                    talk.say()  # of another range
            for talk in talks:
                talk.say()
            assert set(echo.seen(kind)) == {(GATEWAY_LAN[version], port) for port in (*range(1, 512), 26200)}
            if isinstance(net.engine, Redirectd):
                assert net.engine.json("stats")["insert_failures"]["ports_full"] > 0


@pytest.mark.usefixtures("rules")
class TestReuse:
    @FAMILIES
    @pytest.mark.parametrize("port", [8080, 8180, 8300], ids=["dnat", "masquerade", "redirect"])
    def test_after_reset(self, net, version, port):
        ns, address, at = ((net.gateway, GATEWAY[version], 81) if port == 8300
                           else (net.backend, BACKEND[version], 80))
        with Echo(ns, address, at) as echo:
            for _ in range(4):
                with Talk(net.client, TCP, GATEWAY[version], port, CLIENT[version], 25000) as talk:
                    talk.say()
                    talk.reset()
            assert len(echo.seen(TCP)) == 4

    @FAMILIES
    @pytest.mark.parametrize("port", [8080, 8180, 8300], ids=["dnat", "masquerade", "redirect"])
    def test_after_the_server_closed(self, net, version, port):
        """The server waits in TIME_WAIT, the client's port is free at once: a SYN begins anew."""
        ns, at = (net.gateway, 81) if port == 8300 else (net.backend, 80)
        with ns.listen("::", at) as listener:
            for number in range(3):
                with Talk(net.client, TCP, GATEWAY[version], port, CLIENT[version], 25100) as talk:
                    connection, _ = listener.accept()
                    connection.sendall(b"bye %d" % number)
                    connection.close()
                    assert receive(talk.socket, 5) == b"bye %d" % number
                    assert talk.socket.recv(1) == b""
                eventually(lambda: not net.client.run("ss", "-Htan", "sport = :25100").stdout.strip(),
                           "the client's socket has gone")

    @FAMILIES
    def test_udp_port_of_another_process(self, net, version):
        """A port given up by one and taken by the next is the same flow; nothing is mixed up."""
        with Echo(net.backend, BACKEND[version], 80) as echo:
            for _ in range(3):
                with Talk(net.client, UDP, GATEWAY[version], 8180, CLIENT[version], 25200) as talk:
                    talk.say()
            assert set(echo.seen(UDP)) == {(GATEWAY_LAN[version], 25200)}

    @FAMILIES
    def test_refused_then_served(self, net, version):
        """A refused attempt leaves nothing behind that harms the next from the same port."""
        assert tcp_refused(net.client, GATEWAY[version], 8080, source=CLIENT[version], sport=25300)
        with Echo(net.backend, BACKEND[version], 80):
            with Talk(net.client, TCP, GATEWAY[version], 8080, CLIENT[version], 25300) as talk:
                talk.say()


class TestRanges:
    @pytest.fixture(scope="class")
    def ranges(self, net, engine):
        with engine(net.gateway, *dual("tcp+udp {gateway}:8000-8010 to {backend}:9000-9010",
                                       "tcp+udp {gateway}:8100-8110 to {backend}:80 masquerade",
                                       "tcp+udp {gateway}:8200-8210 to {backend}:9000-9010 masquerade")):
            yield net

    @FAMILIES
    @pytest.mark.parametrize("base", [8000, 8200], ids=["dnat", "masquerade"])
    def test_shifted(self, ranges, version, base):
        with contextlib.ExitStack() as stack:
            echoes = {p: stack.enter_context(Echo(ranges.backend, BACKEND[version], 9000 + p)) for p in (0, 5, 10)}
            for offset, echo in echoes.items():
                assert tcp_ask(ranges.client, GATEWAY[version], base + offset) == b"hello"
                assert udp_ask(ranges.client, GATEWAY[version], base + offset) == b"echo:hello"
                assert len(echo.tcp.peers) == len(echo.udp.seen) == 1
            for outside in (base - 1, base + 11):
                assert tcp_refused(ranges.client, GATEWAY[version], outside)
            assert tcp_refused(ranges.client, GATEWAY[version], base + 4)
            assert udp_refused(ranges.client, GATEWAY[version], base + 4)

    @FAMILIES
    def test_folded(self, ranges, version):
        with Echo(ranges.backend, BACKEND[version], 80) as echo:
            for port in (8100, 8105, 8110):
                assert tcp_ask(ranges.client, GATEWAY[version], port) == b"hello"
                assert udp_ask(ranges.client, GATEWAY[version], port) == b"echo:hello"
            assert len(echo.tcp.peers) == len(echo.udp.seen) == 3
        assert tcp_refused(ranges.client, GATEWAY[version], 8111)


@pytest.mark.usefixtures("rules")
class TestTimers:
    """What is left of a flow's life right after a packet; timeouts as they are by default."""

    @FAMILIES
    def test_tcp_established(self, net, version):
        """RFC 5382, REQ-5: 2 h 4 min at least. (nf_conntrack waits for the last acknowledgement.)"""
        sport = 26000 + version
        with Echo(net.backend, BACKEND[version], 80):
            with Talk(net.client, TCP, GATEWAY[version], 8180, CLIENT[version], sport) as talk:
                talk.say()
                talk.say()
                eventually(lambda: net.engine.seconds_left(sport) > 7440 - 30, "two hours of life")

    @FAMILIES
    def test_udp_stream(self, net, version):
        """RFC 4787, REQ-5 c: five minutes, once both go on talking. (nf_conntrack: two, after two seconds.)"""
        sport = 26010 + version
        with Echo(net.backend, BACKEND[version], 80):
            with Talk(net.client, UDP, GATEWAY[version], 8180, CLIENT[version], sport) as talk:
                talk.say()

                def left():
                    talk.say()
                    return net.engine.seconds_left(sport) > net.engine.udp_stream - 30
                eventually(left, f"{net.engine.udp_stream} seconds of life")

    @FAMILIES
    @pytest.mark.parametrize("way", ["outbound", "inbound"])
    def test_udp_refresh(self, net, version, way):
        """RFC 4787, REQ-6: what the client sends renews a flow's life; REQ-6 a: and what it receives."""
        sport = 26030 + version + (10 if way == "inbound" else 0)
        with net.backend.listen(BACKEND[version], 80, UDP) as service, \
             net.client.open_socket(family_of(CLIENT[version]), UDP) as s:
            s.bind((CLIENT[version], sport))
            s.connect((GATEWAY[version], 8180))
            s.send(b"hello")
            _, peer = service.recvfrom(100)
            full = net.engine.seconds_left(sport)
            low = full - 1
            eventually(lambda: net.engine.seconds_left(sport) < low, "a second goes by")

            def refreshed():
                if way == "outbound":
                    s.send(b"again")
                    service.recvfrom(100)
                else:
                    service.sendto(b"answer", peer)
                    s.recv(100)
                return net.engine.seconds_left(sport) > low
            eventually(refreshed, f"more than {low} seconds of life")

    @FAMILIES
    def test_udp_without_answer(self, net, version):
        """REQ-5 lets nobody go below two minutes; like nf_conntrack we do, by default: 30 s."""
        sport = 26020 + version
        with net.client.open_socket(family_of(CLIENT[version]), UDP) as s, net.backend.listen("::", 80, UDP) as service:
            s.bind((CLIENT[version], sport))
            s.sendto(b"hello", (GATEWAY[version], 8180))
            service.recvfrom(100)
            assert 10 < net.engine.seconds_left(sport) <= 30


class TestTimersByTheBook:
    """The configuration that CONFORMANCE.md gives to who wants the letter of RFC 4787, 5382 and 7857."""

    @pytest.fixture(scope="class")
    def daemon(self, net):
        with Daemon(net.gateway, f"tcp+udp {GATEWAY[4]}:8080 to {BACKEND[4]}:80",
                    f"tcp {GATEWAY[4]}:8081 to {NOBODY}:80", config=BY_THE_BOOK) as daemon:
            yield daemon

    def assert_lives(self, daemon, sport, states, seconds):
        def flow():
            found, = daemon.flows("--sport", sport)
            return found["state"] in states and found
        found = eventually(flow, f"a flow in {states}")
        assert seconds - 60 < found["expires_ms"] / 1000 <= seconds

    def test_udp(self, net, daemon):
        with UdpEcho(net.backend, BACKEND[4], 80), net.client.open_socket(socket.AF_INET, UDP) as s:
            s.bind((CLIENT[4], 26003))
            s.sendto(b"hello", (GATEWAY[4], 8080))
            assert s.recv(100) == b"echo:hello"
            found, = daemon.flows("--sport", 26003)
            assert 60 < found["expires_ms"] / 1000 <= 120

    def test_reset(self, net, daemon):
        with TcpEcho(net.backend, 80), Talk(net.client, TCP, GATEWAY[4], 8080, CLIENT[4], 26004) as talk:
            talk.say()
            talk.reset()
            self.assert_lives(daemon, 26004, {"CLOSE"}, 240)

    def test_partly_open(self, net, daemon):
        with net.client.open_socket(socket.AF_INET, TCP) as s:
            s.bind((CLIENT[4], 26005))
            s.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                s.connect((GATEWAY[4], 8081))
            eventually(lambda: daemon.flows("--sport", 26005), "the SYN's flow")
            self.assert_lives(daemon, 26005, {"SYN_SENT"}, 240)

    def test_half_closed_and_closing(self, net, daemon):
        """Half closed it is still established (RFC 5382, 5): only two FINs close it."""
        with net.backend.listen("::", 80) as listener:
            with net.client.connect(GATEWAY[4], 8080, source=CLIENT[4], sport=26006) as client:
                connection, _ = listener.accept()
                client.shutdown(socket.SHUT_WR)
                assert connection.recv(1) == b""
                self.assert_lives(daemon, 26006, {"CLOSE_WAIT"}, 7440)
                connection.close()
                assert client.recv(1) == b""
                self.assert_lives(daemon, 26006, {"LAST_ACK", "TIME_WAIT"}, 240)
