# SPDX-License-Identifier: GPL-2.0-or-later
"""Interfaces come and go; other programs on the same hooks stay, run, and outlive redirectd."""

import json
import os
import subprocess
import uuid

import pytest

from netns import Pair, Thread, eventually, veth
from peers import TcpEcho, tcp_ask, tcp_refused
from redirectd import BPFFS, Daemon, attached, qdiscs

OTHER = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);
         __type(value, __u64); } seen SEC(".maps");
SEC("tc") int other(struct __sk_buff *skb)
{
    __u32 zero = 0;
    __u64 *count = bpf_map_lookup_elem(&seen, &zero);
    if (count)
        __sync_fetch_and_add(count, 1);
    return -1; /* TC_ACT_UNSPEC, TCX_NEXT: whoever comes next decides */
}
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def other_program(tmp_path_factory):
    """An eBPF program of somebody else, compiled: counts packets and passes them on."""
    folder = tmp_path_factory.mktemp("other")
    (folder / "other.c").write_text(OTHER)
    triplet = subprocess.run(["gcc", "-print-multiarch"], capture_output=True, text=True,
                             check=True).stdout.strip()
    subprocess.run(["clang", "-O2", "-g", "-target", "bpf", f"-I/usr/include/{triplet}", "-c",
                    folder / "other.c", "-o", folder / "other.o"], check=True)
    return folder / "other.o"


class Pinned:
    """The program loaded and pinned by bpftool, with its counter."""

    def __init__(self, ns, path):
        self.ns, self.folder = ns, f"{BPFFS}/rdt-other-{uuid.uuid4().hex[:8]}"
        os.mkdir(self.folder)
        ns.run("bpftool", "prog", "load", path, f"{self.folder}/prog", "pinmaps", self.folder)

    def seen(self):
        dump = json.loads(self.ns.run("bpftool", "-j", "map", "dump", "pinned",
                                      f"{self.folder}/seen").stdout)
        return int(dump[0]["formatted"]["value"] if "formatted" in dump[0] else
                   int.from_bytes(bytes(int(b, 16) for b in dump[0]["value"]), "little"))

    def remove(self):
        for name in os.listdir(self.folder):
            os.unlink(f"{self.folder}/{name}")
        os.rmdir(self.folder)


@pytest.fixture
def other(pair, other_program):
    pinned = Pinned(pair.server, other_program)
    yield pinned
    pinned.remove()


class TestInterfaces:
    def test_later_interface_is_attached(self, pair):
        with Daemon(pair.server, "tcp 8080 to 81") as daemon, TcpEcho(pair.server, 81):
            veth(pair.client, "late", ["198.51.100.1/24"], pair.server, "late", ["198.51.100.2/24"])
            eventually(lambda: "late" in daemon.interfaces(), "late is attached")
            assert tcp_ask(pair.client, "198.51.100.2", 8080) == b"hello"
            pair.client.run("ip", "link", "delete", "late")
            eventually(lambda: "late" not in daemon.interfaces(), "late is forgotten")
            assert tcp_ask(pair.client, Pair.SERVER4, 8080) == b"hello"

    def test_interface_that_comes_back(self, pair):
        """Same name, new index: attached again, and a rule that names it works again."""
        with Daemon(pair.server, "tcp 8080 to 81 on back") as daemon, TcpEcho(pair.server, 81):
            for _ in range(3):
                veth(pair.client, "back", ["198.51.100.1/24"], pair.server, "back", ["198.51.100.2/24"])
                eventually(lambda: "back" in daemon.interfaces(), "back is attached")
                assert tcp_ask(pair.client, "198.51.100.2", 8080) == b"hello"
                pair.client.run("ip", "link", "delete", "back")
                eventually(lambda: "back" not in daemon.interfaces(), "back is forgotten")

    def test_renamed_interface(self, pair):
        """A rule goes by the name an interface has now."""
        veth(pair.client, "old", ["198.51.100.1/24"], pair.server, "old", ["198.51.100.2/24"])
        with Daemon(pair.server, "tcp 8080 to 81 on new") as daemon, TcpEcho(pair.server, 81):
            assert tcp_refused(pair.client, "198.51.100.2", 8080)
            for command in (("set", "old", "down"), ("set", "old", "name", "new"), ("set", "new", "up")):
                pair.server.run("ip", "link", *command)
            eventually(lambda: "new" in daemon.interfaces(), "new is attached")

            def works():
                return not tcp_refused(pair.client, "198.51.100.2", 8080)
            eventually(works, "the rule takes packets from new")
            pair.client.run("ip", "link", "delete", "old")

    def test_hundreds_come_and_go_while_it_looks(self, pair):
        """The dumps of a start are interrupted; the end counts, of interfaces and of addresses."""
        def batch(*lines):
            return "".join(line.format(i=i) + "\n" for i in range(60) for line in lines)

        def coming_and_going():
            for _ in range(3):
                ns.run("ip", "-batch", "-", timeout=120, input=batch(
                    "link add c{i} type veth peer name d{i}", "address add 198.51.100.{i}/32 dev c{i}",
                    "link delete c{i}"))

        ns = pair.server
        ns.run("ip", "-batch", "-", timeout=120,
               input=batch("link add a{i} type veth peer name b{i}", "address add 203.0.113.{i}/32 dev a{i}"))
        changes = Thread(coming_and_going)
        try:
            with Daemon(ns, "tcp 8080 to 81") as daemon, TcpEcho(ns, 81):
                changes.result(300)
                there = {link["ifname"] for link in json.loads(ns.run("ip", "-j", "link").stdout)}
                assert len(there) >= 122
                eventually(lambda: daemon.interfaces() == there, "those that are there are attached")
                for i in (0, 59):
                    eventually(lambda i=i: not tcp_refused(ns, f"203.0.113.{i}", 8080), f"address {i} is known")
        finally:
            changes.join()
            ns.run("ip", "-batch", "-", timeout=120, input=batch("link delete a{i}"))

    def test_every_interface_by_default(self, pair):
        with Daemon(pair.server, "tcp 8080 to 81") as daemon:
            assert daemon.interfaces() >= {"lo", "eth0"}
            for interface in ("lo", "eth0"):
                assert len(attached(pair.server, interface)) == 2, interface


class TestNeighbours:
    def test_tc_filter_stays(self, pair):
        """clsact with a classifier of somebody else: there before, during and after."""
        run = pair.server.run

        def filters():
            return [f["kind"] for f in json.loads(run("tc", "-j", "filter", "show", "dev", "eth0",
                                                      "ingress").stdout) if "options" in f]
        run("tc", "qdisc", "add", "dev", "eth0", "clsact")
        try:
            # Classic BPF that matches nothing: the one classifier that every kernel here has.
            run("tc", "filter", "add", "dev", "eth0", "ingress", "prio", "10", "bpf", "bytecode", "1,6 0 0 0,")
            before = filters()
            assert before
            with Daemon(pair.server, "tcp 8080 to 81"), TcpEcho(pair.server, 81):
                assert tcp_ask(pair.client, Pair.SERVER4, 8080) == b"hello"
                assert set(before) <= set(filters())
            assert "clsact" in qdiscs(pair.server, "eth0")
            assert filters() == before
            assert tcp_refused(pair.client, Pair.SERVER4, 8080)
        finally:
            run("tc", "qdisc", "delete", "dev", "eth0", "clsact")

    @pytest.mark.parametrize("first", ["other", "redirectd"])
    def test_clsact_program_stays_and_runs(self, pair, other, first):
        def attach():
            pair.server.run("tc", "qdisc", "add", "dev", "eth0", "clsact")
            for way in ("ingress", "egress"):
                pair.server.run("tc", "filter", "add", "dev", "eth0", way, "prio", "7", "bpf",
                                "direct-action", "object-pinned", f"{other.folder}/prog")
        try:
            if first == "other":
                attach()
            with Daemon(pair.server, "tcp 8080 to 81"), TcpEcho(pair.server, 81):
                if first == "redirectd":
                    attach()
                before = other.seen()
                assert tcp_ask(pair.client, Pair.SERVER4, 8080) == b"hello"
                assert other.seen() - before >= 8
            left = attached(pair.server, "eth0")
            assert len(left) == 2, left
            before = other.seen()
            tcp_refused(pair.client, Pair.SERVER4, 8080)
            assert other.seen() - before >= 2
        finally:
            pair.server.run("tc", "qdisc", "delete", "dev", "eth0", "clsact", check=False)

    @pytest.mark.parametrize("first", ["other", "redirectd"])
    def test_tcx_program_stays_and_runs(self, pair, other, first):
        """The same on the TCX hook, by a link that another program pinned."""
        if not has_tcx():
            pytest.skip("this kernel has no TCX")
        link = f"{other.folder}/link"

        def attach():
            tcx_link(pair.server, f"{other.folder}/prog", "eth0", link)
        if first == "other":
            attach()
        with Daemon(pair.server, "tcp 8080 to 81"), TcpEcho(pair.server, 81):
            if first == "redirectd":
                attach()
            before = other.seen()
            assert tcp_ask(pair.client, Pair.SERVER4, 8080) == b"hello"
            assert other.seen() - before >= 4
        before = other.seen()
        tcp_refused(pair.client, Pair.SERVER4, 8080)
        assert other.seen() > before
        assert len(attached(pair.server, "eth0")) == 1
        os.unlink(link)
        eventually(lambda: attached(pair.server, "eth0") == [], "the other program is gone")

    def test_nothing_is_left(self, pair):
        before = {i: (attached(pair.server, i), qdiscs(pair.server, i)) for i in ("lo", "eth0")}
        with Daemon(pair.server, "tcp 8080 to 81") as daemon:
            assert os.path.isdir(daemon.pins)
            assert daemon.end() == 0
            assert not os.path.exists(daemon.pins)
        for interface, was in before.items():
            assert (attached(pair.server, interface), qdiscs(pair.server, interface)) == was


TCX_LINK = """
import ctypes, sys
libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
program = libbpf.bpf_obj_get(sys.argv[1].encode())
link = libbpf.bpf_link_create(program, int(sys.argv[2]), 46, None)  # 46: BPF_TCX_INGRESS
if program < 0 or link < 0 or libbpf.bpf_obj_pin(link, sys.argv[3].encode()):
    sys.exit(f"tcx: {ctypes.get_errno()}")
"""


def tcx_link(ns, program, interface, path):
    """Attaches by a link and pins it, through libbpf: bpftool of old cannot."""
    index = json.loads(ns.run("ip", "-j", "link", "show", interface).stdout)[0]["ifindex"]
    ns.run("/usr/bin/python3", "-c", TCX_LINK, program, index, path)


def has_tcx():
    return tuple(int(n) for n in os.uname().release.split("-")[0].split(".")[:2]) >= (6, 6)
