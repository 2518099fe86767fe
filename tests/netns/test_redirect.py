# SPDX-License-Identifier: GPL-2.0-or-later
"""The redirect itself: real clients, real servers, both protocols, both families."""

import hashlib
import json
import os

import pytest

from netns import Pair, Thread, host
from peers import (Nginx, Socat, Stream, TcpEcho, UdpEcho, Upload, curl, random_file, tcp_ask,
                   tcp_refused, udp_ask, upload)
from redirectd import Daemon

BOTH = pytest.mark.parametrize("server", Pair.SERVERS, ids=["ipv4", "ipv6"])
LOCAL = pytest.mark.parametrize("address", ["127.0.0.1", "::1", *Pair.SERVERS])
SIZE = 64 << 20


@pytest.fixture(scope="class")
def net(any_pair):
    """Redirects 8080→80 for both protocols and a few more for the peers of single tests."""
    with Daemon(any_pair.server, "tcp+udp 8080 to 80 name web", "tcp 9000 to 9001 name upload",
                "tcp+udp 6000 to 5201 name iperf", "tcp+udp 7000 to 7001 name socat") as daemon:
        any_pair.daemon = daemon
        yield any_pair


@pytest.fixture(scope="class")
def page(net, tmp_path_factory):
    """nginx on port 80 with a small page and 64 MiB of noise."""
    folder = tmp_path_factory.mktemp("www")
    (folder / "index.html").write_text("hello from nginx\n")
    net.digest = random_file(folder / "noise", SIZE)
    net.noise = folder / "noise"
    with Nginx(net.server, 80, folder, str(tmp_path_factory.mktemp("nginx"))):
        yield net


def receive_buffer_errors(ns):
    """Datagrams for which a socket of the namespace had no room, of both families."""
    v4 = [line.split() for line in ns.run("cat", "/proc/net/snmp").stdout.splitlines() if line.startswith("Udp:")]
    v6 = dict(line.split() for line in ns.run("cat", "/proc/net/snmp6").stdout.splitlines())
    return int(dict(zip(*v4))["RcvbufErrors"]) + int(v6["Udp6RcvbufErrors"])


class TestRedirect:
    @BOTH
    def test_curl_nginx(self, page, server):
        assert curl(page.client, f"http://{host(server)}:8080/") == b"hello from nginx\n"

    @BOTH
    def test_target_port_still_answers_directly(self, page, server):
        assert curl(page.client, f"http://{host(server)}:80/") == b"hello from nginx\n"

    @BOTH
    def test_download_is_unharmed(self, page, server):
        body = curl(page.client, f"http://{host(server)}:8080/noise")
        assert len(body) == SIZE
        assert hashlib.sha256(body).hexdigest() == page.digest

    @BOTH
    def test_upload_is_unharmed(self, page, server):
        with Upload(page.server, 9001):
            assert upload(page.client, server, 9000, page.noise) == page.digest

    @BOTH
    def test_many_clients_at_once(self, page, server):
        def fetch(number):
            url = f"http://{host(server)}:{8080 if number % 4 else 80}/"
            return curl(page.client, url) == b"hello from nginx\n"
        threads = [Thread(fetch, n) for n in range(24)]
        assert all(t.result() for t in threads)

    @BOTH
    def test_same_client_port_direct_and_redirected(self, net, server):
        """The client's port talks to 7001 directly and to 7000 → 7001: two connections."""
        with TcpEcho(net.server, 7001):
            with net.client.connect(server, 7001, sport=45678) as direct:
                direct.sendall(b"direct")
                assert direct.recv(100) == b"direct"
                assert tcp_ask(net.client, server, 7000, sport=45679) == b"hello"
                direct.sendall(b"still")
                assert direct.recv(100) == b"still"

    @BOTH
    def test_udp(self, net, server):
        with UdpEcho(net.server, server, 80) as echo:
            assert udp_ask(net.client, server, 8080) == b"echo:hello"
            assert udp_ask(net.client, server, 80) == b"echo:hello"
            assert len(echo.seen) == 2

    @BOTH
    def test_udp_large_datagram_is_fragmented(self, net, server):
        """Only the first fragment has ports; the rest must follow it through."""
        message = os.urandom(9000)
        with UdpEcho(net.server, server, 80):
            assert udp_ask(net.client, server, 8080, message) == b"echo:" + message

    @BOTH
    def test_udp_empty_datagram(self, net, server):
        with UdpEcho(net.server, server, 80):
            assert udp_ask(net.client, server, 8080, b"") == b"echo:"

    @LOCAL
    def test_local_client_tcp(self, page, address):
        assert curl(page.server, f"http://{host(address)}:8080/") == b"hello from nginx\n"

    @LOCAL
    def test_local_client_udp(self, net, address):
        with UdpEcho(net.server, address, 80):
            assert udp_ask(net.server, address, 8080) == b"echo:hello"

    @BOTH
    def test_nobody_listens_is_refused(self, net, server):
        """A reset comes back from the port that was asked."""
        assert tcp_refused(net.client, server, 9000)

    @BOTH
    def test_other_ports_are_left_alone(self, net, server):
        with TcpEcho(net.server, 8081):
            assert tcp_ask(net.client, server, 8081) == b"hello"
        assert tcp_refused(net.client, server, 8082)

    @BOTH
    @pytest.mark.parametrize("protocol", ["TCP", "UDP"])
    def test_socat(self, net, server, protocol):
        listen = f"{protocol}6-LISTEN:7001,fork,reuseaddr,ipv6only=0"
        with Socat(net.server, listen, "EXEC:cat", 7001, protocol[0].lower()):
            answer = net.client.run("socat", "-t", "2", "-", f"{protocol}:{host(server)}:7000",
                                    input="through socat\n")
            assert answer.stdout == "through socat\n"

    @BOTH
    @pytest.mark.parametrize("options", [[], ["-R"], ["-u", "-b", "50M", "-l", "1200"]],
                             ids=["tcp", "tcp-reverse", "udp"])
    def test_iperf3(self, net, server, options):
        """iperf3 opens a control and a data flow to the same port; both go through.

        Nothing is lost but what iperf3's server did not read in time.
        """
        unread = receive_buffer_errors(net.server)
        daemon = net.server.popen("iperf3", "-s", "-1", "-p", "5201", stdout=-3)
        net.server.wait_listening(5201)
        report = json.loads(net.client.run("iperf3", "-J", "-c", server, "-p", "6000", "-t", "1",
                                           *options).stdout)
        daemon.wait(30)
        assert "error" not in report
        total = report["end"]["sum" if "-u" in options else "sum_received"]
        assert total["bytes"] > 1 << 20
        if "-u" in options:
            assert total["lost_packets"] <= receive_buffer_errors(net.server) - unread

    @BOTH
    def test_half_closed_connection(self, net, server):
        """The client's FIN must not end what the server still sends."""
        with net.server.listen("::", 9001) as listener:
            with net.client.connect(server, 9000) as client:
                connection, _ = listener.accept()
                client.shutdown(1)
                assert connection.recv(10) == b""
                for _ in range(5):
                    connection.sendall(b"x" * 10000)
                connection.close()
                received = 0
                while data := client.recv(65536):
                    received += len(data)
                assert received == 50000

    @BOTH
    def test_peer_sees_the_client(self, net, server):
        """The service sees the client's own address and port: nothing is proxied."""
        with net.server.listen("::", 9001) as listener, net.client.connect(server, 9000) as client:
            connection, peer = listener.accept()
            connection.close()
            assert peer[0].removeprefix("::ffff:") == client.getsockname()[0]
            assert peer[1] == client.getsockname()[1]

    @BOTH
    def test_long_connection_beside_many_short_ones(self, net, server):
        with TcpEcho(net.server, 7001):
            with Stream(net.client, server, 7000) as stream:
                for _ in range(50):
                    assert tcp_ask(net.client, server, 7000) == b"hello"
                stream.must_go_on()
