# SPDX-License-Identifier: GPL-2.0-or-later
"""What a change of rules does to the flows that are there: `on-change keep | drain | reset`.

A reset is told to both ends, whichever of them sends next, wherever the packets are translated.
"""

import contextlib
import signal
import socket
import time

import pytest

from gateway import BACKEND, GATEWAY, Gateway
from netns import Pair, eventually, family_of, host
from peers import UdpEcho, receive, tcp_refused
from redirectd import Daemon

FAMILIES = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
NOBODY = {4: "192.0.2.77", 6: "2001:db8::77"}  # of the clients
SERVERS = {4: Pair.SERVER4, 6: Pair.SERVER6}


class Connection:
    """A TCP connection of which the test has both ends."""

    def __init__(self, client_ns, address, port, server_ns, server_port):
        with server_ns.listen("::", server_port) as listener:
            self.client = client_ns.connect(address, port)
            self.server, _ = listener.accept()
            for end in (self.client, self.server):
                end.settimeout(5)

    def __enter__(self):
        self.goes_on()
        return self

    def __exit__(self, *_):
        self.client.close()
        self.server.close()

    def ends(self):
        return {"client": self.client, "server": self.server}

    def goes_on(self):
        for one, other in ((self.client, self.server), (self.server, self.client)):
            one.sendall(b"hello")
            assert receive(other, 5) == b"hello"

    def is_reset(self, by):
        """That end sends; both then know."""
        self.ends()[by].sendall(b"more")
        for name, end in self.ends().items():
            with pytest.raises(ConnectionResetError):
                end.recv(100)
                pytest.fail(f"the {name}'s end goes on")


def on_the_way(pair, version):
    """To a port of the host that the packets come to."""
    return Daemon(pair.server, config=""), (pair.client, SERVERS[version], 8080, pair.server, 80), "tcp 8080 to 80"


def at_home(pair, version):
    """The same from this host."""
    return Daemon(pair.server, config=""), (pair.server, SERVERS[version], 8080, pair.server, 80), "tcp 8080 to 80"


def dnat(gateway, version):
    return (Daemon(gateway.gateway, config=""), (gateway.client, GATEWAY[version], 8080, gateway.backend, 80),
            f"tcp 8080 to {host(BACKEND[version])}:80")


def masqueraded(gateway, version):
    daemon, ends, rule = dnat(gateway, version)
    return daemon, ends, rule + " masquerade"


def from_the_gateway(gateway, version):
    gateway.gateway.sysctl("ipv4/conf/lo/accept_local", 1)
    return (Daemon(gateway.gateway, config=""), (gateway.gateway, GATEWAY[version], 8080, gateway.backend, 80),
            f"tcp 8080 to {host(BACKEND[version])}:80")


ALL_WAYS = [(way, offloads) for way in (on_the_way, at_home, dnat, masqueraded, from_the_gateway)
            for offloads in ("offloads", "plain")]
TWO_WAYS = [(on_the_way, "offloads"), (masqueraded, "plain")]


@pytest.fixture(scope="module")
def nets():
    """The namespaces that a way asks for, made once."""
    made = {}
    with contextlib.ExitStack() as stack:
        def net(way, offloads):
            kind = Pair if way in (on_the_way, at_home) else Gateway
            if (kind, offloads) not in made:
                made[kind, offloads] = stack.enter_context(
                    Pair(offloads == "offloads") if kind is Pair else Gateway(offloads))
            return made[kind, offloads]
        yield net


@pytest.fixture
def way(request, nets):
    net = nets(*request.param)
    return lambda version: request.param[0](net, version)


def ways(parameters):
    return pytest.mark.parametrize("way", parameters, indirect=True, ids=lambda p: f"{p[0].__name__}-{p[1]}")


@FAMILIES
class TestReset:
    @ways(ALL_WAYS)
    @pytest.mark.parametrize("by", ["client", "server"])
    def test_both_ends_are_told(self, way, version, by):
        daemon, ends, rule = way(version)
        with daemon:
            daemon.add(f"{rule} name r on-change reset")
            with Connection(*ends) as connection:
                daemon.ctl("remove", "r")
                connection.is_reset(by)
            assert daemon.json("stats")["drops"]["reset"] >= 1
            daemon.add(f"{rule} name r")
            with Connection(*ends) as connection:
                connection.goes_on()

    @ways(TWO_WAYS)
    def test_idle_end_is_told_of_large_packets(self, way, version):
        """What the ends have in flight is answered as well, however large it is."""
        daemon, ends, rule = way(version)
        with daemon:
            daemon.add(f"{rule} name r on-change reset")
            with Connection(*ends) as connection:
                daemon.ctl("remove", "r")
                with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                    for _ in range(100):
                        connection.client.sendall(b"x" * 65536)
                with pytest.raises(ConnectionResetError):
                    while connection.server.recv(65536):
                        pass

    @ways(TWO_WAYS)
    def test_the_same_port_begins_anew(self, way, version):
        """A new connection of the same client port goes to where the rules say now."""
        daemon, ends, rule = way(version)
        with daemon:
            daemon.add(f"{rule} name r on-change reset")
            with Connection(*ends) as connection:
                sport = connection.client.getsockname()[1]
                daemon.ctl("replace", "r", *f"{elsewhere(rule)} name r on-change reset".split())
                connection.is_reset("client")
            with ends[3].listen("::", 81) as listener, \
                    ends[0].connect(ends[1], ends[2], sport=sport) as client:
                server, _ = listener.accept()
                with server:
                    client.sendall(b"hello")
                    assert receive(server, 5) == b"hello"

    @ways(TWO_WAYS)
    def test_who_decides(self, way, version):
        """Of a change the new rule's word counts; and what leaves a flow right leaves it alone."""
        daemon, ends, rule = way(version)
        with daemon:
            daemon.add(f"{rule} name r")
            with Connection(*ends) as connection:
                daemon.ctl("replace", "r", *f"{rule} name q max-flows 5 on-change reset".split())
                connection.goes_on()
                daemon.add(f"{rule} from {NOBODY[version]} name s")
                connection.goes_on()
                daemon.ctl("replace", "q", *f"{elsewhere(rule)} name q".split())
                connection.goes_on()
            with Connection(*ends[:4], 81) as connection:
                daemon.ctl("replace", "q", *f"{rule} name q on-change reset".split())
                connection.is_reset("server")

    @ways(TWO_WAYS)
    @pytest.mark.parametrize("change", ["disable", "remove"])
    def test_without_a_daemon(self, way, version, change):
        daemon, ends, rule = way(version)
        with daemon:
            daemon.add(f"{rule} name r on-change reset")
            with Connection(*ends) as connection:
                daemon.ctl(change, "r")
                daemon.end(signal.SIGKILL)
                connection.is_reset("client")
            daemon.start()

    @ways(TWO_WAYS)
    def test_changed_while_no_daemon_ran(self, way, version):
        daemon, ends, rule = way(version)
        daemon.write(f"redirect {rule} name r on-change reset\n")
        with daemon:
            with Connection(*ends) as connection:
                daemon.end(signal.SIGUSR2)
                daemon.start()
                connection.goes_on()
                daemon.end(signal.SIGKILL)
                daemon.write(f"redirect {elsewhere(rule)} name r on-change reset\n")
                connection.goes_on()
                daemon.start()
                connection.is_reset("server")


def elsewhere(rule):
    """The same rule to port 81."""
    return f"{rule} ".replace("80 ", "81 ").replace("8081 ", "8080 ").strip()


def ended_after(began, seconds, goes_on, ends):
    """The flow lives as long, and not for ever."""
    while time.monotonic() < began + seconds - 0.5:
        goes_on()
        time.sleep(0.2)
    eventually(ends, "the flow has ended")


@FAMILIES
class TestDrain:
    @ways(TWO_WAYS)
    def test_tcp(self, way, version):
        daemon, ends, rule = way(version)
        with daemon:
            daemon.add(f"{rule} name r on-change drain 3s")
            with Connection(*ends) as connection:
                began = time.monotonic()
                daemon.ctl("remove", "r")
                assert tcp_refused(*ends[:3])

                def over():
                    connection.client.sendall(b"x")
                    return not receive(connection.server, 1)

                with pytest.raises((ConnectionResetError, BrokenPipeError)):
                    ended_after(began, 3, connection.goes_on, over)
                assert time.monotonic() >= began + 3, "it was to live for three seconds"
                for end in connection.ends().values():
                    with pytest.raises((ConnectionResetError, BrokenPipeError)):
                        while end.recv(100):
                            pass
                        end.sendall(b"x")

    @ways(TWO_WAYS)
    def test_without_a_daemon(self, way, version):
        daemon, ends, rule = way(version)
        with daemon:
            daemon.add(f"{rule} name r on-change drain 2s")
            with Connection(*ends) as connection:
                daemon.ctl("remove", "r")
                daemon.end(signal.SIGKILL)
                connection.goes_on()
                time.sleep(2.5)
                connection.is_reset("server")
            daemon.start()


@FAMILIES
class TestUdp:
    """Two servers tell by their answers where a datagram went."""

    @pytest.fixture
    def servers(self, pair, version):
        with UdpEcho(pair.server, SERVERS[version], 53, b"53:"), \
                UdpEcho(pair.server, SERVERS[version], 54, b"54:"), \
                pair.client.open_socket(family_of(SERVERS[version]), socket.SOCK_DGRAM) as client:
            client.connect((SERVERS[version], 5300))

            def ask():
                client.send(b"q")
                return client.recv(10)

            yield ask

    @pytest.mark.parametrize("policy", ["", " on-change keep", " on-change reset"])
    def test_follows_at_once(self, pair, servers, version, policy):
        with Daemon(pair.server, f"udp 5300 to 53 name u{policy}") as daemon:
            assert servers() == b"53:q"
            daemon.ctl("replace", "u", *f"udp 5300 to 54 name u{policy}".split())
            assert servers() == b"54:q"

    def test_drains(self, pair, servers, version):
        with Daemon(pair.server, "udp 5300 to 53 name u on-change drain 2s") as daemon:
            assert servers() == b"53:q"
            began = time.monotonic()
            daemon.ctl("replace", "u", *"udp 5300 to 54 name u on-change drain 2s".split())
            eventually(lambda: servers() == b"54:q", "the flow follows the new rule")
            assert time.monotonic() >= began + 2, "it was to stay for two seconds"


@FAMILIES
class TestTargetsThatGo:
    def test_removed_target_keeps_its_connections(self, pair, version):
        with Daemon(pair.server, "tcp 8080 to 81,82 name t") as daemon, \
                pair.server.listen("::", 81) as one, pair.server.listen("::", 82) as other:
            clients = [pair.client.connect(SERVERS[version], 8080) for _ in range(20)]
            kept = [c for listener in (one, other) for c in accept_all(listener)]
            assert len(kept) == 20
            daemon.ctl("replace", "t", *"tcp 8080 to 82 name t".split())
            for client in clients:
                client.sendall(b"hello")
            assert all(receive(server, 5) == b"hello" for server in kept)
            with pair.client.connect(SERVERS[version], 8080), pytest.raises(TimeoutError):
                one.settimeout(0.2)
                one.accept()
            for s in (*clients, *kept):
                s.close()

    def test_target_of_weight_0_gets_no_new_ones(self, pair, version):
        """UDP flows stay, too: the target is still the rule's."""
        with Daemon(pair.server, "udp 5300 to 53,54 name t") as daemon, \
                UdpEcho(pair.server, SERVERS[version], 53, b"53:"), \
                UdpEcho(pair.server, SERVERS[version], 54, b"54:"), contextlib.ExitStack() as stack:
            def client():
                s = stack.enter_context(pair.client.open_socket(family_of(SERVERS[version]), socket.SOCK_DGRAM))
                s.connect((SERVERS[version], 5300))
                return s

            def ask(s):
                s.send(b"q")
                return s.recv(10)

            before = {s: ask(s) for s in (client() for _ in range(20))}
            assert set(before.values()) == {b"53:q", b"54:q"}
            daemon.ctl("replace", "t", *"udp 5300 to 53,54 weight 0 name t".split())
            assert {s: ask(s) for s in before} == before
            assert {ask(client()) for _ in range(20)} == {b"53:q"}


def accept_all(listener):
    """What is waiting there."""
    listener.settimeout(0.5)
    accepted = []
    with contextlib.suppress(TimeoutError):
        while True:
            accepted.append(listener.accept()[0])
    for connection in accepted:
        connection.settimeout(10)
    return accepted
