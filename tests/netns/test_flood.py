# SPDX-License-Identifier: GPL-2.0-or-later
"""Floods of spoofed SYNs and datagrams: nobody who is connected suffers, new clients get in.

Ten million packets each, once with the daemon, once without; the other combinations with fewer, or
all of them in full with FLOOD_ALL=1. Figures are printed (pytest -s); none is asserted that depends
on the machine.
"""

import contextlib
import glob
import itertools
import json
import os
import signal
import subprocess
import threading
import time

import pytest

from crowd import Crowd, Newcomers, Service
from netns import Namespace, Pair, eventually, host, veth
from redirectd import BUILD, Daemon

FLOOD = os.path.join(BUILD, "tests", "lib", "flood")
ALL = os.environ.get("FLOOD_ALL") == "1"
MANY, FEW = 10_000_000, 10_000_000 if ALL else 200_000
TCP, UDP = 200, 50  # who are connected before
DEFAULT_FLOWS_MAX = 262144
FLOODS = list(itertools.product(("tcp", "udp"), (True, False), (65536, DEFAULT_FLOWS_MAX)))
IN_FULL = (("tcp", True, 65536), ("tcp", False, 65536), ("udp", True, 65536), ("udp", False, DEFAULT_FLOWS_MAX))
RULE = "tcp+udp 8080-8081 to 80-81 name web"
# Behind the datapath most of the flood is dropped, so that answering it does not take most of the
# time; one packet of 16 reaches the service and is answered.
DROP = """
table netdev flood {
  chain ingress {
    type filter hook ingress device eth0 priority 0;
    ip saddr 10.0.0.0/8 ip saddr & 0.0.0.15 != 0.0.0.0 drop;
    ip6 saddr 2001:db8:f100::/40 ip6 saddr & ::f != :: drop;
  }
}
"""


def pinned(daemon, name):
    path, = glob.glob(f"{daemon.pins}/v*/{name}")
    return path


def bpftool(*command):
    return json.loads(subprocess.run(["bpftool", "-j", *command], check=True, capture_output=True).stdout)


def totals(daemon):
    """Of the datapath itself, daemon or not."""
    return bpftool("map", "dump", "pinned", pinned(daemon, "totals"))[0]["formatted"]["value"]


def in_table(daemon):
    t = totals(daemon)
    return t["created"] - t["destroyed"]


def map_memory(daemon):
    """Bytes that the kernel has charged for each map that packets write, and others but those of addresses."""
    return {os.path.basename(p): bpftool("map", "show", "pinned", p)["bytes_memlock"]
            for p in glob.glob(f"{daemon.pins}/v*/*") if os.path.basename(p) not in ("locals", "sources")}


def own_memory(daemon):
    """KiB of the daemon's own; of the tables it sees pages of the maps."""
    with open(f"/proc/{daemon.process.pid}/status", encoding="utf-8") as f:
        return int([line.split()[1] for line in f if line.startswith("RssAnon:")][0])


class Watch:
    """Looks at the table now and again; `most` is the most flows that it had."""

    def __init__(self, daemon):
        self.daemon, self.most, self.ended = daemon, 0, threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def _look(self):
        while not self.ended.wait(0.5):
            self.most = max(self.most, in_table(self.daemon))


@pytest.fixture(scope="module")
def net():
    with Pair(offloads=False) as pair:
        link, = json.loads(pair.server.run("ip", "-j", "link", "show", "eth0").stdout)
        pair.mac = link["address"]
        # The spoofed are answered: what they would get goes to where the flood comes from.
        for family, client in (("-4", Pair.CLIENT4), ("-6", Pair.CLIENT6)):
            pair.server.run("ip", family, "route", "add", "default", "via", client)
        pair.server.run("nft", "-f", "-", input=DROP)
        yield pair


def flood(net, kind, port, count, server=Pair.SERVERS, seed=1):
    done = net.client.run(FLOOD, "eth0", net.mac, kind, *server, port, count, seed, timeout=900)
    return json.loads(done.stdout)


@contextlib.contextmanager
def newcomers(net, port, *servers):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Newcomers(net.client, s, port)) for s in servers or Pair.SERVERS]


def latencies(comers):
    took = [t for c in comers for t in c.took]
    all_of_them = Newcomers(None, None, None)
    all_of_them.took = took
    return {"new": len(took), "failed": sum(len(c.failed) for c in comers),
            **{f"p{round(100 * p)}_ms": all_of_them.milliseconds(p) for p in (0.5, 0.95, 0.99, 1)}}


def report(what, **figures):
    print(json.dumps({"flood": what, **figures}))


def flows_of(daemon, crowd):
    """The crowd's flows by (protocol, source, port)."""
    ends = {("udp" if t.udp else "tcp", *t.local) for t in crowd.talkers}
    found = {}
    for f in daemon.flows("--dport", "8080", "-s", Pair.CLIENT4) + daemon.flows("--dport", "8080", "-s", Pair.CLIENT6):
        key = f["protocol"], f["original"]["src"], f["original"]["sport"]
        if key in ends:
            found[key] = f
    assert set(found) == ends
    return found


def check_crowd(daemon, crowd, began):
    """None was evicted and picked up again: each flow is as old as its connection."""
    age = 1000 * (time.monotonic() - began)
    for key, f in flows_of(daemon, crowd).items():
        assert f["assured"] and f["age_ms"] >= age, (key, f)
        assert f["state"] == ("ESTABLISHED" if key[0] == "tcp" else "REPLIED"), (key, f)


def check_sums(daemon):
    """What was made and is not gone is there, once the expired ones are swept."""
    def equal():
        t, flows = totals(daemon), daemon.json("stats")["flows"]
        assert flows["created"] >= t["created"]
        return t == totals(daemon) and t["created"] - t["destroyed"] == flows["active"]
    eventually(equal, "created - destroyed is what is active")


ROUTER = {4: "192.0.2.2", 6: "2001:db8::2"}
BEHIND = {4: "198.51.100.1", 6: "2001:db8:b::1"}
TARGETS = {4: ("198.51.100.2", "198.51.100.3"), 6: ("2001:db8:b::2", "2001:db8:b::3")}


class Site:
    """A client, a router, and behind it a server with two addresses of each family."""

    def __init__(self, stack):
        self.client, self.router, self.server = (stack.enter_context(Namespace(n)) for n in "crs")
        veth(self.client, "eth0", [f"{Pair.CLIENT4}/24", f"{Pair.CLIENT6}/64"],
             self.router, "eth0", [f"{ROUTER[4]}/24", f"{ROUTER[6]}/64"])
        veth(self.server, "eth0", [f"{a}/24" for a in TARGETS[4]] + [f"{a}/64" for a in TARGETS[6]],
             self.router, "lan", [f"{BEHIND[4]}/24", f"{BEHIND[6]}/64"])
        self.router.sysctl("ipv4/ip_forward", 1)
        self.router.sysctl("ipv6/conf/all/forwarding", 1)
        for version, client in ((4, Pair.CLIENT4), (6, Pair.CLIENT6)):
            self.router.run("ip", f"-{version}", "route", "add", "default", "via", client)
            self.server.run("ip", f"-{version}", "route", "add", "default", "via", BEHIND[version])
        self.router.run("nft", "-f", "-", input=DROP)
        link, = json.loads(self.router.run("ip", "-j", "link", "show", "eth0").stdout)
        self.mac = link["address"]

    @staticmethod
    def rules(n_targets, options=""):
        """Of each family one, to so many targets."""
        return "".join(f"redirect tcp {host(ROUTER[v])}:8080 to "
                       f"{','.join(f'{host(t)}:80' for t in TARGETS[v][:n_targets])} {options}\n" for v in (4, 6))


@pytest.fixture(scope="module")
def site():
    with contextlib.ExitStack() as stack:
        yield Site(stack)


class TestRedirect:
    """`kind` floods the port of a rule that has clients; TCP's at the service's own port."""

    @pytest.mark.parametrize("kind,alive,flows_max", [c for c in FLOODS if ALL or c in IN_FULL or c[2] == 65536],
                             ids=lambda v: {True: "alive", False: "dead"}[v] if isinstance(v, bool) else None)
    def test_flood(self, net, kind, alive, flows_max):
        count = MANY if (kind, alive, flows_max) in IN_FULL else FEW
        with net.server.listen("::", 81, 2), Service(net.server, 80), \
                Daemon(net.server, config=f"flows-max {flows_max}\nredirect {RULE}\n") as daemon, \
                Crowd(net.client, Pair.SERVERS, 8080, TCP, UDP) as crowd:
            crowd.must_go_on([10] * (TCP + UDP))
            memory, own = map_memory(daemon), own_memory(daemon)
            before, assured_before = totals(daemon), crowd.counts()
            if not alive:
                daemon.end(signal.SIGKILL)
            began = time.monotonic()
            with Watch(daemon) as watch, newcomers(net, 8080) as comers:
                sent = flood(net, kind, 8080 if kind == "tcp" else 8081, count)
            now = totals(daemon)
            assert now["created"] - before["created"] >= count, "all of it came"
            # A bucket of the index may be full by chance; the client sends its SYN again.
            assert now["insert_failed"] - before["insert_failed"] <= count / 100_000
            assert watch.most <= flows_max + os.cpu_count()
            assert map_memory(daemon) == memory
            crowd.must_go_on(crowd.counts())
            if not alive:
                daemon.start()
            check_crowd(daemon, crowd, began)
            assert not any(c.failed for c in comers), [c.failed for c in comers]
            assert all(c.took for c in comers)
            check_sums(daemon)
            said = own_memory(daemon)
            assert said < own + 8192, f"{own} KiB before, {said} after"
            report(f"{kind}, daemon {'alive' if alive else 'dead'}, flows-max {flows_max}", **sent,
                   per_second=round(sent["sent"] / sent["seconds"]), **latencies(comers),
                   evicted=now["evicted"] - before["evicted"], most=watch.most,
                   insert_failures={k: n for k, n in daemon.json("stats")["insert_failures"].items() if n},
                   messages=sum(crowd.counts()) - sum(assured_before),
                   longest_ms=round(1000 * max(t.stalled for t in crowd.talkers)),
                   map_mib=round(sum(memory.values()) / 2 ** 20, 1), own_kib_before=own, own_kib=said)

    def test_beside_a_flood_at_no_rule(self, net):
        """For comparison: what a flood costs new clients that redirectd leaves alone."""
        with net.server.listen("::", 81, 2), Service(net.server, 80), Daemon(net.server, f"{RULE}") as daemon:
            for kind in ("tcp", "udp"):
                before = totals(daemon)["created"]
                with newcomers(net, 8080) as comers:
                    sent = flood(net, kind, 80 if kind == "tcp" else 81, FEW)
                assert totals(daemon)["created"] - before == sum(len(c.took) for c in comers)
                assert not any(c.failed for c in comers)
                report(f"{kind}, at a port without rules", **sent,
                       per_second=round(sent["sent"] / sent["seconds"]), **latencies(comers))


class TestGateway:
    """The service is on another host; with `masquerade` every flow takes one of 64512 source ports."""

    CASES = {"targets": (2, ""), "masquerade": (1, "masquerade"), "masquerade-targets": (2, "masquerade")}

    @pytest.mark.parametrize("case", CASES)
    def test_flood(self, site, case):
        servers = list(ROUTER.values())
        with Service(site.server, 80), Daemon(site.router, config=site.rules(*self.CASES[case])) as daemon, \
                Crowd(site.client, servers, 8080, TCP, 0) as crowd:
            crowd.must_go_on([10] * TCP)
            before = totals(daemon)
            began = time.monotonic()
            with newcomers(site, 8080, *servers) as comers:
                sent = flood(site, "tcp", 8080, FEW, servers)
            now = totals(daemon)
            crowd.must_go_on(crowd.counts())
            check_crowd(daemon, crowd, began)
            assert not any(c.failed for c in comers), [c.failed for c in comers]
            stats = daemon.json("stats")
            assert stats["insert_failures"]["ports_full"] == 0
            if "masquerade" in case:
                assert stats["source_ports"]["level"] == "critical"
                daemon.logged(f"the source ports from {BEHIND[4]} to tcp")
            report(f"tcp, {case}, daemon alive, flows-max {DEFAULT_FLOWS_MAX}", **sent,
                   per_second=round(sent["sent"] / sent["seconds"]), **latencies(comers),
                   evicted=now["evicted"] - before["evicted"], insert_failures=stats["insert_failures"],
                   port_searches=stats["port_searches"], source_ports=stats["source_ports"],
                   longest_ms=round(1000 * max(t.stalled for t in crowd.talkers)))
