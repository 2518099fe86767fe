# SPDX-License-Identifier: GPL-2.0-or-later
"""Completion, in real shells in a terminal; and help at every level."""

import os
import re
import shutil
import subprocess

import pytest

from netns import eventually
from redirectd import BUILD, EXIT_USAGE, REDIRECTCTL, Daemon, ctl_run
from terminal import Terminal


@pytest.fixture(name="net", scope="class")
def net_(pair):
    with Daemon(pair.server, "tcp 8080 to 80 name web-server", "tcp 8443 to 443 name web-secure",
                "udp 53 to 5353") as daemon:
        pair.daemon = daemon
        yield pair


def words(daemon, *line):
    """What the last word may become, without what it means."""
    environment = {**os.environ, "REDIRECTD_SOCKET": str(daemon.socket)} if daemon else os.environ
    done = subprocess.run([REDIRECTCTL, "completion", "words", "--", *line], env=environment, text=True,
                          capture_output=True, check=True, timeout=60)
    assert not done.stderr
    return [word.split("\t")[0] for word in done.stdout.splitlines()]


def verbs():
    """Verbs, by what help lists."""
    shown = ctl_run("--help").stdout.split("verbs:\n")[1].split("\n\n")[0]
    return [line[2:18].strip() for line in shown.splitlines()]


class TestWords:
    def test_every_verb(self, net):
        assert len(verbs()) > 10
        for verb in verbs():
            *before, last = verb.split()
            assert last in words(net.daemon, *before, "")
            assert last in words(net.daemon, *before, last[:2])

    def test_every_option_of_every_verb(self, net):
        for verb in verbs():
            options = re.findall(r"--[a-z-]+", ctl_run(*verb.split(), "--help").stdout.split("options")[1])
            assert set(options) <= set(words(net.daemon, *verb.split(), "--"))

    @pytest.mark.parametrize("line, expected", [
        ("show ", {"web-server", "web-secure", "1", "2", "3"}), ("show web-ser", {"web-server"}),
        ("conntrack ", {"list", "get", "delete", "flush", "count"}),
        ("conntrack list --rule web-", {"web-server", "web-secure"}), ("conntrack get -o e", {"extended"}),
        ("conntrack list -p ", {"tcp", "udp"}), ("conntrack list --state T", {"TIME_WAIT"}),
        ("list -o ", {"table", "rules", "json"}), ("stats -o o", {"openmetrics"}),
        ("import --format rin", {"rinetd"}), ("call Conn", {"Conntrack", "ConntrackCount"}),
        ("add ", {"tcp", "udp", "tcp+udp"}), ("add tcp 80 t", {"to"}), ("add tcp 80 to ", set()),
        ("add tcp 80 to 81 mas", {"masquerade"}), ("add tcp 80 to 81 on e", {"eth0"}),
        ("add tcp 80 to 81 name ", set()), ("add tcp 80 to 81 disabled na", {"name"}),
        ("completion ", {"bash", "zsh", "fish"}), ("check ", {":files"}), ("-s ", {":files"}),
        ("nosuch ", set()), ("nosuch", set()), ("-j sho", {"show"}), ("help conn", {"conntrack"})])
    def test_lines(self, net, line, expected):
        found = set(words(net.daemon, *line.split(" ")))
        assert expected <= found if line in ("call Conn",) else found == expected

    def test_socket_of_the_line(self, net):
        """The rules are those of the daemon that the line is for."""
        assert words(None, "-s", net.daemon.socket, "show", "web-se") == ["web-server", "web-secure"]

    def test_without_a_daemon(self, tmp_path):
        assert words(None, "-s", str(tmp_path / "nobody"), "show", "") == []

    def test_rules_keywords_are_the_grammars(self, net):
        """Each option that is offered is one that the parser knows."""
        for keyword in words(net.daemon, "add", "tcp", "80", "to", "81", ""):
            done = ctl_run("-n", "add", "tcp", "80", "to", "81", keyword)
            assert "unknown option" not in done.stderr, keyword


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source {0}/redirectctl"),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit; compinit -u -D; source {0}/_redirectctl"),
    "fish": (["fish", "--no-config", "-i"], "source {0}/redirectctl.fish"),
}


@pytest.mark.parametrize("shell", SHELLS)
class TestShells:
    @pytest.fixture(name="terminal")
    def terminal_(self, net, shell, tmp_path):
        command, setup = SHELLS[shell]
        if not shutil.which(shell) and os.environ.get("CI") != "true":
            pytest.skip(f"{shell} is not installed; run: ./quickstart --deps-tests")
        environment = {"PATH": f"{os.path.dirname(REDIRECTCTL)}:{os.environ['PATH']}", "HOME": str(tmp_path),
                       "REDIRECTD_SOCKET": net.daemon.socket, "PS1": "> ", "XDG_CONFIG_HOME": str(tmp_path)}
        with Terminal(*net.server.command(*command), environment=environment) as terminal:
            eventually(lambda: terminal.screen().strip(), "a prompt")
            terminal.type(f"{setup.format(os.path.join(BUILD, 'ctl', 'completion'))}; clear; echo rea''dy")
            terminal.keys("Enter")
            terminal.shows("ready")
            yield terminal

    def test_verb(self, terminal):
        terminal.type("redirectctl rem")
        terminal.keys("Tab")
        terminal.shows("redirectctl remove")

    def test_several(self, terminal):
        terminal.type("redirectctl sta")
        terminal.keys("Tab", "Tab", "Tab")  # bash: the common part, nothing, the list
        terminal.shows("stats", "status")

    def test_second_word_and_option(self, terminal):
        terminal.type("redirectctl conntrack co")
        terminal.keys("Tab")
        terminal.shows("conntrack count")
        terminal.type("--pro")
        terminal.keys("Tab")
        terminal.shows("conntrack count --protocol")

    def test_name_of_a_rule(self, terminal):
        terminal.type("redirectctl show web-ser")
        terminal.keys("Tab")
        terminal.shows("show web-server")
        terminal.keys("Enter")
        terminal.shows("tcp 8080 to 80")

    def test_interface(self, terminal):
        terminal.type("redirectctl add tcp 1 to 2 on et")
        terminal.keys("Tab")
        terminal.shows("on eth0")

    def test_file(self, terminal, tmp_path):
        (tmp_path / "some-long-name.conf").write_text("redirect tcp 1 to 2\n")
        terminal.type(f"redirectctl check {tmp_path}/some")
        terminal.keys("Tab")
        eventually(lambda: "some-long-name.conf" in terminal.screen().replace("\n", ""), "the file's name")
        terminal.keys("Enter")
        terminal.shows("1 rule, no errors")


class TestScripts:
    @pytest.mark.parametrize("shell, name", [("bash", "redirectctl"), ("zsh", "_redirectctl"),
                                             ("fish", "redirectctl.fish")])
    def test_what_is_installed_is_what_is_printed(self, shell, name):
        with open(os.path.join(BUILD, "ctl", "completion", name), encoding="utf-8") as f:
            assert f.read() == ctl_run("completion", shell).stdout

    def test_shellcheck(self):
        done = subprocess.run(["shellcheck", "-s", "bash", "-"], input=ctl_run("completion", "bash").stdout,
                              text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout

    @pytest.mark.parametrize("arguments", [["completion"], ["completion", "tcsh"], ["completion", "bash", "zsh"]])
    def test_refused(self, arguments):
        assert ctl_run(*arguments).returncode == EXIT_USAGE


class TestHelp:
    def test_every_level(self):
        for verb in verbs():
            shown = ctl_run(*verb.split(), "--help").stdout
            assert shown.startswith(f"usage: redirectctl {verb}"), shown
            assert ctl_run("help", *verb.split()).stdout == shown
            assert max(map(len, shown.splitlines())) <= 100
        assert ctl_run("help").stdout == ctl_run("--help").stdout

    def test_group(self):
        shown = ctl_run("conntrack", "--help").stdout
        assert ctl_run("help", "conntrack").stdout == shown
        assert "conntrack count" in shown and "remove" not in shown

    @pytest.mark.parametrize("environment, colours", [({}, True), ({"NO_COLOR": "1"}, False),
                                                      ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)])
    def test_colours_on_a_terminal(self, environment, colours):
        with Terminal(REDIRECTCTL, "--help", lines=50, environment=environment) as terminal:
            terminal.shows("verbs:", "redirectctl(8)")
            assert ("\x1b[1m" in terminal.styled()) == colours

    def test_no_colours_elsewhere(self):
        assert "\x1b" not in ctl_run("--help").stdout
