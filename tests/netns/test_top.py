# SPDX-License-Identifier: GPL-2.0-or-later
"""`redirectctl top` in a real terminal: what it shows, keys, sizes, and a daemon that comes and goes."""

import contextlib
import os
import re
import signal
import subprocess

import pytest

from netns import Pair, eventually
from peers import Stream, TcpEcho, UdpEcho, tcp_ask, udp_ask
from redirectd import EXIT_FAILED, EXIT_USAGE, REDIRECTCTL, Daemon, ctl_run
from terminal import Terminal

RULES = ("tcp 8080 to 80 name web", "udp 5300 to 53 name dns", "tcp 8443 to 443 name off disabled",
         "tcp 9000-9010 to 7000-7010")


@pytest.fixture(name="net", scope="class")
def net_(pair):
    with Daemon(pair.server, *RULES) as daemon, TcpEcho(pair.server, 80), \
            UdpEcho(pair.server, Pair.SERVER4, 53):
        pair.daemon = daemon
        yield pair


def top(daemon, *arguments, **more):
    return Terminal(REDIRECTCTL, "-s", daemon.socket, "top", "-i", "0.2", *arguments, **more)


@pytest.fixture(name="terminal")
def terminal_(net):
    with top(net.daemon) as terminal:
        terminal.shows("web", "? help")
        yield terminal


def rows(terminal):
    """The table's rows: below the title line, above the last line."""
    lines = terminal.screen().splitlines()
    title = next(i for i, line in enumerate(lines) if re.search("[▼▲]", line))
    return [line for line in lines[title + 1:-1] if line.strip()]


def ids(terminal):
    return [int(row.split()[0]) for row in rows(terminal)]


class TestRules:
    def test_everything_is_there(self, net, terminal):
        screen = terminal.shows("tcp 8080 to 80", "udp 5300 to 53", "dns", "off", "[rules]", "4 rules")
        assert re.search(r"flows +\[[#-]{20}\] \d+\.\d% +\d+ of 262144", screen)
        assert "dropped/s" in screen
        assert max(len(line) for line in screen.splitlines()) <= 80
        number = net.daemon.rule("web")["id"]
        assert any(row.split()[:2] == [str(number), "web"] for row in rows(terminal))

    def test_rates_and_trend(self, net, terminal):
        with Stream(net.client, Pair.SERVER4, 8080) as stream:
            stream.must_go_on()

            def busy():
                row = [r for r in rows(terminal) if " web " in r]
                return row and re.search(r"\d+ (B|KiB|MiB) *[▁-█]*\s*$", row[0]) and row[0]
            eventually(busy, "a rate of bytes")
            terminal.shows("packets/s,")
            eventually(lambda: "█" in terminal.screen(), "a trend")
        with top(net.daemon, columns=120) as wide:
            wide.shows("TREND", "PKTS/S")

    def test_order(self, net, terminal):
        """From BYTES/S to the left: PKTS/S, REFUSED/S, NEW/S, ACTIVE, RULE, NAME, ID."""
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(net.client.connect(Pair.SERVER4, 8080))
            terminal.keys("<", "<", "<", "<")
            terminal.shows("ACTIVE▼")
            web = net.daemon.rule("web")["id"]
            eventually(lambda: ids(terminal)[0] == web, "most flows first")
            terminal.keys("r")
            terminal.shows("ACTIVE▲")
            eventually(lambda: ids(terminal)[-1] == web, "most flows last")
        terminal.keys("<", "<", "<")
        terminal.shows("ID▼")
        eventually(lambda: ids(terminal) == sorted(ids(terminal)), "by id")
        terminal.keys("r")
        eventually(lambda: ids(terminal) == sorted(ids(terminal), reverse=True), "by id, reversed")
        terminal.keys(">")
        terminal.shows("NAME▼")
        eventually(lambda: [r.split()[1] for r in rows(terminal)] == ["-", "dns", "off", "web"], "by name")

    def test_filter(self, terminal):
        terminal.keys("/")
        terminal.shows("filter: _")
        terminal.type("dnq")
        eventually(lambda: not rows(terminal), "nothing fits")
        terminal.keys("BSpace")
        eventually(lambda: len(rows(terminal)) == 1 and "dns" in rows(terminal)[0], "one row")
        terminal.keys("Enter")
        terminal.shows('filter "dn": 1 rows')
        terminal.keys("Escape")
        eventually(lambda: len(rows(terminal)) == 4, "all rows")

    def test_pause(self, net, terminal):
        terminal.keys("Space")
        terminal.shows("(paused)")
        net.daemon.add("tcp 7000 to 7001 name later")
        with top(net.daemon) as other:
            other.shows("later")
        assert "later" not in terminal.screen()
        terminal.keys("Space")
        terminal.shows("later")
        net.daemon.ctl("remove", "later")
        eventually(lambda: "later" not in terminal.screen(), "a removed rule goes")

    def test_help(self, terminal):
        terminal.keys("?")
        screen = terminal.shows("keys", "order by the column", "quit")
        assert "8080" not in screen
        terminal.keys("x")
        terminal.shows("tcp 8080 to 80")

    def test_many_rules_scroll(self, pair):
        config = "".join(f"redirect tcp {p} to 80 name rule-{p}\n" for p in range(10000, 10100))
        with Daemon(pair.server, config=config) as daemon, top(daemon) as terminal:
            terminal.shows("rule-10000")
            terminal.keys("End")
            screen = terminal.shows("rule-10099")
            assert "rule-10000" not in screen
            terminal.keys("Home")
            terminal.shows("rule-10000")
            terminal.keys(*["Down"] * 30)
            terminal.shows("rule-10030")


class TestFlows:
    def test_flows_of_all_and_of_one_rule(self, net, terminal):
        with net.client.connect(Pair.SERVER4, 8080) as s:
            udp_ask(net.client, Pair.SERVER4, 5300)
            port = s.getsockname()[1]
            terminal.keys("Tab")
            screen = terminal.shows("[flows]", f"{Pair.CLIENT4}:{port}", "ESTABLISHED", "UNREPLIED")
            assert f"{Pair.SERVER4}:8080" in screen
            terminal.keys("Escape")
            terminal.shows("[rules]")
            terminal.keys("/")
            terminal.type("dns")
            terminal.keys("Enter")
            eventually(lambda: len(rows(terminal)) == 1, "one rule")
            terminal.keys("Enter")
            screen = terminal.shows(f"[flows of rule {net.daemon.rule('dns')['id']}]", "UNREPLIED")
            assert "ESTABLISHED" not in screen

    def test_ipv6_and_wide(self, net):
        with top(net.daemon, columns=160) as terminal, net.client.connect(Pair.SERVER6, 8080) as s:
            terminal.shows("web")
            terminal.keys("Tab")
            terminal.shows(f"[{Pair.CLIENT6}]:{s.getsockname()[1]}", f"[{Pair.SERVER6}]:8080",
                           f"[{Pair.SERVER6}]:80", "TARGET")

    def test_a_flow_ends(self, pair):
        with Daemon(pair.server, config="timeout udp 1s\nredirect udp 7000 to 53\n") as daemon, \
                UdpEcho(pair.server, Pair.SERVER4, 53), top(daemon) as terminal:
            terminal.shows("udp 7000 to 53")
            terminal.keys("Tab")
            terminal.shows("[flows]")
            udp_ask(pair.client, Pair.SERVER4, 7000)
            terminal.shows("UNREPLIED")
            eventually(lambda: "UNREPLIED" not in terminal.screen(), "the flow goes")


class TestTerminal:
    @pytest.mark.parametrize("columns, lines", [(1, 1), (2, 2), (10, 3), (20, 5), (40, 8), (80, 24), (300, 90)])
    def test_sizes(self, net, columns, lines):
        """Any size is drawn into, and left, without an accident."""
        with top(net.daemon, columns=columns, lines=lines) as terminal:
            if lines > 1:
                eventually(lambda: terminal.screen().strip(), "something is drawn")
            terminal.keys("Tab", "?", "x", "Tab", "Down", "/", "a", "Escape", "<")
            assert terminal.ended() is None
            terminal.resize(80, 24)
            terminal.shows("tcp 8080 to 80", "? help")
            terminal.keys("q")
            assert eventually(lambda: terminal.ended() is not None and [terminal.ended()], "it ends") == [0]

    def test_resized_while_it_runs(self, terminal):
        for columns, lines in ((30, 6), (120, 40), (15, 4), (80, 24)):
            terminal.resize(columns, lines)
            eventually(lambda: len([line for line in terminal.screen().splitlines() if line.strip()]) <= lines
                       and terminal.screen().startswith("redirectd"[:columns]), "the new size")
        terminal.shows("tcp 8080 to 80", "? help")

    @pytest.mark.parametrize("key", ["q", "C-c", "F10"])
    def test_quit(self, terminal, key):
        terminal.keys(key)
        assert eventually(lambda: terminal.ended() is not None and [terminal.ended()], "it ends") == [0]

    def test_terminated(self, terminal):
        os.kill(terminal.pid(), signal.SIGTERM)
        eventually(lambda: terminal.ended() == 0, "it ends, and puts the terminal right")

    def test_no_colour(self, net):
        with top(net.daemon, environment={"NO_COLOR": "1"}) as terminal:
            terminal.shows("web")
            assert not re.search(r"\x1b\[[0-9;]*3[1-7]m", terminal.styled())
        with top(net.daemon) as terminal:
            terminal.shows("web")
            assert re.search(r"\x1b\[[0-9;]*3[1-7]m", terminal.styled())

    def test_without_utf8(self, net):
        with top(net.daemon, environment={"LC_ALL": "C"}) as terminal:
            terminal.shows("tcp 8080 to 80", "BYTES/Sv")
            assert terminal.screen().isascii()

    def test_no_terminal(self, net):
        done = net.daemon.ctl("top", code=EXIT_USAGE)
        assert "terminal" in done.stderr

    def test_unknown_terminal(self, net):
        with top(net.daemon, environment={"TERM": "nosuchterminal"}) as terminal:
            eventually(lambda: terminal.ended() == EXIT_FAILED, "it ends")
            assert "TERM=nosuchterminal" in terminal.history()

    @pytest.mark.parametrize("arguments", [["-i", "0"], ["-i", "x"], ["-j"], ["surplus"]])
    def test_usage(self, arguments):
        assert ctl_run("top", *arguments).returncode == EXIT_USAGE


class TestDaemon:
    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGUSR2, signal.SIGTERM])
    def test_goes_and_comes_back(self, pair, how):
        """What was last known stays, with the reason, until there is a daemon again."""
        with Daemon(pair.server, *RULES) as daemon, TcpEcho(pair.server, 80), top(daemon) as terminal:
            tcp_ask(pair.client, Pair.SERVER4, 8080)
            terminal.shows("tcp 8080 to 80")
            daemon.end(how)
            screen = terminal.shows("trying again: no daemon at")
            assert "tcp 8080 to 80" in screen
            daemon.start()
            eventually(lambda: "trying again" not in terminal.screen(), "the daemon is back")
            terminal.shows("tcp 8080 to 80", "dropped/s")
            assert terminal.ended() is None

    def test_there_was_none(self, pair, tmp_path):
        with Terminal(REDIRECTCTL, "-s", tmp_path / "nobody", "top", "-i", "0.2") as terminal:
            terminal.shows("trying again: no daemon at")
            terminal.keys("Tab", "Enter", "Tab", "?", "x", "End")
            terminal.shows("no daemon at")
            assert terminal.ended() is None

    def test_daemon_that_hangs(self, pair):
        """A daemon that answers nothing: said, and the keys go on working."""
        with Daemon(pair.server, *RULES) as daemon, top(daemon) as terminal:
            terminal.shows("tcp 8080 to 80")
            subprocess.run(["kill", "-STOP", str(daemon.process.pid)], check=True)
            try:
                terminal.shows("has not moved")
                terminal.keys("q")
                assert eventually(lambda: terminal.ended() is not None and [terminal.ended()], "it ends") == [0]
            finally:
                subprocess.run(["kill", "-CONT", str(daemon.process.pid)], check=True)
