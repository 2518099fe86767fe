#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The flow table beside nf_conntrack's, on this machine: memory, first packets, idle flows.

Every way has namespaces of its own: nothing in between, redirectd, nftables. UDP datagrams from
clients that were never seen before go to a port that is redirected on the server; a socket there
takes them and lets them fall. Load and redirector share one CPU; the ways take turns within each
round. Prints a table, and JSON with every figure. Needs root, nft, bpftool, gcc and a build
(REDIRECTD_BUILD, default build/). Removes all it made.
"""

import argparse
import contextlib
import glob
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))

from engines import forget_connections  # noqa: E402  pylint: disable=wrong-import-position
from netns import Pair  # noqa: E402  pylint: disable=wrong-import-position
from redirectd import Daemon  # noqa: E402  pylint: disable=wrong-import-position
from traffic import nft_table, on_processor, softirq_thread  # noqa: E402  pylint: disable=wrong-import-position

LISTEN, TARGET = 7000, 7001
WAYS = ("direct", "redirectd", "nftables")
TABLE = ("flows", "flow_index", "flow_locks")  # the maps that grow with flows-max, and their locks


class Way:
    """A client, a server, and what redirects there."""

    def __init__(self, name, flows_max=None):
        self.name, self.flows_max = name, flows_max
        self.port = TARGET if name == "direct" else LISTEN
        self.clients = 0  # that were seen
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.net = stack.enter_context(Pair())
            server = self.net.server
            sink = stack.enter_context(server.open_socket(socket.AF_INET, socket.SOCK_DGRAM))
            sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            sink.bind(("0.0.0.0", TARGET))
            self.softirqs = softirq_thread(next(iter(os.sched_getaffinity(0))))
            if self.name == "redirectd":
                self.daemon = stack.enter_context(Daemon(
                    server, config=f"flows-max {self.flows_max}\ntimeout udp 1d\n"
                                   f"redirect udp {LISTEN} to {TARGET} name r\n"))
            elif self.name == "nftables":
                server.run("nft", "-f", "-", input=nft_table(
                    [f"udp dport {LISTEN} redirect to :{TARGET}"], []))
                server.sysctl("netfilter/nf_conntrack_acct", 1)  # redirectd counts always
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self.stack.__exit__(*error)

    def fresh(self, packets, count):
        """Nanoseconds of processor time that a first packet takes on its whole way."""
        before = on_processor(self.softirqs)
        process = subprocess.Popen(self.net.client.command(packets, "fresh", Pair.SERVER4, self.port,
                                                           self.clients, count))
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{self.name}: packets: exit {process.returncode}")
        self.clients += count
        seconds = usage.ru_utime + usage.ru_stime + on_processor(self.softirqs) - before
        known = self.known()
        if self.name != "direct" and known < self.clients:
            raise SystemExit(f"{self.name}: {known} flows of {self.clients} clients")
        return seconds / count * 1e9

    def known(self):
        if self.name == "redirectd":
            return self.daemon.json("stats")["flows"]["created"]
        if self.name == "nftables":
            return int(self.net.server.run("cat", "/proc/sys/net/netfilter/nf_conntrack_count").stdout)
        return 0

    def forget(self):
        """Keeps the kernel's table, whose size is the whole machine's, far from full."""
        if self.name == "nftables":
            forget_connections(self.net.server)
            self.clients = 0


def first_packets(options, packets):
    figures = {name: [] for name in WAYS}
    with contextlib.ExitStack() as stack:
        ways = [stack.enter_context(Way(name, (options.rounds + 2) * options.count)) for name in WAYS]
        for number in range(-1, options.rounds):  # the first is for the caches
            for way in ways[number % 3:] + ways[:number % 3]:
                ns = way.fresh(packets, options.count)
                way.forget()
                if number >= 0:
                    figures[way.name].append(ns)
            print(f"first packets: round {number + 1} of {options.rounds} done", file=sys.stderr)
    return figures


def own_memory(daemon, flows_max):
    """Bytes a flow of the maps that hold flows, by the kernel's account."""
    total = 0
    for name in TABLE:
        path, = glob.glob(f"{daemon.pins}/v*/{name}")
        shown = json.loads(subprocess.run(["bpftool", "-j", "map", "show", "pinned", path], check=True,
                                          capture_output=True, text=True).stdout)
        total += int(shown["bytes_memlock"])
    return total / flows_max


def slabs():
    """Objects in use and the bytes that one takes in its slab, by cache."""
    with open("/proc/slabinfo", encoding="ascii") as f:
        lines = [line.split() for line in f.readlines()[2:]]
    page = os.sysconf("SC_PAGE_SIZE")
    return {w[0]: (int(w[1]), page * int(w[5]) / int(w[4])) for w in lines}


def kernel_memory(packets):
    """Bytes a connection: of the caches that grow by an object for each, and its share of the buckets."""
    with open("/proc/sys/net/netfilter/nf_conntrack_buckets", encoding="ascii") as f:
        buckets = int(f.read())
    with open("/proc/sys/net/netfilter/nf_conntrack_max", encoding="ascii") as f:
        most = int(f.read())
    count = most * 3 // 4
    with Way("nftables") as way:
        before = slabs()
        way.fresh(packets, count)
        after = slabs()
    grown = {name: size * round((n - before[name][0]) / count) for name, (n, size) in after.items()
             if name in before}
    return sum(grown.values()) + 8 * buckets / most


def idle(options, packets):
    """Per cent of a processor that the daemon takes while nothing comes, and the memory of a flow."""
    with Way("redirectd", options.flows + options.flows // 4) as way:
        way.fresh(packets, options.flows)
        memory = own_memory(way.daemon, way.flows_max)
        time.sleep(2)
        pid = way.daemon.process.pid
        begin, before = time.monotonic(), on_processor(pid)
        time.sleep(options.idle)
        share = 100 * (on_processor(pid) - before) / (time.monotonic() - begin)
        active = way.daemon.json("stats")["flows"]["active"]
        if active < options.flows:
            raise SystemExit(f"{active} flows of {options.flows} are there")
    return share, memory


def report(options, figures, share, memory, theirs):
    gross = {name: statistics.median(values) for name, values in figures.items()}
    net = {name: statistics.median(v - d for v, d in zip(figures[name], figures["direct"])) for name in WAYS}
    print(f"{'':<44}{'redirectd':>12}{'nf_conntrack':>14}")
    print(f"{'memory, bytes a flow':<44}{memory:>12.0f}{theirs:>14.0f}")
    print(f"{'first packet, ns beyond the direct one':<44}{net['redirectd']:>12.0f}{net['nftables']:>14.0f}")
    print(f"{'first packet, ns on its whole way (direct %.0f)' % gross['direct']:<44}"
          f"{gross['redirectd']:>12.0f}{gross['nftables']:>14.0f}")
    print(f"{options.flows} idle flows, % of a processor{'':<14}{share:>10.2f}{'-':>14}")
    return {"memory": {"redirectd": memory, "nf_conntrack": theirs}, "first_packet": figures,
            "idle_percent": share}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--count", type=int, default=50000, help="first packets of a round")
    parser.add_argument("--flows", type=int, default=1000000, help="that are idle")
    parser.add_argument("--idle", type=int, default=60, help="seconds")
    parser.add_argument("--cpu", default="0", help="the one CPU that everything shares")
    parser.add_argument("--json", metavar="FILE", help="write every figure there")
    return parser.parse_args()


def main():
    options = arguments()
    os.sched_setaffinity(0, {int(options.cpu)})
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    with tempfile.TemporaryDirectory(prefix="redirectd-bench.") as work:
        packets = f"{work}/packets"
        subprocess.run(["gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", os.path.join(HERE, "packets.c"),
                        "-o", packets], check=True)
        share, memory = idle(options, packets)
        theirs = kernel_memory(packets)
        result = report(options, first_packets(options, packets), share, memory, theirs)
    document = {"schema": 1, "machine": f"{platform.system()} {platform.release()} {platform.machine()}",
                "rounds": options.rounds, "flows": options.flows, "figures": result}
    if options.json:
        with open(options.json, "w", encoding="utf-8") as f:
            json.dump(document, f, indent=2)
            f.write("\n")
    else:
        print(json.dumps(document))


if __name__ == "__main__":
    main()
