# SPDX-License-Identifier: GPL-2.0-or-later
"""Counts what really is on the wire: tcpdump writes, this reads, nothing else is believed."""

import collections
import ipaddress
import os
import struct
import subprocess

from netns import eventually, stop

Count = collections.namedtuple("Count", "packets bytes")
Packet = collections.namedtuple("Packet", "protocol src sport dst dport length syn")


class Capture:
    """tcpdump on one interface while the context lasts; then `packets` holds what passed."""

    def __init__(self, ns, interface, expression, folder):
        self.path = os.path.join(folder, "capture.pcap")
        self.ns, self.interface, self.expression = ns, interface, expression
        self.packets = []

    def __enter__(self):
        self.process = self.ns.popen("tcpdump", "-i", self.interface, "-U",
                                     "--immediate-mode", "-B", "65536", "-s", "96",
                                     "-Z", "root", "-w", self.path, self.expression,
                                     stderr=subprocess.PIPE)
        line = b""
        while b"listening on" not in line:
            line = self.process.stderr.readline()
            assert line, "tcpdump ended at once"
        return self

    def __exit__(self, *_):
        self.settle()
        self.process.terminate()
        said = self.process.stderr.read().decode()
        self.process.wait()
        stop(self.process)
        assert "0 packets dropped by kernel" in said, said
        with open(self.path, "rb") as f:
            self.packets = list(parse(f.read()))

    def settle(self):
        """Waits until the file grows no more."""
        sizes = []

        def quiet():  # half a second without growth
            sizes.append(os.path.getsize(self.path))
            return len(sizes) > 10 and len(set(sizes[-10:])) == 1
        eventually(quiet, "the capture comes to rest")

    def count(self, **fields):
        lengths = [p.length for p in self.packets
                   if all(getattr(p, k) == v for k, v in fields.items())]
        return Count(len(lengths), sum(lengths))


def parse(data):
    """Packets of a pcap file with Ethernet headers; length is that of IP, syn says whether that flag is set."""
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    at = 24
    while at < len(data):
        captured, = struct.unpack_from(order + "I", data, at + 8)
        frame = data[at + 16:at + 16 + captured]
        at += 16 + captured
        packet = parse_frame(frame)
        if packet:
            yield packet


def parse_frame(frame):
    kind, = struct.unpack_from("!H", frame, 12)
    ip = frame[14:]
    if kind == 0x0800:
        header, length, protocol = (ip[0] & 15) * 4, struct.unpack_from("!H", ip, 2)[0], ip[9]
        addresses = ip[12:16], ip[16:20]
    elif kind == 0x86DD:
        header, length, protocol = 40, 40 + struct.unpack_from("!H", ip, 4)[0], ip[6]
        addresses = ip[8:24], ip[24:40]
    else:
        return None
    if protocol not in (6, 17):
        return None
    sport, dport = struct.unpack_from("!HH", ip, header)
    src, dst = (str(ipaddress.ip_address(a)) for a in addresses)
    syn = protocol == 6 and bool(ip[header + 13] & 2)
    return Packet({6: "tcp", 17: "udp"}[protocol], src, sport, dst, dport, length, syn)
