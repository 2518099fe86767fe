# SPDX-License-Identifier: GPL-2.0-or-later
"""The real units under a real systemd, from a fresh build on Debian 13."""

import json
import re

import pytest

from manual import displays
from netns import eventually

SOCKET = "/run/redirectd/io.redirectd"
PEER = r"""
import socket, sys, threading
def serve(c):
    while data := c.recv(100):
        c.sendall(data)
listener = socket.create_server(("", 80), family=socket.AF_INET6, dualstack_ipv6=True)
print("listening", flush=True)
while True:
    c, _ = listener.accept()
    threading.Thread(target=serve, args=(c,), daemon=True).start()
"""
# Talks on for ever; each answered message is a line in the file.
STREAM = r"""
import socket, time
s = socket.create_connection(("127.0.0.1", 8080), timeout=20)
with open("/run/stream", "w") as f:
    n = 0
    while True:
        s.sendall(b"%08d" % n)
        assert s.recv(100) == b"%08d" % n
        n += 1
        print(n, file=f, flush=True)
        time.sleep(0.01)
"""


def state(box, unit="redirectd.service"):
    return box.run("systemctl", "is-active", unit)[1].strip()


def show(box, key, unit="redirectd.service"):
    return box.run("systemctl", "show", "-P", key, unit)[1].strip()


def varlink(box, method, parameters="{}"):
    said = box.shell(f"varlinkctl call --json=short unix:{SOCKET} io.redirectd.{method} '{parameters}'")
    return json.loads(said)


def pins(box):
    """What lies on the bpffs; the kernel's own maps.debug and progs.debug left out."""
    return [name for name in box.shell("ls /sys/fs/bpf").split() if not name.endswith(".debug")]


def failed(box):
    return box.journal() + box.run("systemctl", "status", "--no-pager", "redirectd.service")[1]


@pytest.fixture(scope="class")
def box(booted):
    """Web server on port 80, a configuration, and the services as they are after the install."""
    booted.shell("cat > /etc/redirectd/redirectd.conf <<'END'\nredirect tcp 8080 to 80 name web\nEND")
    for name, text in (("peer", PEER), ("stream", STREAM)):
        booted.shell(f"cat > /run/{name}.py <<'END'\n{text}\nEND")
    booted.shell("systemd-run --unit=peer python3 /run/peer.py")
    eventually(lambda: ":80" in booted.shell("ss -Hltn"), "the peer listens")
    booted.shell("systemctl daemon-reload")
    yield booted
    booted.run("systemctl", "stop", "redirectd.service", "redirectd.socket", "peer", "stream")
    booted.run("systemctl", "reset-failed")


@pytest.fixture
def running(box):
    code, said = box.run("systemctl", "start", "redirectd.service")
    assert code == 0, said + failed(box)
    yield box
    box.run("systemctl", "stop", "redirectd.service")
    box.run("systemctl", "reset-failed")


@pytest.fixture
def quick_watchdog(running):
    """The service started with a watchdog that bites soon, though not on a busy machine.

    Stopped first: a shorter time that is read while the service runs holds for that process at once,
    which feeds the dog by the longer one.
    """
    folder = "/run/systemd/system/redirectd.service.d"
    running.shell("systemctl stop redirectd.service")
    running.shell(f"mkdir -p {folder} && printf '[Service]\\nWatchdogSec=3s\\n' > {folder}/w.conf")
    try:
        running.shell("systemctl daemon-reload && systemctl start redirectd.service")
        yield running
    finally:
        running.shell(f"rm -r {folder}; systemctl daemon-reload")


def fetch(box, code=0):
    return box.shell("python3 -c 'import socket; s = socket.create_connection((\"127.0.0.1\", 8080), 10); "
                     "s.sendall(b\"hi\"); assert s.recv(9) == b\"hi\"'", code)


class TestInstalled:
    def test_unit_tests_pass_on_debian_13(self, installed):
        code, said = installed.chroot("meson test -C /root/build --no-rebuild --print-errorlogs --suite unit")
        assert code == 0, said[-6000:]

    def test_files_are_in_place(self, installed):
        code, said = installed.chroot(
            "ls -l /usr/sbin/redirectd /usr/bin/redirectctl /etc/redirectd/redirectd.conf "
            "/usr/lib/systemd/system/redirectd.service /usr/lib/systemd/system/redirectd.socket "
            "/usr/lib/sysusers.d/redirectd.conf /usr/lib/tmpfiles.d/redirectd.conf "
            "/usr/share/man/man8/redirectd.8 /usr/share/man/man8/redirectctl.8 "
            "/usr/share/man/man5/redirectd.conf.5; test -d /etc/redirectd/rules.d; "
            "getent group redirectd; redirectd -V; redirectctl -V; redirectd -n")
        assert code == 0, said


class TestUnit:
    def test_units_are_well_formed(self, box):
        said = box.shell("systemd-analyze verify --man=no redirectd.service redirectd.socket 2>&1")
        assert "redirectd" not in said, said

    def test_exposure(self, box):
        """The sandbox is not to erode unseen."""
        said = box.shell("systemd-analyze security --no-pager redirectd.service")
        level = float(re.search(r"Overall exposure level for redirectd.service: ([0-9.]+)", said)[1])
        assert level < 4.0, said

    def test_starts_ready_and_redirects(self, running):
        assert state(running) == "active"
        fetch(running)
        assert varlink(running, "List")["rules"][0]["name"] == "web"
        status = varlink(running, "Status")
        assert str(status["pid"]) == show(running, "MainPID")

    def test_capabilities(self, running):
        """CAP_NET_ADMIN (12), CAP_PERFMON (38), CAP_BPF (39), and no other."""
        said = running.shell(f"grep CapEff /proc/{show(running, 'MainPID')}/status")
        assert int(said.split()[1], 16) == 1 << 12 | 1 << 38 | 1 << 39

    def test_introspection(self, running):
        said = running.shell(f"varlinkctl introspect unix:{SOCKET} io.redirectd 2>&1")
        assert "method List" in said
        assert "io.redirectd" in running.shell(f"varlinkctl info unix:{SOCKET}")

    @pytest.mark.parametrize("example", [d for page in ("redirectd.8", "io.redirectd.7")
                                         for d in displays(page) if re.search("systemctl|varlinkctl", d)])
    def test_examples_of_the_manual(self, running, example):
        """Those that tests/netns/test_manual.py has nothing to run with."""
        running.shell(example)

    def test_metrics(self, running):
        """The units of docs/METRICS.md, as they are installed."""
        running.shell("cd /usr/share/doc/redirectd/metrics && cp redirectd-metrics.socket "
                      "redirectd-metrics@.service redirectd-textfile.service /etc/systemd/system/ && "
                      "systemctl daemon-reload && systemctl start redirectd-metrics.socket")
        said = running.shell("python3 -c 'import urllib.request as u; "
                             "print(u.urlopen(\"http://127.0.0.1:9617/metrics\").read().decode())'")
        assert "redirectd_rule_info{" in said and said.rstrip().endswith("# EOF")
        running.shell("mkdir -p /var/lib/prometheus/node-exporter && systemctl start redirectd-textfile.service")
        assert running.shell("cat /var/lib/prometheus/node-exporter/redirectd.prom").endswith("# EOF\n")
        running.shell("systemctl stop redirectd-metrics.socket")

    def test_stream(self, running):
        """varlinkctl takes a stream; the first reply of Monitor comes at once."""
        said = running.shell(f"timeout 5 stdbuf -oL varlinkctl call --more --json=short unix:{SOCKET} "
                             "io.redirectd.Monitor '{}' || test $? = 124")
        assert '"events":[]' in said

    def test_anybody_reads_group_changes(self, running):
        nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups --"
        group = running.shell("getent group redirectd").split(":")[2]
        running.shell(f"{nobody} redirectctl list")
        running.shell(f"{nobody} redirectctl add tcp 1 to 2", 4)
        running.shell(f"setpriv --reuid=65534 --regid=65534 --groups={group} -- redirectctl add tcp 1 to 2")

    def test_reload(self, running):
        pid = show(running, "MainPID")
        running.shell("echo 'redirect tcp 8081 to 80 name second' >> /etc/redirectd/redirectd.conf")
        try:
            running.shell("systemctl reload redirectd.service")
            eventually(lambda: [r["name"] for r in varlink(running, "List")["rules"]] == ["web", "second"],
                       "both rules are there")
            assert show(running, "MainPID") == pid
        finally:
            running.shell("sed -i 2d /etc/redirectd/redirectd.conf")

    def test_restart_keeps_the_flow(self, running):
        running.shell("redirectctl -q add tcp 8082 to 80 name runtime")
        running.shell("systemd-run --unit=stream python3 /run/stream.py")
        try:
            def count():
                return int((running.shell("tail -n 1 /run/stream 2>/dev/null || true").strip() or "0"))
            eventually(lambda: count() > 5, "the stream runs")
            for command in ("systemctl restart redirectd.service",
                            "systemctl kill -s KILL redirectd.service"):
                pid = show(running, "MainPID")
                running.shell(command)
                eventually(lambda p=pid: show(running, "MainPID") not in (p, "0") and
                           state(running) == "active", f"active again after {command}")
                goal = count() + 20
                eventually(lambda g=goal: count() > g, f"the stream goes on after {command}")
                assert state(running, "stream.service") == "active"
                assert varlink(running, "Status")["adopted"] is True
                names = [r["name"] for r in varlink(running, "List")["rules"]]
                assert names == ["web", "runtime"]
            flow, = [f for f in varlink(running, "Conntrack")["flows"] if f["state"] == "ESTABLISHED"]
            assert flow["original"]["packets"] >= goal
        finally:
            running.run("systemctl", "stop", "stream.service")

    def test_stop_takes_everything_away(self, running):
        fetch(running)
        assert pins(running) == ["redirectd"]
        running.shell("systemctl stop redirectd.service")
        assert state(running) == "inactive"
        assert pins(running) == []
        running.shell(f"test -e {SOCKET}", 1)
        fetch(running, 1)

    def test_watchdog_is_fed(self, quick_watchdog):
        """Longer than the time the unit allows, shortened for this test: it must still be the same process."""
        box = quick_watchdog
        pid = show(box, "MainPID")
        first = show(box, "WatchdogTimestampMonotonic")
        for _ in range(4):
            eventually(lambda t=first: show(box, "WatchdogTimestampMonotonic") != t, "the dog is fed")
            first = show(box, "WatchdogTimestampMonotonic")
        assert show(box, "MainPID") == pid
        assert show(box, "NRestarts") == "0"

    def test_watchdog_bites_a_daemon_that_hangs(self, quick_watchdog):
        box = quick_watchdog
        pid = show(box, "MainPID")
        box.shell(f"kill -STOP {pid}")
        eventually(lambda: show(box, "MainPID") not in (pid, "0") and state(box) == "active",
                   "a new process took over")
        fetch(box)

    def test_bad_configuration_fails_once_and_says_where(self, box):
        box.shell("echo 'redirect tcp 8081 too 80' >> /etc/redirectd/redirectd.conf")
        try:
            assert box.run("systemctl", "start", "redirectd.service")[0] != 0
            assert "/etc/redirectd/redirectd.conf:2:" in box.journal()
            assert show(box, "NRestarts") == "0"
            assert show(box, "ExecMainStatus") == "6"
        finally:
            box.shell("sed -i 2d /etc/redirectd/redirectd.conf; systemctl reset-failed")

    def test_socket_activation(self, box):
        """Only the socket is started; the first client starts the daemon."""
        box.shell("systemctl start redirectd.socket")
        assert state(box) == "inactive"
        assert box.shell(f"stat -c %a {SOCKET}").strip() == "666"
        assert "8080" in box.shell("redirectctl list")
        assert state(box) == "active"
        box.shell("systemctl stop redirectd.service")
        box.shell("redirectctl list", 3)

    def test_journal_has_priorities(self, running):
        said = running.shell("journalctl -q -u redirectd.service -o json -n 50")
        lines = [json.loads(line) for line in said.splitlines()]
        own = [x for x in lines if x.get("_COMM") == "redirectd"]
        assert own
        assert not any(str(x["MESSAGE"]).startswith("<") for x in own)
