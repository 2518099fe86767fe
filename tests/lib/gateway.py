# SPDX-License-Identifier: GPL-2.0-or-later
"""A client, a gateway and what is behind it, with routers between them and second ways round.

             198.51.100.0/24        203.0.113.0/24       10.0.0.0/24
    client ───────────────── access ────────────── gateway ───────────┬── backend
                               └──── 192.0.2.0/24 ───┘ └─ 10.2.0.0/24 ┼──────┘
                                                                      ├── other
                                                                      └── inner ── 10.1.0.0/24 ── deep

IPv6 likewise. The gateway forwards; nothing on the way but the program under test translates.
Owns the namespaces and cables; relies on netns.py.
"""

import collections
import contextlib

from netns import Namespace, host, set_offloads, veth

NARROW = 1300
OFFLOADS = {"offloads": (True, True), "plain": (False, False), "mixed": (False, True)}

# Addresses by IP version.
CLIENT = {4: "198.51.100.1", 6: "2001:db8:c::1"}
CLIENT2 = {4: "198.51.100.2", 6: "2001:db8:c::2"}
ACCESS = {4: "198.51.100.254", 6: "2001:db8:c::fe"}  # as the client sees it
ACCESS_WAN = {4: "203.0.113.1", 6: "2001:db8:a::1"}
GATEWAY = {4: "203.0.113.2", 6: "2001:db8:a::2"}
GATEWAY_LAN = {4: "10.0.0.1", 6: "2001:db8:10::1"}
BACKEND = {4: "10.0.0.2", 6: "2001:db8:10::2"}
OTHER = {4: "10.0.0.3", 6: "2001:db8:10::3"}
INNER = {4: "10.0.0.9", 6: "2001:db8:10::9"}
DEEP = {4: "10.1.0.2", 6: "2001:db8:11::2"}
GATEWAY_WAN1 = {4: "192.0.2.2", 6: "2001:db8:d::2"}
ACCESS_WAN1 = {4: "192.0.2.1", 6: "2001:db8:d::1"}
GATEWAY_LAN1 = {4: "10.2.0.1", 6: "2001:db8:12::1"}
BACKEND_LAN1 = {4: "10.2.0.2", 6: "2001:db8:12::2"}
LANS = {4: "10.0.0.0/8", 6: "2001:db8:10::/44"}
CLIENTS = {4: "198.51.100.0/24", 6: "2001:db8:c::/64"}
DEEP_LAN = {4: "10.1.0.0/24", 6: "2001:db8:11::/64"}

Cable = collections.namedtuple("Cable", "one one_name one_addresses other other_name other_addresses")


def dual(*rules):
    """Each rule for IPv4 and for IPv6, with {gateway}, {backend} and so on filled in."""
    names = {"gateway": GATEWAY, "backend": BACKEND, "other": OTHER, "deep": DEEP}
    return [rule.format(client=CLIENT[version], **{name: host(a[version]) for name, a in names.items()})
            for rule in rules for version in (4, 6)]


def both(*addresses):
    """With their prefix lengths, both families."""
    return [f"{a[4]}/24" for a in addresses] + [f"{a[6]}/64" for a in addresses]


class Gateway:
    """All of the above; offloads as in OFFLOADS: (towards the client, towards the backends)."""

    def __init__(self, offloads="offloads"):
        self.offloads = OFFLOADS[offloads]
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            (self.client, self.access, self.gateway, self.switch, self.backend, self.other,
             self.inner, self.deep) = (stack.enter_context(Namespace(label))
                                       for label in ("c", "a", "g", "s", "b", "o", "i", "d"))
            self.routers = (self.access, self.gateway, self.inner)
            self.hosts = (self.client, self.backend, self.other, self.deep)
            for ns in (*self.routers, *self.hosts, self.switch):
                ns.sysctl("ipv6/conf/default/accept_dad", 0)  # every address is there at once
            self._lay_cables()
            self._set_routes()
            self._set_sysctls()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self.stack.__exit__(*error)

    def _lay_cables(self):
        deep = {4: "10.1.0.9", 6: "2001:db8:11::9"}
        outside = (
            Cable(self.client, "eth0", both(CLIENT, CLIENT2), self.access, "client0", both(ACCESS)),
            Cable(self.access, "wan0", both(ACCESS_WAN), self.gateway, "wan0", both(GATEWAY)),
            Cable(self.access, "wan1", both(ACCESS_WAN1), self.gateway, "wan1", both(GATEWAY_WAN1)))
        inside = (
            Cable(self.gateway, "lan0", both(GATEWAY_LAN), self.switch, "gateway0", []),
            Cable(self.gateway, "lan1", both(GATEWAY_LAN1), self.backend, "eth1", both(BACKEND_LAN1)),
            Cable(self.backend, "eth0", both(BACKEND), self.switch, "backend0", []),
            Cable(self.other, "eth0", both(OTHER), self.switch, "other0", []),
            Cable(self.inner, "lan0", both(INNER), self.switch, "inner0", []),
            Cable(self.inner, "deep0", both(deep), self.deep, "eth0", both(DEEP)))
        self.switch.run("ip", "link", "add", "br0", "up", "type", "bridge")
        for cables, on in zip((outside, inside), self.offloads):
            for cable in cables:
                veth(*cable)
                if cable.other is self.switch:
                    self.switch.run("ip", "link", "set", cable.other_name, "master", "br0")
                if not on:  # veth begins with all of them
                    set_offloads(cable.one, cable.one_name, False)
                    set_offloads(cable.other, cable.other_name, False)

        # Deprecated: only who asks for it by name gets it as a source.
        self.client.run("ip", "address", "change", f"{CLIENT2[6]}/64", "dev", "eth0", "preferred_lft", "0")

    def _set_routes(self):
        for version in (4, 6):
            for ns, way in ((self.client, ACCESS), (self.gateway, ACCESS_WAN), (self.backend, GATEWAY_LAN),
                            (self.other, GATEWAY_LAN), (self.inner, GATEWAY_LAN),
                            (self.deep, {4: "10.1.0.9", 6: "2001:db8:11::9"})):
                ns.run("ip", "route", "add", "default", "via", way[version])
            self.access.run("ip", "route", "add", LANS[version], "via", GATEWAY[version])
            self.gateway.run("ip", "route", "add", DEEP_LAN[version], "via", INNER[version])

    def _set_sysctls(self):
        for ns in self.routers:
            ns.sysctl("ipv4/ip_forward", 1)
            ns.sysctl("ipv6/conf/all/forwarding", 1)
            ns.sysctl("ipv4/conf/all/send_redirects", 0)
        for ns in (*self.routers, *self.hosts):
            ns.sysctl("ipv4/icmp_ratelimit", 0)
            ns.sysctl("ipv6/icmp/ratelimit", 0)
            ns.sysctl("ipv4/tcp_mtu_probing", 0)  # nothing but ICMP tells the path's MTU
            # Answers may come back another way.
            ns.run("sh", "-c", "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done")

    @contextlib.contextmanager
    def narrow(self, ns, interface, *ends):
        with narrow(ns, interface, *(ends or (*self.hosts, self.gateway))):
            yield

    @contextlib.contextmanager
    def detour(self, ns, prefix, way, name):
        """While it lasts, `ns` sends what goes to `prefix` another way."""
        ns.run("ip", "route", "replace", prefix, "via", way, "dev", name)
        try:
            yield
        finally:
            ns.run("ip", "route", "delete", prefix, "via", way, "dev", name)


@contextlib.contextmanager
def narrow(router, interface, *ends):
    """The router's cable there takes only small packets; nobody else knows."""
    try:
        router.run("ip", "link", "set", interface, "mtu", NARROW)
        yield
    finally:
        router.run("ip", "link", "set", interface, "mtu", 1500)
        for ns in ends:
            ns.run("ip", "-4", "route", "flush", "cache")
            ns.run("ip", "-6", "route", "flush", "cache")


def learned_mtu(ns, address):
    words = ns.run("ip", "route", "get", address).stdout.split()
    return int(words[words.index("mtu") + 1]) if "mtu" in words else None
