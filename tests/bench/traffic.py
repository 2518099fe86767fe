#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What translation costs real traffic: nothing, redirectd and nftables, side by side.

A redirect on the server itself, or, with --gateway, DNAT on a router between client and server,
alone or with masquerade; `direct` is routed there as well. Every way has namespaces of its own; load,
service and redirector share one CPU; the ways take turns within each round, since only ratios mean
something. Rates are per second of processor time that load, service and redirector used, so that what
else runs on the machine counts little. Prints medians and the median ratio to the direct way, and
JSON with every single figure. Needs root, wrk, nginx, iperf3, nft, gcc and a build (REDIRECTD_BUILD,
default build/). Removes all it made.
"""

import argparse
import contextlib
import glob
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))

from netns import Namespace, Pair, host, stop, veth  # noqa: E402  pylint: disable=wrong-import-position
from peers import Nginx  # noqa: E402  pylint: disable=wrong-import-position
from redirectd import Daemon  # noqa: E402  pylint: disable=wrong-import-position

HTTP, IPERF, UDP = (80, 8080), (5201, 6000), (7001, 7000)  # direct, translated
SERVICES = (("tcp", *HTTP), ("tcp", *IPERF), ("udp", *UDP))

# On both sides of a gateway, by IP version.
CLIENT = {4: "198.51.100.1", 6: "2001:db8:c::1"}
GATEWAY = {4: "198.51.100.2", 6: "2001:db8:c::2"}
GATEWAY_LAN = {4: "10.0.0.1", 6: "2001:db8:10::1"}
SERVER = {4: "10.0.0.2", 6: "2001:db8:10::2"}


def both(addresses):
    return [f"{addresses[4]}/24", f"{addresses[6]}/64"]


class OnServer:
    """Redirects on the server itself."""

    def __init__(self, options):
        self.pair = Pair()
        self.address = self.translated_address = Pair.SERVER6 if options.ipv6 else Pair.SERVER4
        self.rules = [f"{protocol} {listen} to {port}" for protocol, port, listen in SERVICES]
        self.nft = ([f"{protocol} dport {listen} redirect to :{port}" for protocol, port, listen in SERVICES],
                    [])

    def __enter__(self):
        self.pair.__enter__()
        self.client, self.server = self.pair.client, self.pair.server
        self.translator = self.server
        # nft's redirect may take any of an interface's addresses; the UDP service answers from the first.
        self.server.run("ip", "address", "delete", f"{Pair.OTHER6}/64", "dev", "eth0")
        return self

    def __exit__(self, *error):
        return self.pair.__exit__(*error)


class OnGateway:
    """DNAT on a router, the only way between the two."""

    def __init__(self, options):
        version = 6 if options.ipv6 else 4
        self.address, self.translated_address = SERVER[version], GATEWAY[version]
        family, masquerade = "ip6" if options.ipv6 else "ip", options.gateway == "masquerade"
        to, listen_on = host(self.address), host(self.translated_address)
        self.rules = [f"{protocol} {listen_on}:{listen} to {to}:{port}" + " masquerade" * masquerade
                      for protocol, port, listen in SERVICES]
        self.nft = ([f"{family} daddr {self.translated_address} {protocol} dport {listen} "
                     f"dnat {family} to {to}:{port}" for protocol, port, listen in SERVICES],
                    ["ct status dnat masquerade"] * masquerade)
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.client, self.translator, self.server = (stack.enter_context(Namespace(label))
                                                         for label in "cgs")
            veth(self.client, "eth0", both(CLIENT), self.translator, "wan0", both(GATEWAY))
            veth(self.server, "eth0", both(SERVER), self.translator, "lan0", both(GATEWAY_LAN))
            self.translator.sysctl("ipv4/ip_forward", 1)
            self.translator.sysctl("ipv6/conf/all/forwarding", 1)
            for version in (4, 6):
                self.client.run("ip", "route", "add", "default", "via", GATEWAY[version])
                self.server.run("ip", "route", "add", "default", "via", GATEWAY_LAN[version])
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self.stack.__exit__(*error)


def nft_table(before, after):
    """A table that translates before and after routing."""
    chains = "".join(f"  chain {hook} {{ type nat hook {hook} priority {priority}; {'; '.join(lines)}; }}\n"
                     for hook, priority, lines in (("prerouting", -100, before), ("postrouting", 100, after))
                     if lines)
    return f"table inet bench {{\n{chains}}}\n"


class Way:
    """One way from client to service, with its servers running."""

    def __init__(self, name, options, work):
        self.name, self.options, self.work = name, options, work
        self.translated = name != "direct"
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            place = OnGateway if self.options.gateway else OnServer
            net = self.net = stack.enter_context(place(self.options))
            self._tune()
            self.watched = [softirq_thread(self.options.cpu)]
            if self.name == "redirectd":
                self.watched.append(stack.enter_context(Daemon(net.translator, *net.rules)).process.pid)
            elif self.name == "nftables":
                net.translator.run("nft", "-f", "-", input=nft_table(*net.nft))
            scratch = os.path.join(self.work, self.name)
            os.mkdir(scratch)
            with open(os.path.join(scratch, "index.html"), "w", encoding="utf-8") as f:
                f.write("x" * 128)
            nginx = stack.enter_context(Nginx(net.server, 80, scratch, scratch))
            self.watched.append(nginx.process.pid)
            for command in (["iperf3", "-s", "-p", "5201"], [f"{self.work}/packets", "serve", "7001"]):
                server = net.server.popen(*command, stdout=subprocess.DEVNULL,
                                                stderr=subprocess.DEVNULL)
                stack.callback(stop, server)
                self.watched.append(server.pid)
            net.server.wait_listening(5201)
            net.server.wait_listening(7001, "u")
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self.stack.__exit__(*error)

    def _tune(self):
        """Else TIME_WAIT is what is measured."""
        for ns in (self.net.client, self.net.server):
            ns.sysctl("ipv4/tcp_max_tw_buckets", 1000)
            ns.sysctl("ipv4/ip_local_port_range", "'1024 65535'")

    def busy(self):
        """Seconds of processor time that everything but the load has used so far."""
        return sum(on_processor(pid) for pid in self.watched)

    def load(self, *command):
        """Runs the load. Returns what it printed and the processor time of all that took part."""
        before = self.busy()
        process = subprocess.Popen(self.net.client.command(*command), stdout=subprocess.PIPE, text=True)
        with process.stdout:
            said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{self.name}: {' '.join(map(str, command))}: exit {process.returncode}\n{said}")
        return said, usage.ru_utime + usage.ru_stime + self.busy() - before

    @property
    def address(self):
        return self.net.translated_address if self.translated else self.net.address

    def wrk(self, *more):
        url = f"http://{host(self.address)}:{HTTP[self.translated]}/"
        said, seconds = self.load("wrk", "-t1", "-c16", f"-d{self.options.seconds}s", *more, url)
        if "Non-2xx" in said or "Socket errors" in said and not more:
            raise SystemExit(f"{self.name}: {said}")
        return int(re.search(r"(\d+) requests in", said)[1]) / seconds

    def connections(self):
        return self.wrk("-H", "Connection: close")

    def requests(self):
        return self.wrk()

    def packets(self):
        said, seconds = self.load(f"{self.work}/packets", "burst", self.address, UDP[self.translated],
                                  self.options.seconds / SLICES, 64)
        return int(said) / seconds

    def round_trip(self):
        return float(self.load(f"{self.work}/packets", "ping", self.address, UDP[self.translated],
                               self.options.seconds / SLICES)[0])

    def gigabits(self):
        said, seconds = self.load("iperf3", "-J", "-c", self.address, "-p", IPERF[self.translated],
                                  "-t", self.options.seconds)
        return json.loads(said)["end"]["sum_received"]["bytes"] * 8 / 1e9 / seconds


def on_processor(pid):
    """Seconds that a process has run, softirqs in its context included."""
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        with open(path, encoding="ascii") as f:
            total += int(f.read().split()[0])
    return total / 1e9


def softirq_thread(cpu):
    """The kernel thread that takes packets when softirqs pile up."""
    for path in glob.glob("/proc/[0-9]*/comm"):
        with contextlib.suppress(OSError), open(path, encoding="utf-8") as f:
            if f.read().strip() == f"ksoftirqd/{cpu}":
                return int(path.split("/")[2])
    raise SystemExit(f"no ksoftirqd/{cpu}")


# Name, what it is, how to measure it, and how many measurements a round takes: a short one more.
SLICES = 4
MEASURES = {
    "connections": ("connections per second", Way.connections, 1),
    "requests": ("requests per second", Way.requests, 1),
    "packets": ("64-byte UDP packets per second", Way.packets, SLICES),
    "round_trip": ("UDP round trip, µs (less is better)", Way.round_trip, SLICES),
    "gigabits": ("TCP, Gbit/s", Way.gigabits, 1),
}
WAYS = ("direct", "redirectd", "nftables")


def measure(options, work):
    figures = {m: {w: [] for w in options.ways} for m in options.measures}
    with contextlib.ExitStack() as stack:
        ways = [stack.enter_context(Way(w, options, work)) for w in options.ways]
        for number in range(options.rounds):
            for name in options.measures:
                for slice_ in range(MEASURES[name][2]):
                    turn = (number + slice_) % len(ways)
                    for way in ways[turn:] + ways[:turn]:
                        figures[name][way.name].append(MEASURES[name][1](way))
            print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
    return figures


def report(figures):
    """Medians, and the median of each round's ratio: neighbours in time are compared."""
    result = {}
    ways = list(next(iter(figures.values())))
    print(f"{'':<38}" + "".join(f"{w:>20}" for w in ways))
    for name, by_way in figures.items():
        line, result[name] = f"{MEASURES[name][0]:<38}", {}
        for way, values in by_way.items():
            ratio = statistics.median(v / d for v, d in zip(values, by_way.get("direct", values)))
            median = statistics.median(values)
            result[name][way] = {"median": median, "ratio": ratio, "values": values}
            line += f"{median:>13,.{0 if median > 1000 else 2}f} {ratio:>6.3f}"
        print(line)
    return result


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3, help="of each single measurement")
    parser.add_argument("--cpu", default="0", help="the one CPU that everything shares")
    parser.add_argument("--ipv6", action="store_true")
    parser.add_argument("--gateway", choices=("dnat", "masquerade"),
                        help="through a router that translates the destination, or the source as well")
    parser.add_argument("--measures", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--json", metavar="FILE", help="write every figure there")
    return parser.parse_args()


def main():
    options = arguments()
    missing = [t for t in ("wrk", "nginx", "iperf3", "nft", "gcc") if not shutil.which(t)]
    if missing:
        sys.exit(f"traffic.py: install {' '.join(missing)} (wrk by hand, the rest: ./quickstart --deps-tests)")
    # Inherited by all that is started from here; what else the machine does should not count.
    os.sched_setaffinity(0, {int(options.cpu)})
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    with tempfile.TemporaryDirectory(prefix="redirectd-bench.") as work:
        subprocess.run(["gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", os.path.join(HERE, "packets.c"),
                        "-o", f"{work}/packets"], check=True)
        result = report(measure(options, work))
    document = {"schema": 1, "machine": f"{platform.system()} {platform.release()} {platform.machine()}",
                "rounds": options.rounds, "seconds": options.seconds, "family": 6 if options.ipv6 else 4,
                "gateway": options.gateway, "figures": result}
    if options.json:
        with open(options.json, "w", encoding="utf-8") as f:
            json.dump(document, f, indent=2)
            f.write("\n")
    else:
        print(json.dumps(document))


if __name__ == "__main__":
    main()
