# SPDX-License-Identifier: GPL-2.0-or-later
"""Start, death, restart, reload, stop: traffic and state survive what they must survive."""

import os
import re
import signal
import socket
import subprocess
import time

import pytest

from netns import Pair, eventually, stop
from peers import Stream, TcpEcho, UdpEcho, tcp_ask, tcp_refused, udp_ask
from redirectd import EXIT_CONFLICT, EXIT_INVALID, REDIRECTCTL, REDIRECTD, Daemon, attached, ctl_run

WAYS = pytest.mark.parametrize("how, code", [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGUSR2, 0)],
                               ids=["kill", "usr2"])


class TestRestart:
    @WAYS
    def test_transfer_goes_on(self, pair, how, code):
        """Dead or left, the datapath forwards: old flows, new ones, then an heir takes over."""
        with Daemon(pair.server, "tcp+udp 8080 to 80 name web") as daemon, TcpEcho(pair.server, 80), \
                UdpEcho(pair.server, Pair.SERVER4, 80):
            with Stream(pair.client, Pair.SERVER4, 8080) as four, \
                    Stream(pair.client, Pair.SERVER6, 8080) as six:
                four.must_go_on()
                six.must_go_on()
                assert daemon.end(how) == code
                assert os.path.isdir(daemon.pins)
                for stream in (four, six):
                    stream.must_go_on()
                for server in Pair.SERVERS:
                    assert tcp_ask(pair.client, server, 8080) == b"hello"
                assert udp_ask(pair.client, Pair.SERVER4, 8080) == b"echo:hello"
                daemon.start()
                for stream in (four, six):
                    stream.must_go_on()
                assert tcp_ask(pair.client, Pair.SERVER4, 8080) == b"hello"

    @WAYS
    def test_heir_adopts_flows_counters_rules_and_ids(self, pair, how, code):
        with Daemon(pair.server, config="redirect tcp 8081 to 81\nredirect tcp 8080 to 80 name web\n") \
                as daemon, TcpEcho(pair.server, 80):
            daemon.add("udp 5353 to 53 name added")
            daemon.ctl("disable", "added")
            with pair.client.connect(Pair.SERVER4, 8080) as s:
                s.sendall(b"before")
                assert s.recv(100) == b"before"
                rules = {r["name"]: r for r in daemon.listed()}
                flows = {f["original"]["sport"]: f for f in daemon.flows()}
                totals = daemon.json("stats")
                assert rules["web"]["counters"]["packets"] >= 5
                assert daemon.end(how) == code
                s.sendall(b"between")
                assert s.recv(100) == b"between"
                daemon.start()
                assert daemon.json("status")["adopted"] is True
                again = {r["name"]: r for r in daemon.listed()}
                assert again.keys() == rules.keys()
                for name, rule in rules.items():
                    for key in ("id", "rule", "origin", "source", "enabled"):
                        assert again[name][key] == rule[key], (name, key)
                assert again["added"]["origin"] == "runtime"
                assert again["added"]["enabled"] is False
                flow = {f["original"]["sport"]: f for f in daemon.flows()}[s.getsockname()[1]]
                old = flows[s.getsockname()[1]]
                assert flow["rule"] == old["rule"]
                assert flow["original"]["packets"] > old["original"]["packets"]
                assert flow["age_ms"] >= old["age_ms"]
                counters = again["web"]["counters"]
                assert counters["packets"] > rules["web"]["counters"]["packets"]
                assert counters["flows"] == rules["web"]["counters"]["flows"]
                assert daemon.json("stats")["packets"] > totals["packets"]
                s.sendall(b"after")
                assert s.recv(100) == b"after"

    def test_removed_rule_stays_removed(self, pair):
        with Daemon(pair.server, config="redirect tcp 8080 to 80 name web\n") as daemon:
            daemon.add("tcp 8081 to 80 name extra")
            daemon.ctl("remove", "extra")
            daemon.end(signal.SIGKILL)
            daemon.start()
            assert [r["name"] for r in daemon.listed()] == ["web"]

    def test_configuration_changed_while_dead(self, pair):
        """The heir reads the file anew: rules of old that are gone go, new ones come, same ones stay."""
        with Daemon(pair.server, config="redirect tcp 8080 to 80 name web\n"
                                        "redirect tcp 8081 to 80 name old\n") as daemon, \
                TcpEcho(pair.server, 80):
            assert tcp_ask(pair.client, Pair.SERVER4, 8080) == b"hello"
            before = daemon.rule("web")
            daemon.end(signal.SIGKILL)
            daemon.write("redirect tcp 8082 to 80 name new\nredirect tcp 8080 to 80 name web\n")
            daemon.start()
            assert {r["name"] for r in daemon.listed()} == {"web", "new"}
            assert daemon.rule("web")["id"] == before["id"]
            assert daemon.rule("web")["counters"]["flows"] == before["counters"]["flows"]
            assert tcp_refused(pair.client, Pair.SERVER4, 8081)
            assert tcp_ask(pair.client, Pair.SERVER4, 8082) == b"hello"

    def test_interface_that_went_while_dead(self, pair):
        pair.server.run("ip", "link", "add", "gone", "type", "veth", "peer", "name", "gone1")
        with Daemon(pair.server, "tcp 8080 to 80") as daemon, TcpEcho(pair.server, 80):
            assert "gone" in daemon.interfaces()
            daemon.end(signal.SIGKILL)
            pair.server.run("ip", "link", "delete", "gone")
            pair.server.run("ip", "link", "add", "fresh", "type", "veth", "peer", "name", "fresh1")
            daemon.start()
            eventually(lambda: {"fresh", "eth0", "lo"} <= daemon.interfaces() and
                       "gone" not in daemon.interfaces(), "attached to what is there")
            assert tcp_ask(pair.client, Pair.SERVER4, 8080) == b"hello"
            pair.server.run("ip", "link", "delete", "fresh")

    def test_many_restarts_under_load(self, pair):
        with Daemon(pair.server, "tcp 8080 to 80") as daemon, TcpEcho(pair.server, 80), \
                Stream(pair.client, Pair.SERVER4, 8080) as stream:
            for how in (signal.SIGKILL, signal.SIGUSR2) * 3:
                daemon.end(how)
                daemon.start()
                stream.must_go_on()


class TestStop:
    @pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
    def test_nothing_is_left(self, pair, how):
        before = {i: attached(pair.server, i) for i in ("lo", "eth0")}
        with Daemon(pair.server, "tcp 8080 to 80") as daemon, TcpEcho(pair.server, 80):
            assert tcp_ask(pair.client, Pair.SERVER4, 8080) == b"hello"
            assert attached(pair.server, "eth0") != before["eth0"]
            assert daemon.end(how) == 0
            assert not os.path.exists(daemon.pins)
            assert not os.path.exists(daemon.socket)
            assert {i: attached(pair.server, i) for i in before} == before
            assert tcp_refused(pair.client, Pair.SERVER4, 8080)

    def test_stop_of_an_heir(self, pair):
        with Daemon(pair.server, "tcp 8080 to 80") as daemon:
            daemon.end(signal.SIGKILL)
            daemon.start()
            assert daemon.end() == 0
            assert not os.path.exists(daemon.pins)
            assert attached(pair.server, "eth0") == []

    def test_runtime_rules_end_with_a_stop(self, pair):
        with Daemon(pair.server, "tcp 8080 to 80 name web") as daemon:
            daemon.add("tcp 8081 to 80 name extra")
            assert daemon.end() == 0
            daemon.start()
            assert [r["name"] for r in daemon.listed()] == ["web"]
            assert daemon.json("status")["adopted"] is False


class TestReload:
    def test_good_file(self, pair):
        with Daemon(pair.server, config="redirect tcp 8080 to 80 name web\n"
                                        "redirect tcp 8081 to 80 name old\n") as daemon, \
                TcpEcho(pair.server, 80):
            daemon.add("tcp 8089 to 80 name extra")
            with Stream(pair.client, Pair.SERVER4, 8081) as stream:
                stream.must_go_on()
                assert tcp_ask(pair.client, Pair.SERVER4, 8080) == b"hello"
                web = daemon.rule("web")
                daemon.write("redirect tcp 8082 to 80 name new\nredirect tcp 8080 to 80 name web\n")
                daemon.process.send_signal(signal.SIGHUP)
                eventually(lambda: {r["name"] for r in daemon.listed()} == {"web", "new", "extra"},
                           "the new rules are there")
                assert daemon.rule("web")["id"] == web["id"]
                assert daemon.rule("web")["counters"]["flows"] == 1
                assert tcp_ask(pair.client, Pair.SERVER4, 8082) == b"hello"
                assert tcp_ask(pair.client, Pair.SERVER4, 8089) == b"hello"
                assert tcp_refused(pair.client, Pair.SERVER4, 8081)
                stream.must_go_on()  # on-change keep: a flow outlives its rule

    def test_bad_file_changes_nothing(self, pair):
        with Daemon(pair.server, config="redirect tcp 8080 to 80 name web\n") as daemon, \
                TcpEcho(pair.server, 80):
            rules = daemon.listed()
            daemon.write("redirect tcp 8085 to 80\nredirect tpc 1 to 2\nflows-max many\n")
            daemon.process.send_signal(signal.SIGHUP)
            daemon.logged(f"{daemon.config}:2:10:")
            daemon.logged(f"{daemon.config}:3:11:")
            assert daemon.listed() == rules
            assert tcp_refused(pair.client, Pair.SERVER4, 8085)
            assert tcp_ask(pair.client, Pair.SERVER4, 8080) == b"hello"
            assert daemon.json("status")["last_reload_error"]
            failed = daemon.ctl("reload", code=EXIT_INVALID)
            assert f"{daemon.config}:2:10:" in failed.stderr
            daemon.write("redirect tcp 8080 to 80 name web\n")
            daemon.ctl("reload")
            assert not daemon.json("status").get("last_reload_error")

    def test_file_that_conflicts_with_a_runtime_rule(self, pair):
        with Daemon(pair.server, config="redirect tcp 8080 to 80 name web\n") as daemon:
            daemon.add("tcp 9000 to 80 name extra")
            daemon.write("redirect tcp 8080 to 80 name web\nredirect tcp 9000 to 81\n")
            done = daemon.ctl("reload", code=EXIT_CONFLICT)
            assert "9000" in done.stderr
            assert len(daemon.listed()) == 2

    def test_dry_reload(self, pair):
        with Daemon(pair.server, config="redirect tcp 8080 to 80 name web\n") as daemon:
            daemon.write("redirect tcp 9000 to 81\n")
            assert daemon.json("-n", "reload") == {"added": 1, "removed": 1, "kept": 0} or \
                daemon.json("-n", "reload")["added"] == 1
            assert [r["name"] for r in daemon.listed()] == ["web"]

    def test_includes(self, pair):
        with Daemon(pair.server, config="") as daemon:
            folder = os.path.join(daemon.folder, "rules.d")
            os.mkdir(folder)
            daemon.end()
            daemon.write(f"include {folder}/*.conf\n")
            for number in (1, 2):
                with open(f"{folder}/{number}.conf", "w", encoding="utf-8") as f:
                    f.write(f"redirect tcp 808{number} to 80 name r{number}\n")
            daemon.start()
            assert [(r["name"], r["source"]) for r in daemon.listed()] == \
                [(f"r{n}", f"{folder}/{n}.conf:1") for n in (1, 2)]


class TestStart:
    def test_second_daemon_on_the_socket(self, pair):
        with Daemon(pair.server, "tcp 8080 to 80") as first:
            done = pair.server.run(REDIRECTD, "-s", first.socket, "-p", f"{first.pins}-2",
                                   "-r", "tcp 1 to 2", check=False)
            assert done.returncode == 1
            assert re.search(rf"\b{first.process.pid}\b", done.stderr), done.stderr
            assert not os.path.exists(f"{first.pins}-2")
            assert len(first.listed()) == 1

    def test_second_daemon_on_the_pins(self, pair):
        with Daemon(pair.server, "tcp 8080 to 80") as first, TcpEcho(pair.server, 80):
            done = pair.server.run(REDIRECTD, "-s", f"{first.socket}2", "-p", first.pins,
                                   "-r", "tcp 1 to 2", check=False)
            assert done.returncode == 1
            assert re.search(rf"\b{first.process.pid}\b", done.stderr), done.stderr
            assert not os.path.exists(f"{first.socket}2")
            assert tcp_ask(pair.client, Pair.SERVER4, 8080) == b"hello"

    def test_two_daemons_beside_each_other(self, pair):
        """Own namespace, own socket, own pins: they do not see each other."""
        with Daemon(pair.server, "tcp 8080 to 80"), Daemon(pair.client, "tcp 8080 to 81"), \
                TcpEcho(pair.server, 80), TcpEcho(pair.client, 81):
            assert tcp_ask(pair.client, Pair.SERVER4, 8080) == b"hello"
            assert tcp_ask(pair.server, Pair.CLIENT4, 8080) == b"hello"

    def test_check_reports_every_error(self, pair, tmp_path):
        bad = tmp_path / "bad.conf"
        bad.write_text("redirect tcp 8080 to 80\nredirect tcp 99999 to 80\n\nflows-mx 7\n"
                       "redirect udp 1 to 2 masquerad\n")
        done = pair.server.run(REDIRECTD, "-n", "-c", bad, check=False)
        assert done.returncode == EXIT_INVALID
        for line in (2, 4, 5):
            assert f"{bad}:{line}:" in done.stderr, done.stderr
        assert f"{bad}:1:" not in done.stderr
        assert "flows-max" in done.stderr and "masquerade" in done.stderr and "^" in done.stderr

    def test_check_of_a_good_file(self, pair, tmp_path):
        good = tmp_path / "good.conf"
        good.write_text("interface lo\nredirect tcp 8080 to 80\n")
        assert pair.server.run(REDIRECTD, "-n", "-c", good).returncode == 0
        assert attached(pair.server, "lo") == []

    def test_bad_configuration_does_not_start(self, pair, tmp_path):
        bad = tmp_path / "bad.conf"
        bad.write_text("redirect tcp x to 80\n")
        done = pair.server.run(REDIRECTD, "-c", bad, "-s", tmp_path / "s", "-p", "/sys/fs/bpf/rdt-none",
                               check=False)
        assert done.returncode == EXIT_INVALID
        assert f"{bad}:1:14:" in done.stderr
        assert not os.path.exists("/sys/fs/bpf/rdt-none")

    @pytest.mark.parametrize("rules, code, checked", [
        (["tcp 1 to 2", "tcp 1 to 3"], EXIT_CONFLICT, EXIT_INVALID),
        (["tcp 1 to 2", "tcp 1 to 3", "tcp 4 too 5"], EXIT_INVALID, EXIT_INVALID)])
    def test_conflicts_alone_end_with_7(self, pair, tmp_path, rules, code, checked):
        """As `redirectctl check`, but with -n, which says only whether the configuration is good."""
        given = [word for rule in rules for word in ("-r", rule)]
        done = pair.server.run(REDIRECTD, *given, "-s", tmp_path / "s", "-p", "/sys/fs/bpf/rdt-none", check=False)
        assert done.returncode == code and "conflict with" in done.stderr
        assert pair.server.run(REDIRECTD, "-n", *given, check=False).returncode == checked

    @pytest.mark.parametrize("arguments", [["-n", "-r", "tcp 8080 too 80"], ["-r", "tcp 0 to 80"]])
    def test_bad_rule_on_the_command_line(self, pair, arguments):
        done = pair.server.run(REDIRECTD, *arguments, check=False)
        assert done.returncode == EXIT_INVALID
        assert "^" in done.stderr

    @pytest.mark.parametrize("arguments", [["-x"], ["-r"], ["--no-such"], ["surplus"]])
    def test_usage(self, pair, arguments):
        done = pair.server.run(REDIRECTD, *arguments, check=False)
        assert done.returncode == 2
        assert "-h" in done.stderr

    @pytest.mark.parametrize("option", ["-h", "-V"])
    def test_help_and_version(self, pair, option):
        done = pair.server.run(REDIRECTD, option)
        assert "redirectd" in done.stdout
        assert not done.stderr

    def test_pins_outside_of_bpffs(self, pair, tmp_path):
        done = pair.server.run(REDIRECTD, "-s", tmp_path / "s", "-p", tmp_path / "pins", "-r", "tcp 1 to 2",
                               check=False)
        assert done.returncode == 1
        assert "bpf" in done.stderr

    def test_one_command(self, pair):
        """The whole program in one line: -i lo -r 'tcp 8080 to 80' -v."""
        with Daemon(pair.server, "tcp 8080 to 80", arguments=["-i", "lo", "-v"]), \
                TcpEcho(pair.server, 80):
            assert tcp_ask(pair.server, "127.0.0.1", 8080) == b"hello"
            assert tcp_ask(pair.server, "::1", 8080) == b"hello"
            assert tcp_refused(pair.client, Pair.SERVER4, 8080)

    def test_verbose_prints_births_and_deaths(self, pair):
        with Daemon(pair.server, config="timeout udp 1s\ntimeout udp-stream 1s\n"
                                        "redirect udp 8080 to 80 name dns\n",
                    arguments=["-v"]) as daemon, UdpEcho(pair.server, Pair.SERVER4, 80):
            assert udp_ask(pair.client, Pair.SERVER4, 8080) == b"echo:hello"
            daemon.logged("NEW")
            daemon.logged("DESTROY")
            new, = [line for line in daemon.log().splitlines() if "NEW" in line]
            for part in ("udp", f"src={Pair.CLIENT4}", f"dst={Pair.SERVER4}", "dport=8080", "sport=80"):
                assert part in new, new

    def test_quiet_without_verbose(self, pair):
        with Daemon(pair.server, "udp 8080 to 80") as daemon, UdpEcho(pair.server, Pair.SERVER4, 80):
            assert udp_ask(pair.client, Pair.SERVER4, 8080) == b"echo:hello"
            assert daemon.end() == 0
            assert "NEW" not in daemon.log()

    def test_socket_activation(self, pair, tmp_path):
        """systemd-socket-activate listens; the first call starts the daemon on that socket."""
        path, pins = tmp_path / "activated", f"/sys/fs/bpf/rdt-activated-{os.getpid()}"
        with open(tmp_path / "log", "wb") as log:
            process = pair.server.popen("systemd-socket-activate", "-l", path, REDIRECTD, "-p", pins,
                                        "-r", "tcp 8080 to 80", stdout=log, stderr=log)
        try:
            eventually(path.exists, "the socket is there")
            done = ctl_run("-s", path, "list")
            assert done.returncode == 0, done.stderr + (tmp_path / "log").read_text()
            assert "8080" in done.stdout
            assert path.exists()
        finally:
            stop(process)
        assert not os.path.exists(pins)
        assert path.exists(), "a socket that was handed over is not the daemon's to remove"

    def test_stale_socket_is_replaced(self, pair):
        daemon = Daemon(pair.server, "tcp 8080 to 80")
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(daemon.socket)
        with daemon:
            assert len(daemon.listed()) == 1

    def test_client_finds_the_socket_by_environment(self, pair):
        with Daemon(pair.server, "tcp 8080 to 80") as daemon:
            done = subprocess.run([REDIRECTCTL, "list"], capture_output=True, text=True, check=True,
                                  env={**os.environ, "REDIRECTD_SOCKET": daemon.socket})
            assert "8080" in done.stdout


class TestTimeouts:
    def test_flow_disappears(self, pair):
        with Daemon(pair.server, config="timeout udp 1s\ntimeout udp-stream 1s\n"
                                        "redirect udp 8080 to 80 name dns\n") as daemon, \
                UdpEcho(pair.server, Pair.SERVER4, 80):
            assert udp_ask(pair.client, Pair.SERVER4, 8080) == b"echo:hello"
            eventually(lambda: daemon.flows() == [], "the flow is gone")
            eventually(lambda: daemon.json("stats")["flows"]["expired"] == 1, "and counted as expired")
            counters = daemon.rule("dns")["counters"]
            assert counters["flows"] == 1 and counters["active"] == 0 and counters["packets"] == 2
            assert udp_ask(pair.client, Pair.SERVER4, 8080) == b"echo:hello"
            assert daemon.rule("dns")["counters"]["flows"] == 2

    def test_closed_tcp_flow_disappears(self, pair):
        with Daemon(pair.server, config="timeout tcp-closing 1s\ntimeout tcp-rst 1s\n"
                                        "redirect tcp 8080 to 80\n") as daemon, TcpEcho(pair.server, 80):
            assert tcp_ask(pair.client, Pair.SERVER6, 8080) == b"hello"
            eventually(lambda: daemon.flows() == [], "the flow is gone")

    def test_expired_while_no_daemon_runs(self, pair):
        """Killed, nothing is swept: the next packet of the same ports begins a new flow all the same, while one
        whose time is not up goes on."""
        config = "timeout udp 1s\nredirect udp 8080 to 80 name short\nredirect udp 8081 to 80 name long timeout udp 1h\n"
        with Daemon(pair.server, config=config) as daemon, UdpEcho(pair.server, Pair.SERVER4, 80), \
                pair.client.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind((Pair.CLIENT4, 44445))

            def ask(port):
                s.sendto(b"x", (Pair.SERVER4, port))
                assert s.recv(20) == b"echo:x"
            for port in (8080, 8081):
                ask(port)
            daemon.end(signal.SIGKILL)
            time.sleep(3)  # of a flow's life; a test that lasts longer means the same
            for port in (8080, 8081):
                ask(port)
            daemon.start()
            counters = {name: daemon.rule(name)["counters"] for name in ("short", "long")}
            assert counters["short"]["flows"] == 2 and counters["long"]["flows"] == 1
            assert all(c["packets"] == 4 for c in counters.values())

    def test_same_client_port_again(self, pair):
        """A SYN on a closing tuple opens a new flow."""
        with Daemon(pair.server, "tcp 8080 to 80 name web") as daemon, TcpEcho(pair.server, 80):
            pair.client.sysctl("ipv4/tcp_tw_reuse", 1)
            for _ in range(3):
                with pair.client.open_socket(socket.AF_INET, socket.SOCK_STREAM) as s:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    s.bind((Pair.CLIENT4, 44444))
                    s.connect((Pair.SERVER4, 8080))
                    s.sendall(b"x")
                    assert s.recv(1) == b"x"
            assert daemon.rule("web")["counters"]["flows"] == 3

    def test_table_that_is_full_keeps_assured_flows(self, pair):
        """Connections that work go on while single datagrams fill the table over and over."""
        with Daemon(pair.server, config="flows-max 64\nredirect tcp+udp 8080 to 80\n") as daemon, \
                TcpEcho(pair.server, 80), Stream(pair.client, Pair.SERVER4, 8080) as stream:
            stream.must_go_on()
            for _ in range(500):
                with pair.client.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                    s.sendto(b"x", (Pair.SERVER4, 8080))
            stream.must_go_on()
            assert tcp_ask(pair.client, Pair.SERVER6, 8080) == b"hello"
            assert daemon.json("stats")["flows"]["active"] <= 64
