# SPDX-License-Identifier: GPL-2.0-or-later
"""What translates in a test: redirectd, and nftables with rules that mean the same.

Both take rules of redirectd's grammar and are context managers, so that a test runs through either.
A case that goes well through nftables shows that the test is right.
"""

import ipaddress
import re
import socket
import struct

from redirectd import Daemon

NETLINK_NETFILTER = 12
OPTIONS = r" (?=(?:on|from|name|masquerade|snat|balance|on-change)\b)"


class Redirectd(Daemon):
    """The daemon; `shows_routers`: an error keeps the address of the router that sent it."""

    shows_routers = True
    udp_stream = 300  # seconds

    def __init__(self, ns, *rules):
        super().__init__(ns, config=statements(rules))

    def replace(self, *rules):
        """These rules instead of those in force; names tell which is which."""
        self.write(statements(rules))
        self.ctl("reload")

    def seconds_left(self, sport):
        """Of the one flow from that port."""
        left, = [f["expires_ms"] for f in self.flows() if f["original"]["sport"] == sport]
        return left / 1000


def statements(rules):
    return "".join(f"redirect {rule}\n" for rule in rules)


class Nftables:
    """A table of nft in the namespace. The first rule that fits wins: the order is the test's."""

    # nf_nat gives every error the address that the client knows (nf_nat_icmp_reply_translation).
    shows_routers = False
    udp_stream = 120

    def __init__(self, ns, *rules):
        self.ns, self.rules = ns, rules

    def __enter__(self):
        self.replace(*self.rules)
        return self

    def __exit__(self, *_):
        self.ns.run("nft", "delete table inet redirectd_test")
        forget_connections(self.ns)

    def replace(self, *rules):
        table = ruleset([NftRule(rule, number) for number, rule in enumerate(rules, 1)])
        done = self.ns.run("nft", "-f", "-", input=table, check=False)
        assert done.returncode == 0, f"{table}\n{done.stderr}"

    def seconds_left(self, sport):
        lines = self.ns.run("cat", "/proc/net/nf_conntrack").stdout.splitlines()
        left, = [line.split()[4] for line in lines if line.partition("sport=")[2].split()[0] == str(sport)]
        return int(left)


ENGINES = {"nftables": Nftables, "redirectd": Redirectd}


def forget_connections(ns):
    """As `conntrack -F`: IPCTNL_MSG_CT_DELETE without a tuple, both families."""
    with ns.entered():
        s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    with s:
        for family in (socket.AF_INET, socket.AF_INET6):
            s.send(struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, 1 | 4, 1, 0, family, 0, 0))
            assert struct.unpack_from("=i", s.recv(4096), 16)[0] == 0


class NftRule:
    """One rule of the grammar in nft's words; the connection's mark remembers which."""

    def __init__(self, text, number):
        self.mark = number
        words, _, rest = text.partition(" to ")
        self.protocols, listen = words.split()
        targets, *options = re.split(OPTIONS, rest)
        self.options = dict((o.split(" ", 1) + [""])[:2] for o in options)
        self.address, self.ports = split_listen(listen)
        self.targets = [split_target(t) for t in targets.split(",")]
        self.version = self._version()

    def _version(self):
        for address in (self.address, self.targets[0][0], self.options.get("snat"),
                        self.options.get("from", "").split(",")[0]):
            if address and address != "*":
                return ipaddress.ip_network(address).version
        return None

    @property
    def ip(self):
        return "ip6" if self.version == 6 else "ip"

    def match(self, hook):
        words = [f"meta nfproto ipv{self.version}"] if self.version else []
        if "on" in self.options:
            words.append(f"iifname {{ {self.options['on']} }}")
        if self.address is None:
            words.append("fib daddr type local")
        elif self.address != "*":
            words.append(f"{self.ip} daddr {self.address}")
        if "from" in self.options:
            words.append(f"{self.ip} saddr {{ {self.options['from']} }}")
        words.append(f"meta l4proto {{ {self.protocols.replace('+', ', ')} }} th dport {self.ports}")
        return None if hook == "output" and "on" in self.options else " ".join(words)

    def action(self):
        """nft shifts no ranges by itself: a map says it port by port."""
        mark = f"ct mark set {self.mark}"
        if len(self.targets) > 1:
            return f"{mark} dnat {self.ip} addr . port to {self._balance()}"
        address, ports, _ = self.targets[0]
        if "-" in ports:
            first, last = map(int, self.ports.split("-"))
            shift = int(ports.split("-")[0]) - first
            ports = f"th dport map {{ {', '.join(f'{p} : {p + shift}' for p in range(first, last + 1))} }}"
        if address is None:
            return f"{mark} dnat to :{ports}"
        return f"{mark} dnat {self.ip} to {f'[{address}]' if self.version == 6 else address}:{ports}"

    def _balance(self):
        total, slots = 0, []
        for address, port, weight in self.targets:
            span = str(total) if weight == 1 else f"{total}-{total + weight - 1}"
            slots.append(f"{span} : {address} . {port}")
            total += weight
        key = f"numgen random mod {total}" if self.options.get("balance") == "random" else (
            f"jhash {self.ip} saddr . th sport mod {total} seed 0x5eed")
        return f"{key} map {{ {', '.join(slots)} }}"

    def source(self):
        """Rules of the postrouting chain."""
        mine = f"ct mark {self.mark}"
        if "masquerade" in self.options:
            yield f"{mine} masquerade"
        elif "snat" in self.options:
            yield f"{mine} snat {self.ip} to {self.options['snat']}"
        for address, _, _ in self.targets:
            if address:
                yield f"{mine} {self.ip} saddr {address} {self.ip} daddr {address} masquerade"
                loopback = "127.0.0.0/8" if self.version == 4 else "::1"
                yield f'{mine} oifname != "lo" {self.ip} saddr {loopback} masquerade'


def split_listen(text):
    address, _, ports = text.rpartition(":")
    return (address.replace("[", "").replace("]", "") or None), ports


def split_target(text):
    target, _, weight = text.partition(" weight ")
    address, ports = split_listen(target)
    return address, ports, int(weight or 1)


def ruleset(rules):
    def chain(name, hook, priority, lines):
        body = "".join(f"    {line}\n" for line in lines if line)
        return f"  chain {name} {{\n    type nat hook {hook} priority {priority}\n{body}  }}\n"
    taken = {hook: [f"{match} {r.action()}" for r in rules if (match := r.match(hook))]
             for hook in ("prerouting", "output")}
    return ("table inet redirectd_test\ndelete table inet redirectd_test\ntable inet redirectd_test {\n"
            + chain("in", "prerouting", "dstnat", taken["prerouting"])
            + chain("own", "output", "-100", taken["output"])
            + chain("out", "postrouting", "srcnat", [line for r in rules for line in r.source()]) + "}\n")
