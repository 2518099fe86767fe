#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""How long many rules take: start, reload, one more, one less; and that they work then.

Each set of rules is a configuration file of its own, read by a daemon in a namespace; a client's
connection through the last rule has to reach the server. Prints medians and the least of each step
and the daemon's memory, and JSON with every single figure. Needs root and a build (REDIRECTD_BUILD, default build/). Removes all
it made.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))

from netns import Namespace, veth  # noqa: E402  pylint: disable=wrong-import-position
from peers import TcpEcho, tcp_ask  # noqa: E402  pylint: disable=wrong-import-position
from redirectd import Daemon  # noqa: E402  pylint: disable=wrong-import-position

SERVER, ROUTER = "198.51.100.2", "192.0.2.1"


def address(number):
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def targets(number, n):
    return ",".join(f"{address(number * n + i)}:80" for i in range(n))


# Name: the rules but the last, and what the last one takes. The last leads to the server.
SETS = {
    "1 rule": ([], "tcp 8080", (ROUTER, 8080)),
    "65,000 rules, a port each": ([f"tcp {p} to {address(p)}:80" for p in range(1, 65000)], "tcp 65000",
                                  (ROUTER, 65000)),
    "10,000 rules on one port, an address each": (
        [f"tcp {address(n)}:80 to {address(n)}:8080" for n in range(1, 10000)], f"tcp {address(10000)}:80",
        (address(10000), 80)),
    "4,000 rules, 2 targets each, maglev": (
        [f"tcp {p} to {targets(p, 2)} balance maglev" for p in range(1, 4000)], "tcp 4000", (ROUTER, 4000)),
    "4,000 rules, 32 targets each, maglev": (
        [f"tcp {p} to {targets(p, 32)} balance maglev" for p in range(1, 4000)], "tcp 4000", (ROUTER, 4000)),
}


class Clock:
    """Collects seconds under names."""

    def __init__(self):
        self.seconds = {}

    @contextlib.contextmanager
    def __call__(self, name):
        begin = time.monotonic()
        yield
        self.seconds.setdefault(name, []).append(time.monotonic() - begin)


class Bench:
    """A client, a router that redirectd runs on, a server behind it."""

    def __init__(self, stack):
        self.client, self.router, self.server = (stack.enter_context(Namespace(n)) for n in "crs")
        veth(self.client, "eth0", ["192.0.2.2/24"], self.router, "in", [f"{ROUTER}/24"])
        veth(self.server, "eth0", [f"{SERVER}/24"], self.router, "out", ["198.51.100.1/24"])
        self.router.sysctl("ipv4/ip_forward", 1)
        self.router.sysctl("ipv4/conf/lo/accept_local", 1)
        self.client.run("ip", "route", "add", "default", "via", ROUTER)
        self.server.run("ip", "route", "add", "default", "via", "198.51.100.1")
        stack.enter_context(TcpEcho(self.server, 80))

    def measure(self, rules, last, where):
        clock = Clock()
        text = "".join(f"redirect {r}\n" for r in rules)
        final = f"redirect {last} to {SERVER}:80 name last\n"
        daemon = Daemon(self.router, config=text + final)
        with contextlib.ExitStack() as stack:
            with clock("start"):
                stack.enter_context(daemon)
            assert tcp_ask(self.client, *where) == b"hello"
            with clock("reload, nothing changed"):
                daemon.ctl("reload")
            daemon.write(text + final + "redirect udp 7 to 8 name more\n")
            with clock("reload, one rule more"):
                daemon.ctl("reload")
            with clock("add"):
                daemon.ctl("add", "udp", "9", "to", "10", "name", "nine")
            with clock("remove"):
                daemon.ctl("remove", "nine")
            with clock("list"):
                assert len(daemon.json("list")["rules"]) == len(rules) + 2
            memory = resident(daemon.process.pid)
            daemon.end(signal.SIGKILL)
            with clock("start over it"):
                daemon.start()
            assert tcp_ask(self.client, *where) == b"hello"
        return clock.seconds, memory


def resident(pid):
    """MiB that a process has in memory of its own: not what it shares with the kernel's maps."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("RssAnon:")) // 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="where to write every figure")
    options = parser.parse_args()
    figures = {name: {} for name in SETS}
    with contextlib.ExitStack() as stack:
        bench = Bench(stack)
        for _ in range(options.rounds):
            for name, (rules, last, where) in SETS.items():
                seconds, memory = bench.measure(rules, last, where)
                for step, values in seconds.items():
                    figures[name].setdefault(step, []).extend(values)
                figures[name].setdefault("memory, MiB", []).append(memory)
    for name, steps in figures.items():
        print(f"{name:27} {'median':>8} {'least':>8}")
        for step, values in steps.items():
            print(f"  {step:25} {statistics.median(values):8.3f} {min(values):8.3f}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as f:
            json.dump(figures, f, indent=1)


main()
