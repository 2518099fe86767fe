# SPDX-License-Identifier: GPL-2.0-or-later
"""redirectctl doctor: each check finds its fault, its command mends it, and a sound host has none."""

import json
import os
import signal
import socket

import jsonschema
import pytest

from netns import Namespace, Pair, eventually, veth
from peers import TcpEcho, tcp_ask
from redirectd import EXIT_FAILED, NOBODY, REDIRECTCTL, Daemon

HERE = os.path.dirname(os.path.abspath(__file__))
BEHIND4 = "198.51.100.2"

with open(os.path.join(HERE, "schemas", "doctor.json"), encoding="utf-8") as schema_file:
    SCHEMA = json.load(schema_file)


class Doctor:
    """What `redirectctl doctor` says in the daemon's namespace."""

    def __init__(self, daemon, *arguments, code=0, prefix=()):
        done = daemon.ns.run(*prefix, REDIRECTCTL, "-j", "-s", daemon.socket, "doctor", *arguments, check=False)
        self.answer = json.loads(done.stdout)
        assert code is None or done.returncode == code, done.stdout
        jsonschema.validate(self.answer, SCHEMA)

    def bad(self):
        return {f["check"] for f in self.answer["findings"] if f["severity"] not in ("ok", "info")}

    def find(self, check):
        return [f for f in self.answer["findings"] if f["check"] == check and f["severity"] != "ok"]

    def only(self, check):
        """The one finding, of that check."""
        assert self.bad() <= {check}, self.answer
        found, = self.find(check)
        return found


def problems(daemon):
    """What `status` says is wrong: for programs, and the words for people."""
    answer = daemon.json("status")
    with open(os.path.join(HERE, "schemas", "status.json"), encoding="utf-8") as f:
        jsonschema.validate(answer, json.load(f))
    first = daemon.ctl("status").stdout.splitlines()[0]
    return answer["problems"], first.split(None, 1)[1].split(":")[0]


@pytest.fixture
def hosts():
    """A pair whose server is also a router to a host behind it."""
    with Pair() as pair, Namespace("b") as behind:
        veth(pair.server, "back", ["198.51.100.1/24"], behind, "eth0", [f"{BEHIND4}/24"])
        behind.run("ip", "route", "add", "default", "via", "198.51.100.1")
        pair.server.sysctl("ipv4/ip_forward", 1)
        pair.server.sysctl("ipv4/conf/lo/accept_local", 1)
        pair.behind = behind
        yield pair


class TestSound:
    def test_nothing_is_wrong(self, hosts):
        with Daemon(hosts.server, "tcp 8080 to 80", f"tcp 8081 to {BEHIND4}:80") as daemon, \
                TcpEcho(hosts.server, 80), TcpEcho(hosts.behind, 80):
            assert problems(daemon) == ([], "good")
            doctor = Doctor(daemon, "--connect")
            assert doctor.answer["daemon"] and doctor.answer["worst"] in ("ok", "info")
            for check in ("kernel", "privileges", "bpffs", "daemon", "configuration", "room", "attached",
                          "others", "xdp", "settings", "rp-filter", "way", "nat", "listening", "connect"):
                assert not doctor.find(check), check
                assert [f for f in doctor.answer["findings"] if f["check"] == check], check

    def test_text(self, hosts):
        with Daemon(hosts.server, "tcp 8080 to 80") as daemon:
            shown = hosts.server.run(REDIRECTCTL, "-s", daemon.socket, "doctor", check=False)
            assert shown.returncode == EXIT_FAILED
            assert "warning  listening" in shown.stdout and "ok       kernel" in shown.stdout
            quiet = hosts.server.run(REDIRECTCTL, "-q", "-s", daemon.socket, "doctor", check=False)
            assert "warning  listening" in quiet.stdout and "ok  " not in quiet.stdout
            with TcpEcho(hosts.server, 80):
                assert hosts.server.run(REDIRECTCTL, "-s", daemon.socket, "doctor").stderr == ""

    def test_anybody_may_ask(self, hosts):
        with Daemon(hosts.server, "tcp 8080 to 80") as daemon, TcpEcho(hosts.server, 80):
            doctor = Doctor(daemon, prefix=("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}",
                                            "--clear-groups"))
            assert [f["message"] for f in doctor.find("nat")] == ["only root can see rules of nftables"]


class TestDaemon:
    def test_dead(self, hosts):
        with Daemon(hosts.server, "tcp 8080 to 80") as daemon:
            daemon.end(signal.SIGKILL)
            doctor = Doctor(daemon, code=EXIT_FAILED)
            assert not doctor.answer["daemon"]
            assert "no daemon at" in doctor.find("daemon")[0]["message"]
            checks = {f["check"] for f in doctor.answer["findings"]}
            assert {"kernel", "bpffs", "configuration"} <= checks
            assert not checks & {"attached", "room"}, "what only the daemon knows"

    @pytest.mark.parametrize("text, severity, words", [
        (None, "warning", "there is no /etc/redirectd/redirectd.conf: no rule is known"),
        ("redirect tcp 8080 to 80\n", "info", "by the file /etc/redirectd/redirectd.conf: 1 rule"),
        ("redirect tcp 8080 too 80\n", "error", "/etc/redirectd/redirectd.conf has errors, the first: ")])
    def test_without_a_daemon(self, hosts, tmp_path, text, severity, words):
        """What the file says is told as such, and nothing is called good that nobody looked at."""
        (tmp_path / "redirectd").mkdir()
        if text:
            (tmp_path / "redirectd/redirectd.conf").write_text(text)
        done = hosts.server.run(
            "unshare", "--mount", "--propagation", "private", "sh", "-c",
            'mount --bind "$0" /etc && exec "$@"', tmp_path, REDIRECTCTL, "-j", "-s", tmp_path / "none", "doctor",
            check=False)
        assert done.returncode == EXIT_FAILED, done.stderr
        answer = json.loads(done.stdout)
        jsonschema.validate(answer, SCHEMA)
        found, = [f for f in answer["findings"] if f["check"] == "configuration"]
        assert found["severity"] == severity and found["message"].startswith(words)
        about_rules = {f["check"] for f in answer["findings"]} & {"nat", "listening", "room"}
        assert about_rules == ({"nat", "listening"} if severity == "info" else set())

    def test_reload_that_failed(self, hosts):
        with Daemon(hosts.server, config="redirect tcp 8080 to 80\n") as daemon, TcpEcho(hosts.server, 80):
            daemon.write("redirect tcp 8080 too 80\n")
            daemon.ctl("reload", code=6)
            doctor = Doctor(daemon, code=EXIT_FAILED)
            assert problems(daemon) == (["reload"], "the last reload failed")
            found = doctor.only("configuration")
            assert found["command"] == f"redirectctl check {daemon.config}"
            assert f'{daemon.config}:1:19: "to" is missing' in found["message"]
            assert found["message"].endswith(daemon.json("status")["last_reload_error"])

    def test_runtime_rules(self, hosts):
        with Daemon(hosts.server, config="redirect tcp 8080 to 80 name web\n") as daemon, \
                TcpEcho(hosts.server, 80), TcpEcho(hosts.server, 81):
            daemon.ctl("replace", "web", "tcp", "8080", "to", "81")
            daemon.add("tcp 8081 to 80")
            assert [f["command"] for f in Doctor(daemon).find("configuration")] == [
                "redirectctl save", "redirectctl diff"]

    def test_table_nearly_full(self, hosts):
        with Daemon(hosts.server, config="flows-max 64\nredirect udp 8080 to 80\n") as daemon, \
                hosts.server.listen(Pair.SERVER4, 80, socket.SOCK_DGRAM):
            for sport in range(20000, 20060):
                with hosts.client.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                    s.bind(("", sport))
                    s.sendto(b"x", (Pair.SERVER4, 8080))
            eventually(lambda: daemon.json("status")["flows"]["active"] >= 52, "flows")
            assert problems(daemon) == (["flows"], "the flow table is nearly full")
            assert "flows-max" in Doctor(daemon, code=EXIT_FAILED).only("room")["hint"]


class TestHooks:
    def test_detached_by_somebody(self, hosts):
        with Daemon(hosts.server, "tcp 8080 to 80") as daemon, TcpEcho(hosts.server, 80):
            index = json.loads(hosts.server.run("ip", "-j", "link", "show", "eth0").stdout)[0]["ifindex"]
            if daemon.json("status")["attachments"][0]["hook"] != "tcx":
                pytest.skip("no TCX in this kernel")
            hosts.server.run("bpftool", "link", "detach", "pinned", f"{daemon.pins}/links/{index}-in")
            found = Doctor(daemon, code=EXIT_FAILED).only("attached")
            assert found["severity"] == "error" and "eth0" in found["message"]
            assert problems(daemon) == (["unattached"], "it is not attached everywhere")
            assert "but not to   eth0\n" in daemon.ctl("status").stdout
            daemon.end(signal.SIGUSR2)  # what the command does
            daemon.start()
            Doctor(daemon)

    def test_filter_deleted_by_somebody(self, hosts):
        with Daemon(hosts.server, "tcp 8080 to 80", arguments=["--hook", "clsact"]) as daemon, \
                TcpEcho(hosts.server, 80):
            Doctor(daemon)
            hosts.server.run("tc", "filter", "delete", "dev", "eth0", "egress")
            found = Doctor(daemon, code=EXIT_FAILED).only("attached")
            assert found["severity"] == "error" and "leaving on eth0" in found["message"]

    def test_filter_in_front(self, hosts):
        with Daemon(hosts.server, "tcp 8080 to 80", arguments=["--hook", "clsact"]) as daemon, \
                TcpEcho(hosts.server, 80):
            hosts.server.run("tc", "filter", "add", "dev", "eth0", "ingress", "prio", "50000", "bpf",
                             "bytecode", "1,6 0 0 0,")
            Doctor(daemon)  # behind ours
            hosts.server.run("tc", "filter", "add", "dev", "eth0", "ingress", "prio", "7", "bpf",
                             "bytecode", "1,6 0 0 0,")
            assert "a filter of priority 7" in Doctor(daemon, code=EXIT_FAILED).only("others")["message"]

    def test_foreign_qdisc(self, hosts):
        hosts.server.run("tc", "qdisc", "add", "dev", "eth0", "ingress")
        with Daemon(hosts.server, "tcp 8080 to 80", arguments=["--hook", "clsact"]) as daemon, \
                TcpEcho(hosts.server, 80):
            doctor = Doctor(daemon, code=EXIT_FAILED)
            assert doctor.bad() == {"attached"} and problems(daemon)[0] == ["unattached"]
            command = doctor.find("attached")[0]["command"]
            assert command == "tc qdisc delete dev eth0 ingress && systemctl restart redirectd"
            hosts.server.run(*command.split(" && ")[0].split())
            daemon.end(signal.SIGUSR2)
            daemon.start()
            Doctor(daemon)


class TestNetwork:
    def test_settings(self, hosts):
        hosts.server.sysctl("ipv4/ip_forward", 0)
        with Daemon(hosts.server, f"tcp 8080 to {BEHIND4}:80 on eth0") as daemon:
            found = Doctor(daemon, code=EXIT_FAILED).only("settings")
            assert found["message"].startswith("rule 1 sends packets to another host")
            hosts.server.run(*found["command"].split())
            Doctor(daemon)

    def test_rp_filter(self, hosts):
        veth(hosts.server, "other", [], hosts.behind, "unused", [])
        hosts.server.run("ip", "route", "add", "203.0.113.0/24", "dev", "other")
        hosts.client.run("ip", "address", "add", "203.0.113.5/32", "dev", "eth0")
        hosts.server.sysctl("ipv4/conf/eth0/rp_filter", 1)
        with Daemon(hosts.server, "udp 8080 to 80 on eth0") as daemon, \
                hosts.server.listen(Pair.SERVER4, 80, socket.SOCK_DGRAM) as server, \
                hosts.client.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            Doctor(daemon)
            # Who asks for an address from there is not answered either: it is to be known already.
            with hosts.client.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as neighbour:
                neighbour.sendto(b"first", (Pair.SERVER4, 8080))
                assert server.recv(10) == b"first"
            client.bind(("203.0.113.5", 0))
            client.sendto(b"lost", (Pair.SERVER4, 8080))
            eventually(lambda: "rp-filter" in Doctor(daemon, code=None).bad(), "it is found")
            found = Doctor(daemon, code=EXIT_FAILED).only("rp-filter")
            assert found["command"] == "sysctl -w net/ipv4/conf/eth0/rp_filter=2"
            hosts.server.run(*found["command"].split())
            Doctor(daemon)
            client.sendto(b"taken", (Pair.SERVER4, 8080))
            assert server.recv(10) == b"taken"

    def test_no_route(self, hosts):
        with Daemon(hosts.server, "tcp 8080 to 203.0.113.9:80 on eth0") as daemon:
            assert "no route" in Doctor(daemon, code=EXIT_FAILED).only("way")["message"]

    def test_mtu(self, hosts):
        with Daemon(hosts.server, f"tcp 8080 to {BEHIND4}:80 on eth0") as daemon:
            assert not Doctor(daemon).find("way")
            hosts.server.run("ip", "link", "set", "back", "mtu", "1400")
            found, = Doctor(daemon).find("way")
            assert "1500 bytes come in on eth0" in found["message"] and "1400 bytes go on" in found["message"]
            hosts.server.run(*found["command"].split())
            assert not Doctor(daemon).find("way")

    def test_offloads(self, hosts):
        with Daemon(hosts.server, "tcp 8080 to 80 on eth0") as daemon, TcpEcho(hosts.server, 80):
            hosts.server.run("ethtool", "-K", "eth0", "gro", "off")
            found, = [f for f in Doctor(daemon).find("offloads") if "eth0" in f["message"]]
            hosts.server.run(*found["command"].split())
            assert not [f for f in Doctor(daemon).find("offloads") if "eth0" in f["message"]]


class TestNat:
    def test_nftables(self, hosts):
        nft = ("table ip theirs { chain pre { type nat hook prerouting priority -100; "
               "tcp dport 8080 redirect to :81; tcp dport 82 redirect to :83; }; }")
        with Daemon(hosts.server, "tcp 8080 to 80", "tcp 8082 to 82", "udp 8080 to 80") as daemon, \
                TcpEcho(hosts.server, 80), TcpEcho(hosts.server, 82), \
                hosts.server.listen("::", 80, socket.SOCK_DGRAM):
            Doctor(daemon)
            hosts.server.run("nft", nft)
            doctor = Doctor(daemon, code=EXIT_FAILED)
            assert doctor.bad() == {"nat"}
            first, second = [f["message"] for f in doctor.find("nat")]
            assert "port of rule 1 as well" in first and "tcp 8080 to 81" in first
            assert "what rule 2 has redirected once more" in second and "tcp 82 to 83" in second
            hosts.server.run("nft", "delete table ip theirs")
            Doctor(daemon)

    def test_iptables(self, hosts):
        with Daemon(hosts.server, "tcp 8080 to 80") as daemon, TcpEcho(hosts.server, 80):
            for tool in ("iptables", "ip6tables"):
                hosts.server.run(tool, "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "8080", "-j",
                                 "REDIRECT", "--to-ports", "81")
            doctor = Doctor(daemon, code=EXIT_FAILED)
            assert {f["message"].split()[0] for f in doctor.find("nat")} == {"iptables", "ip6tables"}


class TestTargets:
    def test_nobody_listens(self, hosts):
        with Daemon(hosts.server, "tcp+udp 8080 to 80", "tcp 8081 to 81 disabled") as daemon:
            messages = [f["message"] for f in Doctor(daemon, code=EXIT_FAILED).find("listening")]
            assert messages == ["rule 1 sends to tcp port 80, where nobody listens",
                                "rule 1 sends to udp port 80, where nobody listens"]
            with TcpEcho(hosts.server, 80):
                assert "udp" in Doctor(daemon, code=EXIT_FAILED).only("listening")["message"]

    def test_many_of_a_kind(self, hosts):
        rules = [f"tcp {port} to {port + 1000}" for port in range(9000, 9040)]
        with Daemon(hosts.server, *rules) as daemon:
            found = Doctor(daemon, code=EXIT_FAILED).find("listening")
            assert len(found) == 17 and "rule 16 " in found[15]["message"]
            assert (found[16]["severity"], found[16]["message"]) == ("warning", "24 more of this check")

    def test_at_the_address_of_the_rule(self, hosts):
        """A port alone is looked for where the rule's packets go: at the address they were sent to."""
        rule = f"tcp {Pair.SERVER4}:8080 to 80"
        with Daemon(hosts.server, rule, "tcp 198.51.100.0/24:8081 to 81") as daemon:
            assert [f["message"] for f in Doctor(daemon, code=EXIT_FAILED).find("listening")] == [
                "rule 1 sends to tcp port 80, where nobody listens"]
            with hosts.server.listen(Pair.OTHER4, 80):
                assert Doctor(daemon, code=EXIT_FAILED).only("listening")
            with hosts.server.listen(Pair.SERVER4, 80):
                Doctor(daemon)

    def test_loopback_only(self, hosts):
        with Daemon(hosts.server, "tcp 8080 to 80") as daemon, hosts.server.listen("127.0.0.1", 80):
            found = Doctor(daemon, code=EXIT_FAILED).only("listening")
            assert "loopback address only" in found["message"] and "to 127.0.0.1:80" in found["hint"]
            daemon.ctl("replace", "1", "tcp 8080 to 80 on lo")
            assert not Doctor(daemon).find("listening")

    def test_connect(self, hosts):
        with Daemon(hosts.server, f"tcp 8080 to {BEHIND4}:80 on eth0") as daemon:
            Doctor(daemon)
            assert "Connection refused" in Doctor(daemon, "--connect", code=EXIT_FAILED).only("connect")[
                "message"]
            with TcpEcho(hosts.behind, 80):
                Doctor(daemon, "--connect")
                assert tcp_ask(hosts.client, Pair.SERVER4, 8080) == b"hello"
