#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What dumps of flows cost, beside `conntrack -L` of nf_conntrack with as many.

Two namespaces with the same established TCP flows over IPv4, one with redirectd, one with nf_conntrack;
rounds go over all ways in turn. Of redirectd a larger table is measured as well: nf_conntrack's limit
is one for the machine, and left as it is. Output goes to /dev/null. Prints the least of all rounds: time,
flows a second, and processor time a million flows, of client and daemon together (nf_conntrack's is
its client's, which does the work in the kernel). Writes JSON with every single figure. Needs root,
conntrack and a build (REDIRECTD_BUILD, default build/). Removes all it made.
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))

from fill import fill  # noqa: E402  pylint: disable=wrong-import-position
from netns import Namespace, Pair  # noqa: E402  pylint: disable=wrong-import-position
from redirectd import REDIRECTCTL, Daemon  # noqa: E402  pylint: disable=wrong-import-position


def address(number):
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


class NfConntrack:
    """A namespace with N entries, put in by conntrack itself."""

    def __init__(self, stack, n):
        self.ns = stack.enter_context(Namespace("bench"))
        self.ns.sysctl("netfilter/nf_conntrack_acct", 1)
        self.processor = lambda: 0
        self.ways = {"conntrack -L": ["conntrack", "-L"], "conntrack -C": ["conntrack", "-C"]}
        self.end = {"conntrack -F": ["conntrack", "-F"]}
        entries = "".join(f"-I -p tcp -s {address(i)} -d 192.0.2.2 --sport {1024 + i % 60000} --dport 8080 "
                          "--state ESTABLISHED -u ASSURED,SEEN_REPLY -t 7200\n" for i in range(n))
        done = self.ns.run("conntrack", "-R", "-", input=entries, timeout=600, check=False)
        self.n = int(self.ns.run("conntrack", "-C").stdout)
        assert self.n > 0.99 * n, f"{self.n} of {n} entries: {done.stderr[-500:]}"

    def command(self, command):
        return self.ns.command(*command)


class Redirectd:
    """A daemon with N flows."""

    def __init__(self, stack, n):
        pair = stack.enter_context(Pair())
        self.daemon = stack.enter_context(Daemon(
            pair.server, config=f"flows-max {n + n // 20}\nredirect tcp 8080 to 80\n"))
        fill(pair.server, "eth0", n)
        self.schedstat = f"/proc/{self.daemon.process.pid}/schedstat"
        self.ways = {f"conntrack {name}": [*options, "conntrack", *name.split()[:1]]
                     for name, options in (("list", []), ("list -j", ["-j"]), ("count", []))}
        self.end = {"conntrack flush": ["conntrack", "flush"]}
        self.n = self.daemon.json("conntrack", "count")["count"]

    def processor(self):
        with open(self.schedstat, encoding="ascii") as f:
            return int(f.read().split()[0]) / 1e9

    def command(self, command):
        return [REDIRECTCTL, "-s", self.daemon.socket, *command]


def measure(table, command, values):
    before, begin = table.processor(), time.perf_counter()
    process = subprocess.Popen(table.command(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    passed = time.perf_counter() - begin
    values.append((passed, used.ru_utime + used.ru_stime, table.processor() - before))


def show(name, n, values):
    passed, client, daemon = (min(column) for column in zip(*values))
    both = min(sum(value[1:]) for value in values)
    print(f"{name:<34}{n:>10,}{passed:>9.3f}{n / passed / 1e6:>9.2f}{both * 1e6 / n:>9.2f}"
          f"{client * 1e6 / n:>9.2f}{daemon * 1e6 / n:>9.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--flows", type=int, default=250_000, help="in each of both (250000)")
    parser.add_argument("--more-flows", type=int, default=1_000_000, help="of redirectd alone (1000000); 0: none")
    parser.add_argument("--json", metavar="FILE", help="write every figure there")
    options = parser.parse_args()
    figures = {}
    with contextlib.ExitStack() as stack:
        tables = {"nf_conntrack": NfConntrack(stack, options.flows), "redirectd": Redirectd(stack, options.flows)}
        if options.more_flows:
            tables["redirectd, more"] = Redirectd(stack, options.more_flows)
        for _ in range(options.rounds):
            for kind, table in tables.items():
                for name, command in table.ways.items():
                    measure(table, command, figures.setdefault((kind, name), []))
        for kind, table in tables.items():
            for name, command in table.end.items():
                measure(table, command, figures.setdefault((kind, name), []))
    print(f"{'least of ' + str(options.rounds):<34}{'flows':>10}{'s':>9}{'M/s':>9}"
          f"{'CPU s/M':>9}{'client':>9}{'daemon':>9}")
    for (kind, name), values in figures.items():
        show(name if kind == "nf_conntrack" else f"redirectctl {name}", tables[kind].n, values)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as f:
            json.dump({"schema": 1, "machine": f"{platform.system()} {platform.release()} {platform.machine()}",
                       "figures": [{"table": kind, "what": name, "flows": tables[kind].n, "seconds": values}
                                   for (kind, name), values in figures.items()]}, f)
            f.write("\n")


if __name__ == "__main__":
    main()
