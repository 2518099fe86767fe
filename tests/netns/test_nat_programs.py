# SPDX-License-Identifier: GPL-2.0-or-later
"""Real programs through DNAT with masquerade, and through a plain redirect.

HTTP, TLS, DNS over UDP and TCP, a database, a terminal session, QUIC: whatever they rely on that no
test of ours thinks of. Every case through nftables and through redirectd.
"""

import hashlib
import shutil

import pytest

from gateway import GATEWAY, dual
from netns import host
from peers import Nginx, curl, random_file
from programs import Dialogue, Dnsmasq, QuicServer, Redis, Sshd, certificate

FAMILIES = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
SERVICES = {8080: 80, 8443: 443, 5300: 53, 16379: 6379, 2222: 22, 4433: 4434}
RULES = {"masquerade": "tcp+udp {{gateway}}:{} to {{backend}}:{} masquerade",
         "redirect": "tcp+udp {{gateway}}:{} to {}"}
SIZE = 8 << 20


@pytest.fixture(scope="module", params=RULES)
def net(request, gateway, engine):
    """`server` is where the services run."""
    gateway.server = gateway.gateway if request.param == "redirect" else gateway.backend
    rules = [RULES[request.param].format(*ports) for ports in SERVICES.items()]
    with engine(gateway.gateway, *dual(*rules)):
        yield gateway


class TestWeb:
    @pytest.fixture(scope="class")
    def web(self, net, tmp_path_factory):
        folder = tmp_path_factory.mktemp("www")
        net.digest = random_file(folder / "noise", SIZE)
        for n in range(20):
            (folder / f"page{n}").write_text(f"page {n}\n" * 100)
        keys = str(tmp_path_factory.mktemp("keys"))
        certificate(keys, *GATEWAY.values())
        net.keys = keys
        with Nginx(net.server, 80, folder, str(tmp_path_factory.mktemp("nginx"))):
            with Nginx(net.server, 443, folder, str(tmp_path_factory.mktemp("nginx")), tls=keys):
                yield net

    @FAMILIES
    def test_http_keepalive(self, web, version):
        """Twenty requests over one connection of HTTP/1.1."""
        urls = [f"http://{host(GATEWAY[version])}:8080/page{n}" for n in range(20)]
        body = curl(web.client, urls[-1], "--http1.1", "-w", "%{num_connects}\n", *urls[:-1]).decode()
        pages = body.split("page")[1:]
        assert [int(page.split()[0]) for page in pages[::100]] == list(range(20))
        connects = [int(page.split()[1]) for page in pages[99::100]]
        assert connects == [1] + 19 * [0]

    @FAMILIES
    def test_http_large_file(self, web, version):
        body = curl(web.client, f"http://{host(GATEWAY[version])}:8080/noise", "--http1.1")
        assert hashlib.sha256(body).hexdigest() == web.digest

    @FAMILIES
    def test_tls(self, web, version):
        """The certificate names the address that the client asks."""
        url = f"https://{host(GATEWAY[version])}:8443"
        authority = ("--cacert", f"{web.keys}/cert.pem")
        assert curl(web.client, f"{url}/page7", *authority) == b"page 7\n" * 100
        assert hashlib.sha256(curl(web.client, f"{url}/noise", *authority)).hexdigest() == web.digest

    @FAMILIES
    def test_openssl_renegotiates_keys(self, web, version):
        """An openssl session in which the client asks for new keys and goes on (TLS 1.3)."""
        with Dialogue(web.client, "openssl", "s_client", "-tls1_3", "-CAfile", f"{web.keys}/cert.pem",
                      "-verify_return_error", "-connect", f"{host(GATEWAY[version])}:8443") as session:
            session.hear("Verify return code: 0")
            session.say("K\n")
            session.hear("KEYUPDATE")
            session.say("GET /page3 HTTP/1.0\n\n")
            session.hear("page 3\n" * 100)


class TestDns:
    @pytest.fixture(scope="class")
    def dns(self, net):
        with Dnsmasq(net.server):
            yield net

    @FAMILIES
    @pytest.mark.parametrize("transport", ["+notcp", "+tcp"], ids=["udp", "tcp"])
    def test_addresses(self, dns, version, transport):
        for kind, answer in (("A", Dnsmasq.A), ("AAAA", Dnsmasq.AAAA)):
            shown = dns.client.run("dig", "+short", transport, "-p", "5300", f"@{GATEWAY[version]}", "web.test", kind)
            assert shown.stdout.split() == [answer]

    @FAMILIES
    def test_answer_in_fragments(self, dns, version):
        shown = dns.client.run("dig", "+notcp", "+ignore", "+bufsize=4096", "-p", "5300", f"@{GATEWAY[version]}",
                               "big.test", "TXT").stdout
        assert all(text in shown for text in Dnsmasq.BIG)
        assert "(UDP)" in shown

    @FAMILIES
    def test_truncated_then_tcp(self, dns, version):
        shown = dns.client.run("dig", "+bufsize=512", "-p", "5300", f"@{GATEWAY[version]}", "big.test", "TXT").stdout
        assert "Truncated, retrying in TCP mode" in shown
        assert all(text in shown for text in Dnsmasq.BIG)
        assert "(TCP)" in shown


class TestDatabase:
    @pytest.fixture(scope="class")
    def redis(self, net, tmp_path_factory):
        with Redis(net.server, str(tmp_path_factory.mktemp("redis"))):
            yield net

    @FAMILIES
    def test_session(self, redis, version):
        """Commands of one session, one of them large, while another session waits for messages."""
        place = ("redis-cli", "-h", GATEWAY[version], "-p", "16379")
        with Dialogue(redis.client, *place, "SUBSCRIBE", "news") as listening:
            listening.hear("subscribe\nnews\n1")
            with Dialogue(redis.client, *place) as session:
                session.say("SET key value\n")
                session.hear("OK")
                session.say(f"SET large {'x' * 1000000}\nSTRLEN large\n")
                session.hear("1000000")
                for number in range(5):
                    session.say(f"PUBLISH news number-{number}\n")
                    listening.hear(f"number-{number}")
                session.say("GET key\n")
                session.hear("value")

    @FAMILIES
    def test_mass_insertion(self, redis, version):
        """20,000 commands without waiting for answers."""
        commands = "".join(f"SET k{n} {n}\r\n" for n in range(20000))
        shown = redis.client.run("redis-cli", "-h", GATEWAY[version], "-p", "16379", "--pipe", input=commands)
        assert "errors: 0, replies: 20000" in shown.stdout


class TestTerminal:
    @pytest.fixture(scope="class")
    def ssh(self, net, tmp_path_factory):
        folder = tmp_path_factory.mktemp("ssh")
        with Sshd(net.server, str(folder)) as net.sshd:
            yield net

    @FAMILIES
    def test_session(self, ssh, version):
        """A shell on a terminal; silence, typing and floods of output in turn."""
        with Dialogue(ssh.client, *ssh.sshd.client(GATEWAY[version], 2222, "-tt")) as shell:
            shell.say("PS1=; stty -echo; echo ready=$((40 + 2))\n")
            shell.hear("ready=42")
            for number in range(3):
                shell.say(f"seq 1 20000; echo done={number}=$((6 * 7))\n")
                assert b"\n20000\r" in shell.hear(f"done={number}=42")
                shell.say("cat\n")
                for word in ("one", "two", "three"):
                    shell.say(f"{word}\n")
                    shell.hear(word)
                shell.say("\x04")
            shell.say("exit\n")
            shell.hear("logout")
            assert shell.process.wait(10) == 0

    @FAMILIES
    def test_command_with_data(self, ssh, version, tmp_path):
        digest = random_file(tmp_path / "noise", 4 << 20)
        with open(tmp_path / "noise", "rb") as noise:
            shown = ssh.client.run(*ssh.sshd.client(GATEWAY[version], 2222), "sha256sum", stdin=noise)
        assert shown.stdout.split()[0] == digest


class TestQuic:
    @pytest.fixture(scope="class")
    def quic(self, net, tmp_path_factory):
        if not shutil.which("gtlsserver"):  # not every distribution has them
            pytest.skip("gtlsserver and gtlsclient of ngtcp2 are not installed")
        folder = tmp_path_factory.mktemp("quic")
        certificate(folder, *GATEWAY.values())
        net.digest = random_file(folder / "noise", 3 << 20)
        with QuicServer(net.server, 4434, str(folder)):
            yield net

    @FAMILIES
    def test_download(self, quic, version, tmp_path):
        quic.client.run("gtlsclient", "-q", "--download", tmp_path, "--exit-on-all-streams-close",
                        GATEWAY[version], "4433", f"https://{host(GATEWAY[version])}:4433/noise")
        assert hashlib.sha256((tmp_path / "noise").read_bytes()).hexdigest() == quic.digest
