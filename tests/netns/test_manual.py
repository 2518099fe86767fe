# SPDX-License-Identifier: GPL-2.0-or-later
"""Examples of the manual pages, run as they stand.

Each runs in mount and network namespaces of its own: /etc is an overlay, /run and bpffs are empty,
so that default places can be used. Those that need systemd are run by tests/systemd.
"""

import json
import os
import re
import shlex
import signal
import subprocess

import pytest

from manual import displays
from netns import Namespace, eventually, stop
from peers import TcpEcho, tcp_ask
from redirectd import REDIRECTCTL, REDIRECTD, TREE, Daemon
from test_protocol import INTERFACES, Caller

PAGES = ("redirectctl.8", "redirectd.8", "redirectd.conf.5", "io.redirectd.7")
ELSEWHERE = re.compile(r"\b(systemctl|varlinkctl)\b")

SANDBOX = """
mount -t tmpfs tmpfs /run
mount -t bpf bpf /sys/fs/bpf
mkdir /run/over /run/work
mount -t overlay -o lowerdir=/etc,upperdir=/run/over,workdir=/run/work overlay /etc
mkdir -p /etc/redirectd/rules.d
"""


class Sandbox:
    """A shell in namespaces of its own; what was made in them goes with them."""

    def __init__(self, folder):
        self.folder = folder
        self.ns = Namespace("m")

    def __enter__(self):
        self.ns.__enter__()
        return self

    def __exit__(self, *error):
        self.ns.__exit__(*error)

    def popen(self, script):
        path = f"{os.path.dirname(REDIRECTCTL)}:{os.path.dirname(REDIRECTD)}:{os.environ['PATH']}"
        return self.ns.popen("unshare", "--mount", "--propagation", "private", "sh", "-ec",
                             SANDBOX + script, cwd=self.folder, text=True, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             env={**os.environ, "PATH": path})

    def run(self, script, code=0):
        process = self.popen(script)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == code, f"{script}\nexit {process.returncode}\n{said}"
        return said


@pytest.fixture(name="sandbox")
def sandbox_(tmp_path):
    with Sandbox(tmp_path) as sandbox:
        yield sandbox


def commands(page, program):
    """Displays that are command lines with the program, and need no systemd."""
    return [d for d in displays(page) if re.search(rf"\b{program}\b [^.]", d) and not ELSEWHERE.search(d)]


def with_daemon(script):
    """The script beside a daemon at the default places, with one rule."""
    return ("printf 'include rules.d/*.conf\\nredirect udp 9 to 10 name discard\\n' "
            "> /etc/redirectd/redirectd.conf\n"
            "redirectd 2>/run/log & pid=$!\n"
            "trap 'kill $pid; wait $pid' EXIT\n"
            "for i in $(seq 300); do redirectctl -q status >/dev/null 2>&1 && break; sleep 0.1; done\n"
            f"{script}\n")


class TestRedirectctl:
    def test_there_are_some(self):
        assert len(commands("redirectctl.8", "redirectctl")) >= 7

    @pytest.mark.parametrize("example", commands("redirectctl.8", "redirectctl") +
                             commands("io.redirectd.7", "redirectctl"))
    def test_example(self, sandbox, tmp_path, example):
        (tmp_path / "new.conf").write_text("redirect tcp 8080 to 80\n")
        if "iptables-save" in example:  # which prints nothing where there is nothing
            sandbox.ns.run("iptables", "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "1", "-j",
                           "REDIRECT", "--to-ports", "2")
        sandbox.run(with_daemon(example))

    def test_what_they_do(self, sandbox):
        """Three of them, by what they leave or print."""
        keep, = (d for d in displays("redirectctl.8") if d == "redirectctl save")
        said = sandbox.run(with_daemon(f"redirectctl -q add udp 7 to 8 name echo\n{keep}\n"
                                       "cat /etc/redirectd/rules.d/saved.conf"))
        assert "redirect udp 7 to 8 name echo\n" in said
        install, = (d for d in displays("redirectctl.8") if "install" in d)
        said = sandbox.run("echo redirect tcp 1 to 2 > new.conf\n" + install +
                           "\ncat /etc/redirectd/redirectd.conf")
        assert said.endswith("redirect tcp 1 to 2\n")
        sandbox.run("echo redirect tcp 1 too 2 > new.conf\n" + install, code=6)
        exact, = (d for d in displays("redirectctl.8") if "jq" in d)
        assert sandbox.run(with_daemon(exact)) == "1\t0\n"


class TestRedirectd:
    @pytest.mark.parametrize("example", commands("redirectd.8", "redirectd"))
    def test_example(self, sandbox, example):
        """Each runs in the foreground until it is told to stop."""
        process = sandbox.popen(f"ip netns add blue\nexec {example}\n")
        try:
            said = [process.stdout.readline()]
            while said[-1] and " on " not in said[-1]:
                said.append(process.stdout.readline())
            assert "1 rule on" in said[-1], said
            # unshare and sh have become the daemon: exec all the way.
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            stop(process)

    def test_first_one_redirects(self, sandbox):
        example = next(d for d in displays("redirectd.8") if " -i lo " in d)
        process = sandbox.popen(f"exec {example}\n")
        try:
            with TcpEcho(sandbox.ns, 80):
                eventually(lambda: "1 rule" in process.stdout.readline(), "it runs")
                assert tcp_ask(sandbox.ns, "127.0.0.1", 8080) == b"hello"
                assert process.stdout.readline().startswith("NEW tcp")
        finally:
            stop(process)


class TestConfiguration:
    def test_example(self, sandbox):
        text, = (d for d in displays("redirectd.conf.5", "EXAMPLES") if "\nredirect " in d)
        script = f"cat > /etc/redirectd/redirectd.conf <<'END'\n{text}\nEND\n"
        sandbox.run(f"{script}redirectd -n\nredirectctl check /etc/redirectd/redirectd.conf\n")

    def test_mistake(self, sandbox):
        shown, = (d for d in displays("redirectd.conf.5", "EXAMPLES") if "did you mean" in d)
        line = shown.splitlines()[1].strip()
        number = int(shown.split(":")[1])
        said = sandbox.run(f"cd /etc/redirectd\n: > redirectd.conf\nfor i in $(seq {number - 1}); do "
                           f"echo >> redirectd.conf; done\necho {shlex.quote(line)} >> redirectd.conf\n"
                           "redirectd -n", code=6)
        assert said.rstrip("\n") == shown


class TestProtocol:
    def test_call_and_error(self, pair):
        call, _, error = list(displays("io.redirectd.7", "DESCRIPTION"))[:3]
        with Daemon(pair.server, "tcp 8080 to 80 name other") as daemon, Caller(daemon.socket) as caller:
            assert caller.call(json.loads(call)) == [json.loads(error)]
        with Daemon(pair.server, "tcp 8080 to 80 name web") as daemon, Caller(daemon.socket) as caller:
            assert "parameters" in caller.call(json.loads(call))[0]

    def test_objects(self):
        """Those of the interface definition, whole."""
        interface = INTERFACES["io.redirectd"]
        rule, flow, event = (json.loads(d.replace("{...}", "null"))
                             for d in displays("io.redirectd.7", "OBJECTS"))
        interface.check(("name", "Rule"), rule, "rule")
        interface.check(("name", "Flow"), flow, "flow")
        interface.check(("name", "Event"), {**event, "flow": flow}, "event")


OPTION = r"^  (?:-(\w),|   ) --([a-z-]+)"


def help_of(*verb):
    return subprocess.run([REDIRECTCTL, *verb, "--help"], capture_output=True, text=True, check=True).stdout


class TestHelp:
    def test_add_has_every_option_of_rules(self):
        """Those that the program itself names when it meets another one."""
        said = subprocess.run([REDIRECTCTL, "check", "-"], input="redirect tcp 1 to 2 xyzzy-is-none\n",
                              capture_output=True, text=True, check=False).stderr
        words = said.split("options are ")[1].strip().split(", ")
        assert len(words) > 10
        told = help_of("add")
        for word in [*words, "TARGET", "weight", "burst", "per source", "drain"]:
            assert re.search(rf"(?<![\w-]){word}(?![\w-])", told), word

    @pytest.mark.parametrize("verb", ["list", "stats", "conntrack list", "conntrack get", "conntrack delete"])
    def test_formats_are_told(self, verb):
        """Those that -o accepts."""
        said = subprocess.run([REDIRECTCTL, *verb.split(), "-o", "xyzzy", "-p", "tcp", "-s", "192.0.2.1", "-d",
                               "192.0.2.2", "--sport", "1", "--dport", "1"] if " " in verb else
                              [REDIRECTCTL, verb, "-o", "xyzzy"],
                              capture_output=True, text=True, check=False).stderr
        told = help_of(*verb.split()).split("options of")[0]
        for name in said.split("it is one of ")[1].strip().split(", "):
            assert name in told, name


class TestPages:
    @pytest.mark.parametrize("page", PAGES)
    def test_no_complaints(self, page):
        done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", os.path.join(TREE, "docs", page)],
                              capture_output=True, text=True, check=False, env={**os.environ, "MANWIDTH": "80"})
        assert done.returncode == 0 and not done.stderr, done.stderr

    def test_every_verb_and_option_is_in_the_page(self):
        page = open(os.path.join(TREE, "docs", "redirectctl.8"), encoding="utf-8").read()
        shown = help_of()
        for line in shown.split("verbs:\n")[1].split("\n\n")[0].splitlines():
            verb = line[2:18].strip()
            assert re.search(rf"^\.It Cm {verb}\b", page, re.M), verb
            told = help_of(*verb.split())
            for letter, option in re.findall(OPTION, told, re.M):
                known = f"Fl -{option}" in page or (letter and f"Fl {letter} " in page)
                assert known, f"{verb} --{option}"

    def test_every_option_of_the_daemon_is_in_its_page(self):
        page = open(os.path.join(TREE, "docs", "redirectd.8"), encoding="utf-8").read()
        told = subprocess.run([REDIRECTD, "--help"], capture_output=True, text=True, check=True).stdout
        found = re.findall(OPTION, told, re.M)
        assert len(found) > 9
        for letter, option in found:
            assert re.search(rf"^\.It .*Fl -{option}\b", page, re.M), option
            assert not letter or re.search(rf"^\.It Fl {letter}\b", page, re.M), letter
