#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What changes of rules cost: a whole file applied, and one rule among many.

A daemon in a namespace of its own, with N rules for several N. "verb" is a whole run of redirectctl,
"call" one call on a connection that is open already, until the answer is there. Prints in milliseconds
the least time of all rounds, and behind it the least processor time that client and daemon took for
it: other work on the machine only adds. Writes JSON with every single figure. Needs root and a build (REDIRECTD_BUILD,
default build/). Removes all it made.
"""

import argparse
import contextlib
import json
import os
import platform
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))

from netns import Namespace  # noqa: E402  pylint: disable=wrong-import-position
from redirectd import REDIRECTCTL, Daemon  # noqa: E402  pylint: disable=wrong-import-position


def rules_file(daemon, kind, n):
    """N rules, of ports of their own, or all of one port, told apart by the client."""
    if kind == "ports":
        lines = (f"redirect tcp {1000 + i} to 80 name r{i}\n" for i in range(n))
    else:
        lines = (f"redirect tcp 8080 to 80 from 10.{i >> 16}.{i >> 8 & 255}.{i & 255} name r{i}\n"
                 for i in range(n))
    return daemon.file(f"{kind}.conf", "".join(lines))


class Caller:
    """One connection; the answer to a call."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def call(self, method, **parameters):
        self.socket.sendall(json.dumps({"method": f"io.redirectd.{method}",
                                        "parameters": parameters}).encode() + b"\0")
        answer = b""
        while not answer.endswith(b"\0"):
            answer += self.socket.recv(1 << 20)
        assert b'"error"' not in answer, answer[:500]


class Clock:
    """Time, and processor time of the daemon and of children that have ended, in milliseconds."""

    def __init__(self, daemon):
        self.schedstat = f"/proc/{daemon.process.pid}/schedstat"

    def processor(self):
        with open(self.schedstat, encoding="ascii") as f:
            daemon = int(f.read().split()[0]) / 1e6
        children = os.times()
        return daemon + (children.children_user + children.children_system) * 1000

    @contextlib.contextmanager
    def timed(self, values):
        begin = time.perf_counter(), self.processor()
        yield
        values.append(((time.perf_counter() - begin[0]) * 1000, self.processor() - begin[1]))


def run(daemon, *arguments):
    subprocess.run([REDIRECTCTL, "-q", "-s", daemon.socket, *arguments], check=True, stdout=subprocess.DEVNULL)


def measure(kind, n, rounds):
    figures = {name: [] for name in ("apply N rules, verb", "apply again, verb", "add one, verb", "add one, call",
                                     "disable one, call", "remove one, call", "remove N rules, verb")}
    one = "tcp 900 to 80 name one" if kind == "ports" else "tcp 8080 to 80 from 11.0.0.1 name one"
    with Namespace("bench") as ns, Daemon(ns, config="") as daemon, Caller(daemon.socket) as caller:
        timed = Clock(daemon).timed
        path, empty = rules_file(daemon, kind, n), daemon.file("empty.conf", "")
        for _ in range(rounds):
            with timed(figures["apply N rules, verb"]):
                run(daemon, "apply", "-f", path)
            with timed(figures["apply again, verb"]):
                run(daemon, "apply", "-f", path)
            for _ in range(5):
                with timed(figures["add one, verb"]):
                    run(daemon, "add", one)
                caller.call("Remove", rule="one")
                with timed(figures["add one, call"]):
                    caller.call("Add", rule=one)
                with timed(figures["disable one, call"]):
                    caller.call("Disable", rule="one")
                with timed(figures["remove one, call"]):
                    caller.call("Remove", rule="one")
            with timed(figures["remove N rules, verb"]):
                run(daemon, "apply", "--replace", "-f", empty)
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--rules", type=int, nargs="+", default=[100, 1000, 10000, 50000])
    parser.add_argument("--kinds", nargs="+", choices=("ports", "clients"), default=["ports", "clients"])
    parser.add_argument("--json", metavar="FILE", help="write every figure there")
    options = parser.parse_args()
    document = {"schema": 1, "machine": f"{platform.system()} {platform.release()} {platform.machine()}",
                "rounds": options.rounds, "figures": {}}
    for kind in options.kinds:
        by_n = {n: measure(kind, n, options.rounds) for n in options.rules}
        document["figures"][kind] = by_n
        print(f"{kind + ', least ms: passed / processor':<36}" + "".join(f"{n:>18,}" for n in options.rules))
        for name in next(iter(by_n.values())):
            least = [[min(column) for column in zip(*by_n[n][name])] for n in options.rules]
            print(f"{name:<36}" + "".join(f"{passed:>10.2f} /{used:>6.2f}" for passed, used in least))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as f:
            json.dump(document, f)
            f.write("\n")


if __name__ == "__main__":
    main()
