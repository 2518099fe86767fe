# SPDX-License-Identifier: GPL-2.0-or-later
"""Many rules at once: apply, diff, confirm, rollback, save, and what a reload makes of it all."""

import contextlib
import glob
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time

import jsonschema
import pytest

from netns import Pair, eventually
from peers import Stream, TcpEcho, tcp_ask, tcp_refused
from redirectd import EXIT_CONFLICT, EXIT_DENIED, EXIT_FAILED, EXIT_INVALID, EXIT_NO_SUCH, EXIT_USAGE, Daemon

HERE = os.path.dirname(os.path.abspath(__file__))
BASE = "redirect tcp 8080 to 80 name web\nredirect tcp 8081 to 80 name old\n"


def valid(name, document):
    with open(os.path.join(HERE, "schemas", f"{name}.json"), encoding="utf-8") as f:
        jsonschema.validate(document, json.load(f), cls=jsonschema.Draft202012Validator)
    return document


def counts(answer):
    return tuple(answer[key] for key in ("added", "removed", "changed", "kept"))


@pytest.fixture(name="daemon")
def daemon_(pair):
    with Daemon(pair.server, config=BASE) as daemon:
        yield daemon


class TestApply:
    def test_adds_changes_and_keeps(self, daemon):
        before = {r["name"]: r["id"] for r in daemon.listed()}
        path = daemon.file("new.conf", "# a comment\nredirect tcp 8080 to 81 name web\n"
                                       "redirect udp 5300 to 53\nredirect tcp 8081 to 80 name old\n")
        answer = valid("changes", daemon.json("apply", "-f", path))
        assert counts(answer) == (1, 0, 1, 1)
        web, old, dns = daemon.listed()
        assert (web["id"], old["id"]) == (before["web"], before["old"])
        assert web["rule"] == "tcp 8080 to 81 name web"
        assert web["configured"] == "tcp 8080 to 80 name web"
        assert web["origin"] == "config"
        assert (dns["rule"], dns["origin"], dns["source"]) == ("udp 5300 to 53", "runtime", f"{path}:3")
        assert counts(daemon.json("apply", "-f", path)) == (0, 0, 0, 3), "once more: nothing"

    def test_replace(self, daemon):
        path = daemon.file("new.conf", "redirect tcp 9000 to 80\n")
        assert counts(daemon.json("apply", "-f", path, "--replace")) == (1, 2, 0, 0)
        assert daemon.texts() == ["tcp 9000 to 80"]
        # The configuration in its place: as if nothing had been.
        assert counts(daemon.json("apply", "--replace", "-f", daemon.config)) == (2, 1, 0, 0)
        assert {r["origin"] for r in daemon.listed()} == {"config"}
        daemon.ctl("diff")

    def test_dry_run_shows_signs(self, daemon):
        path = daemon.file("new.conf", "redirect tcp 8080 to 81 name web\nredirect udp 5300 to 53\n")
        before = daemon.listed()
        said = daemon.ctl("-n", "apply", "--replace", "-f", path).stdout.splitlines()
        assert said == ["- tcp 8081 to 80 name old", "~ tcp 8080 to 81 name web",
                        "  was tcp 8080 to 80 name web", "+ udp 5300 to 53"]
        answer = valid("changes", daemon.json("-n", "apply", "--replace", "-f", path))
        assert [(c["change"], c["source"]) for c in answer["changes"]] == [
            ("remove", f"{daemon.config}:2"), ("change", f"{path}:1"), ("add", f"{path}:2")]
        assert daemon.listed() == before
        assert "nothing" in daemon.ctl("-n", "apply", "-f", daemon.config).stdout

    def test_standard_input(self, daemon):
        daemon.ctl("apply", input="redirect tcp 9000 to 80 name in\n")
        daemon.ctl("apply", "-f", "-", input="redirect tcp 9001 to 80\n")
        assert len(daemon.listed()) == 4
        assert "/dev/stdin:1:10:" in daemon.ctl("apply", input="redirect x\n", code=EXIT_INVALID).stderr

    THREE = "redirect tcp 9000 to 80\nredirect tpc 1 to 2\nflows-mx 7\nredirect tcp 99999 to 1\n"

    def test_every_error_of_a_file(self, daemon):
        path = daemon.file("bad.conf", self.THREE)
        before = daemon.listed()
        said = daemon.ctl("apply", "-f", path, code=EXIT_INVALID).stderr
        for place in (":2:10:", ":3:1:", ":4:14:"):
            assert f"{path}{place}" in said
        assert said.count("^") == 3 and "flows-max" in said and f"{path}:1:" not in said
        error = json.loads(daemon.ctl("-j", "apply", "-f", path, code=EXIT_INVALID).stdout)["error"]
        assert [d["line"] for d in valid("error", {"error": error})["error"]["diagnostics"]] == [2, 3, 4]
        assert daemon.listed() == before

    def test_every_error_by_the_socket(self, daemon):
        """The daemon trusts no client to have checked."""
        call = daemon.ctl("-j", "call", "Apply", json.dumps({"files": [
            {"name": "a.conf", "text": self.THREE}, {"name": "b.conf", "text": "include x\nredirect udp 1\n"}]}),
            code=EXIT_INVALID)
        error = json.loads(call.stdout)
        assert error["error"] == "io.redirectd.InvalidRule"
        assert [(d["file"], d["line"]) for d in error["parameters"]["diagnostics"]] == [
            ("a.conf", 2), ("a.conf", 3), ("a.conf", 4), ("b.conf", 1), ("b.conf", 2)]
        assert len(daemon.listed()) == 2

    def test_conflict_names_both_places(self, daemon):
        path = daemon.file("new.conf", "redirect tcp 9 to 10\nredirect tcp 8080-8081 to 1\n"
                                       "redirect udp 1 to 2 name web\nredirect tcp 8081 to 99 name x\n")
        daemon.add("tcp 8079-8080 to 7")
        said = daemon.ctl("apply", "-f", path, code=EXIT_CONFLICT).stderr
        assert f"{path}:2:14:" in said and "rule 3 (runtime): tcp 8079-8080 to 7" in said
        assert len(daemon.listed()) == 3

    def test_includes_and_settings(self, daemon):
        daemon.file("more/1.conf", "redirect tcp 9001 to 80\n")
        daemon.file("more/2.conf", "  include 3.inc\nredirect tcp 9002 to 80\n")
        daemon.file("more/3.inc", "redirect tcp 9003 to 80\n")
        path = daemon.file("new.conf", "flows-max 262144\ntimeout udp 30s\ninclude more/*.conf\n"
                                       "redirect tcp 9000 to 80\n")
        assert counts(daemon.json("apply", "-f", path)) == (4, 0, 0, 2)
        sources = {r["rule"]: r["source"] for r in daemon.listed()}
        assert sources["tcp 9003 to 80"] == f"{daemon.folder}/more/3.inc:1"
        path = daemon.file("other.conf", "interface eth0\nflows-max 1000\ntimeout udp 40s\nredirect tcp 1 to 2\n")
        said = daemon.ctl("apply", "-f", path, code=EXIT_INVALID).stderr
        for line, word in ((1, "interface"), (2, "flows-max"), (3, "udp")):
            assert f'{path}:{line}: "{word}"' in said
        assert len(daemon.listed()) == 6

    @pytest.mark.parametrize("arguments, code", [
        (["apply", "-f", "/nonexistent"], EXIT_FAILED), (["apply", "-f"], EXIT_USAGE),
        (["apply", "--confirm", "soon"], EXIT_USAGE), (["apply", "--confirm", "0s"], EXIT_USAGE),
        (["apply", "--confirm", "2d"], EXIT_USAGE), (["apply", "file"], EXIT_USAGE),
        (["replace", "web"], EXIT_USAGE), (["diff", "/nonexistent"], EXIT_FAILED)])
    def test_wrong_usage(self, daemon, arguments, code):
        assert daemon.ctl(*arguments, code=code).stderr

    def test_larger_than_other_requests(self, daemon):
        """Apply takes 16 MiB, others 1 MiB; and only if the method is the first thing to be seen."""
        text = "".join(f"redirect tcp {p} to 80 name {'n' * 57}{p}\n" for p in range(20000, 40000))
        assert len(text) > 1 << 20
        path = daemon.file("large.conf", text)
        assert counts(daemon.json("apply", "-f", path)) == (20000, 0, 0, 2)
        daemon.ctl("diff", path, code=1)
        for call in ({"parameters": {"files": [{"name": "x", "text": text}]}, "method": "io.redirectd.Apply"},
                     {"method": "io.redirectd.Add", "parameters": {"rule": text}}):
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(60)
                s.connect(daemon.socket)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    s.sendall(json.dumps(call).encode() + b"\0")
                with contextlib.suppress(ConnectionResetError):
                    assert b"InvalidMessage" in s.recv(1 << 16)

    def test_too_large(self, daemon):
        path = daemon.file("huge.conf", "#" * 17000000)
        done = daemon.ctl("apply", "-f", path, code=EXIT_FAILED)
        assert done.stderr == "redirectctl: a request has at most 16777216 bytes\n"

    def test_nobody_else_may(self, daemon):
        nobody = {"user": 65534, "group": 65534, "extra_groups": []}
        for verb in (["apply", "-f", daemon.config], ["diff"], ["confirm"], ["rollback"], ["save"],
                     ["replace", "web", "tcp 1 to 2"]):
            daemon.ctl(*verb, code=EXIT_DENIED, **nobody)

    def test_under_traffic(self, pair, daemon):
        """Connections that live, and new ones all the time: none is lost while rules come and go."""
        files = [daemon.file(f"{i}.conf", BASE + "".join(
            f"redirect tcp {port} to {80 + i} name r{port}\n" for port in range(8100, 8900, 1 + i)))
            for i in range(3)]
        done = threading.Event()
        failed = []

        def ask():
            while not done.is_set():
                try:
                    assert tcp_ask(pair.client, Pair.SERVER4, 8081) == b"hello"
                except (OSError, AssertionError) as e:
                    failed.append(repr(e))
        with TcpEcho(pair.server, 80), Stream(pair.client, Pair.SERVER4, 8080) as stream:
            asking = threading.Thread(target=ask)
            asking.start()
            try:
                for i in range(30):
                    daemon.ctl("apply", "--replace", "-f", files[i % 3])
                    stream.must_go_on()
            finally:
                done.set()
                asking.join()
        assert not failed


class TestReplace:
    def test_keeps_id_counters_and_name(self, pair, daemon):
        with TcpEcho(pair.server, 80):
            tcp_ask(pair.client, Pair.SERVER4, 8080)
            before = daemon.rule("web")
            answer = valid("change", daemon.json("replace", "web", "tcp", "8082", "to", "80"))
            assert answer["rule"] == "tcp 8082 to 80 name web"
            after = daemon.rule("web")
            assert after["id"] == before["id"]
            assert after["counters"]["flows"] == before["counters"]["flows"] == 1
            assert tcp_ask(pair.client, Pair.SERVER4, 8082) == b"hello"
            assert tcp_refused(pair.client, Pair.SERVER4, 8080)
        daemon.ctl("replace", "web", "tcp 8082 to 80 name www")
        daemon.ctl("replace", daemon.rule("www")["id"], "tcp 8080 to 80 name web")
        assert daemon.rule("web")["configured"] is None
        daemon.ctl("diff")

    def test_refused(self, daemon):
        assert "name old" in daemon.ctl("replace", "web", "tcp 8081 to 9", code=EXIT_CONFLICT).stderr
        daemon.ctl("replace", "nosuch", "tcp 1 to 2", code=EXIT_NO_SUCH)
        daemon.ctl("replace", "web", "tcp 1 too 2", code=EXIT_INVALID)
        assert daemon.texts() == ["tcp 8080 to 80 name web", "tcp 8081 to 80 name old"]

    @pytest.mark.parametrize("arguments, lines", [
        (["add", "tcp 1 to 2"], ["+ tcp 1 to 2"]), (["remove", "web"], ["- tcp 8080 to 80 name web"]),
        (["replace", "web", "tcp 1 to 2"], ["~ tcp 1 to 2 name web", "  was tcp 8080 to 80 name web"]),
        (["disable", "web"], ["~ tcp 8080 to 80 name web disabled", "  was tcp 8080 to 80 name web"]),
        (["enable", "web"], [])])
    def test_dry_run(self, daemon, arguments, lines):
        assert daemon.ctl("-n", *arguments).stdout.splitlines() == lines
        assert len(valid("change", daemon.json("-n", *arguments))["changes"]) == (1 if lines else 0)
        assert daemon.texts() == ["tcp 8080 to 80 name web", "tcp 8081 to 80 name old"]


class TestDiff:
    def test_with_the_configuration(self, daemon):
        assert daemon.ctl("diff").stdout == ""
        assert valid("changes", daemon.json("diff"))["changes"] == []
        daemon.add("udp 5300 to 53 name added")
        daemon.ctl("disable", "web")
        daemon.ctl("remove", "old")
        done = daemon.ctl("diff", code=1)
        assert done.stdout.splitlines() == ["- udp 5300 to 53 name added", "~ tcp 8080 to 80 name web",
                                            "  was tcp 8080 to 80 name web disabled",
                                            "+ tcp 8081 to 80 name old"]
        assert not done.stderr
        answer = valid("changes", json.loads(daemon.ctl("-j", "diff", code=1).stdout))
        assert counts(answer) == (1, 1, 1, 0)
        status = valid("status", daemon.json("status"))
        assert (status["rules"]["runtime"], status["rules"]["differ"]) == (1, 2)
        assert "config ~" in daemon.ctl("list").stdout

    def test_with_a_file(self, daemon):
        assert daemon.ctl("diff", daemon.config).stdout == ""
        path = daemon.file("x.conf", "redirect tcp 8080 to 80 name web\nredirect tcp 1 to 2\n")
        assert daemon.ctl("diff", path, code=1).stdout.splitlines() == [
            "- tcp 8081 to 80 name old", "+ tcp 1 to 2"]
        assert daemon.ctl("-q", "diff", path, code=1).stdout == ""
        assert daemon.ctl("diff", "-", code=1, input="").stdout.splitlines() == [
            "- tcp 8080 to 80 name web", "- tcp 8081 to 80 name old"]
        daemon.write("redirect nonsense\n")
        assert f"{daemon.config}:1:10:" in daemon.ctl("diff", code=EXIT_INVALID).stderr

    def test_colours_on_a_terminal_only(self, daemon):
        daemon.add("tcp 1 to 2")
        command = f"{daemon.ctl('--help').args[0]} -s {daemon.socket} diff"
        for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
            done = subprocess.run(["script", "-qec", command, "/dev/null"], capture_output=True, check=False,
                                  env={**os.environ, "TERM": "xterm", **environment}, stdin=subprocess.DEVNULL)
            assert done.returncode == 1
            assert (b"\x1b[31m- tcp 1 to 2" in done.stdout) == coloured, done.stdout


class TestConfirm:
    """What is applied goes back unless it is confirmed, whoever dies meanwhile."""

    OLD = ["tcp 8080 to 80 name web", "tcp 8081 to 80 name old"]
    NEW = ["tcp 8080 to 81 name web", "tcp 9000 to 80"]

    def apply(self, daemon, seconds):
        path = daemon.file("new.conf", "redirect tcp 8080 to 81 name web\nredirect tcp 9000 to 80\n")
        daemon.ctl("apply", "--replace", "-f", path, "--confirm", f"{seconds}s")
        assert daemon.texts() == self.NEW

    def must_be_old(self, daemon):
        assert daemon.texts() == self.OLD
        assert {(r["origin"], r["configured"]) for r in daemon.listed()} == {("config", None)}
        assert daemon.json("status")["pending"] is None
        daemon.ctl("diff")

    def test_confirm(self, daemon):
        self.apply(daemon, 600)
        pending = valid("status", daemon.json("status"))["pending"]
        assert 0 < pending["remaining_ms"] <= 600000 and pending["changes"] == 3
        assert "confirm" in daemon.ctl("status").stdout
        daemon.ctl("-n", "confirm")
        daemon.ctl("confirm")
        assert daemon.texts() == self.NEW
        assert daemon.json("status")["pending"] is None
        daemon.ctl("confirm", code=EXIT_FAILED)
        daemon.ctl("rollback", code=EXIT_FAILED)
        daemon.end(signal.SIGKILL)
        daemon.start()
        assert daemon.texts() == self.NEW

    def test_time_runs_out(self, daemon):
        self.apply(daemon, 1)
        eventually(lambda: daemon.texts() == self.OLD, "taken back")
        self.must_be_old(daemon)
        daemon.logged("nobody confirmed")

    def test_rollback_now(self, pair, daemon):
        with TcpEcho(pair.server, 80):
            tcp_ask(pair.client, Pair.SERVER4, 8081)
            before = daemon.listed()
            self.apply(daemon, 600)
            assert tcp_refused(pair.client, Pair.SERVER4, 8081)
            said = daemon.ctl("-n", "rollback").stdout.splitlines()
            assert "+ tcp 8081 to 80 name old" in said and "- tcp 9000 to 80" in said
            assert daemon.texts() == self.NEW
            assert counts(valid("changes", daemon.json("rollback"))) == (1, 1, 1, 0)
            self.must_be_old(daemon)
            assert [r["id"] for r in daemon.listed()] == [r["id"] for r in before]
            assert daemon.rule("old")["counters"]["flows"] == 1
            assert tcp_ask(pair.client, Pair.SERVER4, 8081) == b"hello"

    def test_client_dies(self, daemon):
        """It has gone before the answer comes."""
        call = {"method": "io.redirectd.Apply", "parameters": {"confirmSeconds": 2, "files": [
            {"name": "x", "text": "redirect tcp 9000 to 80\n"}]}}
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(daemon.socket)
            s.sendall(json.dumps(call).encode() + b"\0")
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        daemon.logged("nobody confirmed")
        self.must_be_old(daemon)

    def test_daemon_dies_and_its_heir_waits_on(self, daemon):
        self.apply(daemon, 3)
        daemon.end(signal.SIGKILL)
        daemon.start()
        daemon.logged("waits to be confirmed")
        assert daemon.texts() in (self.NEW, self.OLD)
        eventually(lambda: daemon.texts() == self.OLD, "taken back")
        self.must_be_old(daemon)

    def test_daemon_dies_and_time_runs_out_meanwhile(self, daemon):
        self.apply(daemon, 1)
        daemon.end(signal.SIGKILL)
        eventually(lambda: self.left(daemon) < 0, "time has run out")
        daemon.start()
        self.must_be_old(daemon)

    @staticmethod
    def deadline(daemon, verb):
        """bpftool on the pinned deadline: REGISTRY_DEADLINE of shared/abi.h, part 0."""
        registry, = glob.glob(f"{daemon.pins}/v*/registry")
        key = [f"{byte:02x}" for byte in struct.pack("=II", 65537, 0)]
        return subprocess.run(["bpftool", "-j", "map", verb, "pinned", registry, "key", "hex", *key],
                              capture_output=True, text=True, check=True).stdout

    def left(self, daemon):
        """Seconds until the pinned deadline."""
        value = json.loads(self.deadline(daemon, "lookup"))["value"]
        text = bytes(int(byte, 16) for byte in value).split(b"\0")[0]
        return json.loads(text)["boottime_us"] / 1e6 - time.clock_gettime(time.CLOCK_BOOTTIME)

    @pytest.mark.parametrize("decision, rules", [("confirm", NEW), ("rollback", OLD)])
    def test_daemon_dies_and_the_decision_comes_later(self, daemon, decision, rules):
        self.apply(daemon, 600)
        for how in (signal.SIGKILL, signal.SIGUSR2):
            daemon.end(how)
            daemon.start()
            assert daemon.texts() == self.NEW
        assert daemon.json("status")["pending"]["changes"] == 3
        daemon.ctl(decision)
        assert daemon.texts() == rules
        daemon.end(signal.SIGKILL)
        daemon.start()
        assert daemon.texts() == rules

    def test_daemon_dies_in_the_middle(self, daemon):
        """What to go back to is there, but no time: the change was not finished."""
        self.apply(daemon, 600)
        daemon.end(signal.SIGKILL)
        self.deadline(daemon, "delete")
        daemon.start()
        self.must_be_old(daemon)

    def test_configuration_changed_meanwhile(self, daemon):
        """It is read once the decision has fallen, not in between."""
        self.apply(daemon, 600)
        daemon.end(signal.SIGKILL)
        daemon.write(BASE + "redirect tcp 8089 to 80 name late\n")
        daemon.start()
        assert daemon.texts() == self.NEW
        daemon.ctl("rollback")
        eventually(lambda: [r["name"] for r in daemon.listed()] == ["web", "old", "late"], "read")

    def test_stop_ends_it(self, daemon):
        self.apply(daemon, 600)
        daemon.end()
        daemon.start()
        self.must_be_old(daemon)

    def test_others_are_refused_meanwhile(self, daemon):
        self.apply(daemon, 600)
        for verb in (["add", "tcp 1 to 2"], ["remove", "web"], ["disable", "web"], ["replace", "web", "tcp 1 to 2"],
                     ["reload"], ["save"], ["apply", "-f", daemon.config], ["-n", "add", "tcp 1 to 2"]):
            said = daemon.ctl(*verb, code=EXIT_CONFLICT).stderr
            assert "waits to be confirmed" in said and "rollback" in said
        daemon.process.send_signal(signal.SIGHUP)
        daemon.logged("not reloaded")
        assert daemon.texts() == self.NEW
        daemon.ctl("diff", code=1)
        daemon.ctl("rollback")
        daemon.ctl("reload")

    def test_nothing_to_change_is_confirmed_too(self, daemon):
        daemon.ctl("apply", "-f", daemon.config, "--confirm", "1m")
        daemon.ctl("confirm")

    def test_refused_leaves_nothing_pending(self, daemon):
        path = daemon.file("bad.conf", "redirect tcp 8080-8081 to 1\n")
        daemon.add("tcp 8079-8080 to 7")
        daemon.ctl("apply", "-f", path, "--confirm", "1m", code=EXIT_CONFLICT)
        assert daemon.json("status")["pending"] is None
        daemon.ctl("confirm", code=EXIT_FAILED)

    def test_two_clients_race(self, daemon):
        """One gets its confirmation, the other is told about it; rules are those of the one."""
        paths = [daemon.file(f"{i}.conf", f"redirect tcp {9000 + i} to 80\n") for i in range(2)]
        for _ in range(5):
            codes = [None, None]

            def run(i, codes=codes):
                codes[i] = subprocess.run([daemon.ctl("--help").args[0], "-s", daemon.socket, "apply", "-f",
                                           paths[i], "--confirm", "10m"], check=False,
                                          capture_output=True).returncode
            threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(codes) == [0, EXIT_CONFLICT]
            assert daemon.texts() == [*self.OLD, f"tcp {9000 + codes.index(0)} to 80"]
            daemon.ctl("rollback")

    def test_many_clients_add(self, daemon):
        def run(first):
            for port in range(first, first + 10):
                daemon.add(f"tcp {port} to 80")
        threads = [threading.Thread(target=run, args=(20000 + 100 * i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(daemon.listed()) == 62
        assert len({r["id"] for r in daemon.listed()}) == 62


class TestMerge:
    """The table of redirectd.conf(5), cases that tests/unit/test-plan.c has in full."""

    def test_runtime_changes_survive_reload_and_restart(self, daemon):
        daemon.ctl("disable", "web")
        daemon.ctl("remove", "old")
        expected = ["tcp 8080 to 80 name web disabled"]
        for step in (lambda: daemon.ctl("reload"), lambda: daemon.end(signal.SIGKILL), lambda: daemon.ctl("reload")):
            step()
            if daemon.process.poll() is not None:
                daemon.start()
            assert daemon.texts() == expected
        assert daemon.rule("web")["configured"] == "tcp 8080 to 80 name web"
        daemon.add("tcp 8081 to 80 name old")
        assert daemon.rule("old")["origin"] == "config"
        daemon.ctl("enable", "web")
        daemon.ctl("diff")
        assert daemon.json("status")["rules"] == {"total": 2, "enabled": 2, "runtime": 0, "differ": 0}
        daemon.ctl("disable", "web")
        daemon.end()
        daemon.start()
        assert daemon.texts() == TestConfirm.OLD, "a stop forgets"

    def test_file_wins_where_both_changed(self, daemon):
        daemon.ctl("replace", "web", "tcp 8080 to 81")
        daemon.ctl("remove", "old")
        daemon.write("redirect tcp 8080 to 82 name web\nredirect tcp 8081 to 83 name old\n")
        said = daemon.ctl("-n", "reload").stdout
        assert said.count("note:") == 2
        daemon.process.send_signal(signal.SIGHUP)
        daemon.logged("the configuration wins: tcp 8080 to 82 name web")
        assert daemon.texts() == ["tcp 8080 to 82 name web", "tcp 8081 to 83 name old"]
        daemon.ctl("diff")

    def test_conflict_is_refused_by_reload_and_lost_by_start(self, daemon):
        daemon.add("tcp 9000 to 80 name mine")
        daemon.write(BASE + "redirect tcp 9000 to 81\n")
        said = daemon.ctl("reload", code=EXIT_CONFLICT).stderr
        assert f"{daemon.config}:3:14:" in said and "tcp 9000 to 80 name mine" in said
        daemon.end(signal.SIGKILL)
        daemon.start()
        daemon.logged("tcp 9000 to 81")
        assert daemon.texts()[2] == "tcp 9000 to 81"
        assert len(daemon.listed()) == 3

    def test_reload_of_an_unchanged_file(self, daemon):
        daemon.add("tcp 9000 to 80")
        assert counts(valid("changes", daemon.json("reload"))) == (0, 0, 0, 3)


class TestSave:
    @pytest.fixture(name="daemon")
    def including(self, pair):
        with Daemon(pair.server, config="include rules.d/*.conf\n" + BASE) as daemon:
            yield daemon

    def read(self, daemon):
        with open(f"{daemon.folder}/rules.d/saved.conf", encoding="utf-8") as f:
            return f.read()

    def rules_in(self, daemon):
        return [line for line in self.read(daemon).splitlines() if line and not line.startswith("#")]

    def test_what_is_saved_lasts(self, daemon):
        daemon.add("udp 5300 to 53 name dns")
        daemon.add("tcp 9000 to 80 from 192.0.2.0/24 on eth0,lo disabled")
        before = daemon.listed()
        path = f"{daemon.folder}/rules.d/saved.conf"
        assert "2 runtime rules" in daemon.ctl("-n", "save").stdout
        assert not os.path.exists(path)
        answer = valid("save", daemon.json("save"))
        assert answer == {"file": path, "rules": 2, "saved": 2, "written": True, "included": True, "differ": 0}
        assert self.rules_in(daemon) == [f"redirect {r['rule']}" for r in before[2:]]
        assert self.read(daemon).startswith("#")
        assert os.listdir(os.path.dirname(path)) == ["saved.conf"]
        saved = daemon.listed()[2:]
        line = self.read(daemon).splitlines().index(f"redirect {saved[0]['rule']}") + 1
        assert [(r["origin"], r["source"]) for r in saved] == [("config", f"{path}:{line + i}") for i in (0, 1)]
        assert [r["id"] for r in daemon.listed()] == [r["id"] for r in before]
        assert counts(daemon.json("reload")) == (0, 0, 0, 4)
        daemon.ctl("diff")
        daemon.end()
        daemon.start()
        assert sorted(daemon.texts()) == sorted(r["rule"] for r in before)

    def test_saves_again(self, daemon):
        daemon.add("tcp 9000 to 80 name a")
        daemon.add("tcp 9001 to 80 name b")
        daemon.ctl("save")
        assert daemon.json("save")["written"] is False
        daemon.ctl("remove", "a")
        daemon.ctl("disable", "b")
        daemon.add("tcp 9002 to 80 name c")
        assert valid("save", daemon.json("save"))["saved"] == 1
        assert self.rules_in(daemon) == ["redirect tcp 9001 to 80 name b disabled", "redirect tcp 9002 to 80 name c"]
        daemon.ctl("diff")
        for name in ("b", "c"):
            daemon.ctl("remove", name)
        daemon.ctl("save")
        assert self.rules_in(daemon) == []
        daemon.ctl("reload")
        assert daemon.texts() == TestConfirm.OLD

    def test_not_included(self, daemon):
        daemon.write(BASE)
        daemon.ctl("reload")
        daemon.add("tcp 9000 to 80")
        said = daemon.ctl("save")
        assert "include rules.d/*.conf" in said.stderr
        assert daemon.listed()[2]["origin"] == "runtime"
        assert self.rules_in(daemon) == ["redirect tcp 9000 to 80"]
        assert daemon.json("save")["included"] is False
        daemon.write("include rules.d/*.conf\n" + BASE)
        daemon.ctl("reload")
        assert daemon.listed()[2]["origin"] == "config"
        daemon.ctl("diff")

    def test_what_others_wrote_is_not_lost(self, daemon):
        daemon.add("tcp 9000 to 80 name a")
        daemon.ctl("save")
        path = daemon.file("rules.d/saved.conf", self.read(daemon) + "redirect tcp 9001 to 80 name mine\n")
        daemon.add("tcp 9002 to 80")
        said = daemon.ctl("save", code=EXIT_CONFLICT).stderr
        assert f"{path}:5:" in said and "reload" in said
        daemon.ctl("reload")
        daemon.ctl("save")
        assert len(self.rules_in(daemon)) == 3
        daemon.file("rules.d/saved.conf", "")
        daemon.add("tcp 9003 to 80")
        daemon.ctl("save", code=EXIT_CONFLICT)
        daemon.file("rules.d/saved.conf", "redirect tcp x\n")
        assert f"{path}:1:" in daemon.ctl("save", code=EXIT_INVALID).stderr

    @pytest.mark.parametrize("line, place", [("timeout udp 2m", ":1"), ("interface lo eth0", ":1"), ("include more.conf", "")])
    def test_settings_of_others_are_not_lost(self, daemon, line, place):
        """The file is written anew with rules alone: whatever else stands there has to move first."""
        daemon.file("rules.d/more.conf", "")
        path = daemon.file("rules.d/saved.conf", f"{line}\nredirect tcp 9001 to 80\n")
        daemon.ctl("reload")
        daemon.add("tcp 9002 to 80")
        for arguments in (["save"], ["-n", "save"]):
            said = daemon.ctl(*arguments, code=EXIT_CONFLICT).stderr
            assert f"{path}{place}: " in said and "to another file" in said
        assert self.read(daemon).startswith(line)

    def test_notes_say_what_lasts(self, daemon):
        assert "redirectctl save" in daemon.ctl("add", "tcp", "9000", "to", "80").stderr
        assert daemon.ctl("remove", "tcp", "9000", "to", "80").stderr == "", "no file has it"
        said = daemon.ctl("remove", "web").stderr
        assert said.startswith(f"{daemon.config}:") and "still has this rule" in said
        assert daemon.ctl("-q", "remove", "old").stderr == ""

    def test_other_files_are_not_touched(self, daemon):
        daemon.ctl("disable", "web")
        daemon.ctl("remove", "old")
        done = daemon.ctl("save")
        assert "2 rules of other files" in done.stderr
        with open(daemon.config, encoding="utf-8") as f:
            assert f.read() == "include rules.d/*.conf\n" + BASE
        assert daemon.texts() == ["tcp 8080 to 80 name web disabled"]

    def test_folder_that_cannot_be_written(self, daemon):
        daemon.add("tcp 9000 to 80")
        daemon.file("rules.d", "")
        assert "rules.d" in daemon.ctl("save", code=EXIT_FAILED).stderr
        assert daemon.listed()[2]["origin"] == "runtime"

    def test_no_configuration(self, pair):
        with Daemon(pair.server, "tcp 8080 to 80") as daemon:
            daemon.add("tcp 9000 to 80")
            assert "-c FILE" in daemon.ctl("save", code=EXIT_FAILED).stderr
