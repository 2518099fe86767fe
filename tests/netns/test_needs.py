# SPDX-License-Identifier: GPL-2.0-or-later
"""What rules need of the host and do not find there is in the log, once, with what to do.

The command of each message is run, and then the packets go through.
"""

import re
import signal
import socket

import pytest

from netns import Namespace, Pair, eventually, veth
from peers import TcpEcho, tcp_ask
from redirectd import Daemon

BEHIND4, BEHIND6 = "198.51.100.2", "2001:db8:1::2"


@pytest.fixture
def hosts():
    """A pair whose server is also a router, to a host behind it that answers through it."""
    with Pair() as pair, Namespace("b") as behind:
        veth(pair.server, "back", ["198.51.100.1/24", "2001:db8:1::1/64"], behind, "eth0",
             [f"{BEHIND4}/24", f"{BEHIND6}/64"])
        behind.run("ip", "route", "add", "default", "via", "198.51.100.1")
        behind.run("ip", "-6", "route", "add", "default", "via", "2001:db8:1::1")
        pair.server.sysctl("ipv4/ip_forward", 0)
        pair.server.sysctl("ipv6/conf/all/forwarding", 0)
        pair.behind = behind
        yield pair


def remedies(daemon):
    """The commands in the log."""
    return re.findall(r"rule \d+ .*\brun: (sysctl .*)", daemon.log())


def obey(hosts, daemon):
    for command in remedies(daemon):
        hosts.server.run(*command.split())


class TestForwarding:
    @pytest.mark.parametrize("rule, commands, address", [
        (f"tcp 8080 to {BEHIND4}:80 on eth0", ["sysctl -w net.ipv4.ip_forward=1"], Pair.SERVER4),
        (f"tcp 8080 to [{BEHIND6}]:80 on eth0", ["sysctl -w net.ipv6.conf.all.forwarding=1"], Pair.SERVER6),
        (f"tcp 8080 to {BEHIND4}:80,81 masquerade on eth0,back", ["sysctl -w net.ipv4.ip_forward=1"],
         Pair.SERVER4),
        (f"tcp 8080 to {BEHIND4}:80", ["sysctl -w net.ipv4.ip_forward=1",
                                       "sysctl -w net.ipv4.conf.lo.accept_local=1"], Pair.SERVER4),
        (f"tcp 8080 to [{BEHIND6}]:80", ["sysctl -w net.ipv6.conf.all.forwarding=1"], Pair.SERVER6)])
    def test_off(self, hosts, rule, commands, address):
        with Daemon(hosts.server, rule) as daemon, TcpEcho(hosts.behind, 80), TcpEcho(hosts.server, 81):
            assert remedies(daemon) == commands
            obey(hosts, daemon)
            assert tcp_ask(hosts.client, address, 8080) == b"hello"

    @pytest.mark.parametrize("rule, commands, addresses", [
        (f"tcp 8080 to {BEHIND4}:80 on lo", ["sysctl -w net.ipv4.ip_forward=1",
                                             "sysctl -w net.ipv4.conf.lo.accept_local=1",
                                             "sysctl -w net.ipv4.conf.lo.route_localnet=1"],
         (Pair.SERVER4, "127.0.0.1")),
        (f"tcp 8080 to [{BEHIND6}]:80 on lo", ["sysctl -w net.ipv6.conf.all.forwarding=1"],
         (Pair.SERVER6, "::1"))])
    def test_clients_of_this_host(self, hosts, rule, commands, addresses):
        with Daemon(hosts.server, rule) as daemon, TcpEcho(hosts.behind, 80):
            assert remedies(daemon) == commands
            obey(hosts, daemon)
            for address in addresses:
                assert tcp_ask(hosts.server, address, 8080) == b"hello", address

    def test_nothing_is_missing(self, hosts):
        for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/lo/accept_local",
                        "ipv4/conf/lo/route_localnet"):
            hosts.server.sysctl(setting, 1)
        with Daemon(hosts.server, f"tcp 8080 to {BEHIND4}:80", f"tcp 8081 to [{BEHIND6}]:80",
                    f"tcp 8082 to {Pair.SERVER4}:80", f"tcp 8083 to {BEHIND4}:80 on lo") as daemon:
            assert not re.search(r"rule \d", daemon.log()), daemon.log()

    def test_none_for_own_targets(self, hosts):
        with Daemon(hosts.server, f"tcp 8080 to {Pair.SERVER4}:80", "tcp 8081 to 80") as daemon:
            assert not re.search(r"rule \d", daemon.log()), daemon.log()

    def test_told_once(self, hosts):
        with Daemon(hosts.server, config=f"redirect tcp 8080 to {BEHIND4}:80 on eth0\n") as daemon:
            daemon.write(f"redirect tcp 8080 to {BEHIND4}:81 on eth0\n")
            daemon.process.send_signal(signal.SIGHUP)
            daemon.logged("reloaded")
            daemon.add(f"tcp 8082 to {BEHIND4}:80 on eth0")
            assert len(remedies(daemon)) == 1
            daemon.add(f"tcp 8083 to [{BEHIND6}]:80 on eth0")
            assert len(remedies(daemon)) == 2

    def test_later_interface(self, hosts):
        """A rule's interface that is not there needs nothing until it comes."""
        with Daemon(hosts.server, f"tcp 8080 to {BEHIND4}:80 on late") as daemon:
            assert not remedies(daemon)
            hosts.server.run("ip", "link", "add", "late", "type", "veth", "peer", "name", "late-peer")
            eventually(lambda: remedies(daemon) == ["sysctl -w net.ipv4.ip_forward=1"],
                       "it is told of")


class TestLoopbackTargets:
    @pytest.mark.parametrize("on", ["", " on eth0"])
    def test_route_localnet(self, hosts, on):
        with Daemon(hosts.server, f"tcp 8080 to 127.0.0.1:80{on}") as daemon, \
                hosts.server.listen("127.0.0.1", 80) as listener:
            where = "eth0" if on else "all"
            assert remedies(daemon) == [f"sysctl -w net/ipv4/conf/{where}/route_localnet=1"]
            obey(hosts, daemon)
            client = hosts.client.connect(Pair.SERVER4, 8080)
            server, _ = listener.accept()
            server.sendall(b"answer")
            assert client.recv(10) == b"answer"
            for s in (client, server):
                s.close()

    def test_interface_with_dots(self, hosts):
        hosts.server.run("ip", "link", "add", "eth0.7", "type", "veth", "peer", "name", "eth0.8")
        with Daemon(hosts.server, "tcp 8080 to 127.0.0.1:80 on eth0.7") as daemon:
            assert remedies(daemon) == ["sysctl -w net/ipv4/conf/eth0.7/route_localnet=1"]
            obey(hosts, daemon)
        with Daemon(hosts.server, "tcp 8080 to 127.0.0.1:80 on eth0.7") as daemon:
            assert not remedies(daemon)

    def test_only_from_lo(self, hosts):
        with Daemon(hosts.server, "tcp 8080 to 127.0.0.1:80 on lo", "tcp 8081 to [::1]:80 on lo") as daemon:
            assert not re.search(r"rule \d", daemon.log()), daemon.log()

    def test_ipv6_cannot_be_helped(self, hosts):
        with Daemon(hosts.server, "tcp 8080 to [::1]:80") as daemon:
            assert "add to the rule: on lo" in daemon.log()


class TestSource:
    def test_snat_to_a_foreign_address(self, hosts):
        hosts.server.sysctl("ipv4/ip_forward", 1)
        with Daemon(hosts.server, f"udp 53 to {BEHIND4}:53 snat 203.0.113.9 on eth0") as daemon:
            command, = re.findall(r"rule 1 .* run: (ip address add .*)", daemon.log())
            hosts.server.run(*command.split())
            hosts.behind.run("ip", "route", "add", "203.0.113.9", "via", "198.51.100.1")
            with hosts.behind.listen(BEHIND4, 53, socket.SOCK_DGRAM) as server, \
                    hosts.client.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"q", (Pair.SERVER4, 53))
                data, source = server.recvfrom(10)
                assert source[0] == "203.0.113.9"
                server.sendto(data, source)
                assert client.recvfrom(10) == (b"q", (Pair.SERVER4, 53))

    def test_own_address(self, hosts):
        hosts.server.sysctl("ipv4/ip_forward", 1)
        with Daemon(hosts.server, f"udp 53 to {BEHIND4}:53 snat 198.51.100.1 on eth0") as daemon:
            assert "is no address of this host" not in daemon.log()
