# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets made and read by hand: what no ordinary socket sends, and what no socket shows.

Builds IP packets as bytes, sends them as they are, and listens to what arrives. Checksums are
computed from scratch; nothing is taken from the programs under test.
"""

import ipaddress
import socket
import struct
import time

from netns import DEADLINE

IPV6_HDRINCL = 36  # <linux/in6.h>; Python has no name for it
ETH_P_ALL = 3
FRAGMENT_HEADER = 44
ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
TIME_EXCEEDED = {4: 11, 6: 3}  # type, by IP version


def family(address):
    return ipaddress.ip_address(address).version


def packed(address):
    return ipaddress.ip_address(address).packed


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def pseudo(src, dst, protocol, length):
    return packed(src) + packed(dst) + struct.pack("!II", length, protocol)


def udp(src, dst, sport, dport, payload):
    length = 8 + len(payload)
    header = struct.pack("!HHHH", sport, dport, length, 0)
    value = checksum(pseudo(src, dst, UDP, length) + header + payload)
    return header[:6] + struct.pack("!H", value or 0xffff) + payload


TCP_FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16}


def tcp(src, dst, ports, flags, seq=0, ack=0, payload=b""):  # pylint: disable=too-many-arguments
    """A segment; `flags` by their letters, SYNs with an MSS option."""
    options = b"\x02\x04\x05\xb4" if "S" in flags else b""
    bits = sum(TCP_FLAGS[f] for f in flags)
    header = struct.pack("!HHIIBBHHH", *ports, seq & 0xffffffff, ack & 0xffffffff,
                         (20 + len(options)) << 2, bits, 65535, 0, 0) + options
    value = checksum(pseudo(src, dst, TCP, len(header) + len(payload)) + header + payload)
    return header[:16] + struct.pack("!H", value) + header[18:] + payload


def ip(src, dst, protocol, payload, number=0, at=0, more=False, dont=False):  # pylint: disable=too-many-arguments
    """A packet, or with `at` or `more` a fragment of one (`number` its identification)."""
    if family(src) == 4:
        flags = at >> 3 | (0x2000 if more else 0) | (0x4000 if dont else 0)
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), number, flags, 64, protocol, 0)
        header += packed(src) + packed(dst)
        return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload
    if at or more:
        payload = struct.pack("!BBHI", protocol, 0, at | more, number) + payload
        protocol = FRAGMENT_HEADER
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + packed(src) + packed(dst) + payload


def fragments(src, dst, protocol, payload, number, size=1200):
    """The packet cut into fragments of `size` bytes of payload (a multiple of 8)."""
    return [ip(src, dst, protocol, payload[at:at + size], number, at, at + size < len(payload))
            for at in range(0, len(payload), size)]


def icmp_error(src, dst, kind, code, quote, rest=0):
    """An error about the packet that `quote` begins."""
    message = struct.pack("!BBHI", kind, code, 0, rest) + quote
    if family(src) == 4:
        value, protocol = checksum(message), ICMP
    else:
        value, protocol = checksum(pseudo(src, dst, ICMP6, len(message)) + message), ICMP6
    return ip(src, dst, protocol, message[:2] + struct.pack("!H", value) + message[4:])


def send(ns, *packets):
    """Sends IP packets as they are; routing finds their way."""
    with ns.entered():
        if packets[0][0] >> 4 == 4:
            s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        else:
            s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
            s.setsockopt(socket.IPPROTO_IPV6, IPV6_HDRINCL, 1)
    with s:
        for packet in packets:
            if packet[0] >> 4 == 4:
                s.sendto(packet, (socket.inet_ntop(socket.AF_INET, packet[16:20]), 0))
            else:
                s.sendto(packet, (socket.inet_ntop(socket.AF_INET6, packet[24:40]), 0))


def echo_request(number, sequence=1):
    """ICMP; ICMPv6's checksum is the kernel's work."""
    message = struct.pack("!BBHHH", 8, 0, 0, number, sequence)
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


def ping(ns, src, dst, number):
    """One echo request and its answer: who answered."""
    v4 = family(src) == 4
    with ns.entered():
        s = socket.socket(socket.AF_INET if v4 else socket.AF_INET6, socket.SOCK_RAW,
                          socket.IPPROTO_ICMP if v4 else socket.IPPROTO_ICMPV6)
    with s:
        s.settimeout(DEADLINE)
        s.bind((src, 0))
        s.sendto(echo_request(number) if v4 else struct.pack("!BBHHH", 128, 0, 0, number, 1), (dst, 0))
        while True:
            data, sender = s.recvfrom(2048)
            message = data[20:] if v4 else data
            if message[0] == (0 if v4 else 129) and struct.unpack_from("!H", message, 4)[0] == number:
                return sender[0]


class Ip:
    """An IP packet that was seen: addresses as text, protocol, and what is behind the header."""

    def __init__(self, data):
        self.data = data
        if data[0] >> 4 == 4:
            self.header, self.protocol, self.ttl = (data[0] & 15) * 4, data[9], data[8]
            addresses, end = (data[12:16], data[16:20]), struct.unpack_from("!H", data, 2)[0]
        else:
            self.header, self.protocol, self.ttl = 40, data[6], data[7]
            addresses, end = (data[8:24], data[24:40]), 40 + struct.unpack_from("!H", data, 4)[0]
        self.src, self.dst = (str(ipaddress.ip_address(a)) for a in addresses)
        self.payload = data[self.header:end]

    @property
    def ports(self):
        return struct.unpack_from("!HH", self.payload)


class Sniffer:
    """Every IP packet that an interface receives while the context lasts."""

    def __init__(self, ns, interface):
        with ns.entered():
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
            self.socket.bind((interface, ETH_P_ALL))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def wait(self, condition):
        """The first packet that fits."""
        end = time.monotonic() + DEADLINE
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                data, where = self.socket.recvfrom(65536)
            except TimeoutError:
                break
            if where[2] == socket.PACKET_OUTGOING or where[1] not in (0x0800, 0x86DD):
                continue
            packet = Ip(data)
            if condition(packet):
                return packet
        raise AssertionError("the packet never came")


class IcmpErrors:
    """A raw socket that waits for errors of one kind, and what they quote."""

    def __init__(self, ns, version, kind):
        self.version, self.kind = version, kind
        with ns.entered():
            if version == 4:
                self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
            else:
                self.socket = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        self.socket.settimeout(DEADLINE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def quote(self):
        """Who sent the error, and the IP packet in it; the error's checksum has to be right."""
        while True:
            data, sender = self.socket.recvfrom(2048)
            message = data[(data[0] & 15) * 4:] if self.version == 4 else data
            if message[0] != self.kind:
                continue  # neighbour discovery
            if self.version == 4:  # ICMPv6's the kernel has looked at
                assert checksum(message) == 0
            return sender[0], message[8:]


def l4_holds(packet):
    """Is the L4 checksum of this whole packet right?"""
    return checksum(pseudo(packet.src, packet.dst, packet.protocol, len(packet.payload))
                    + packet.payload) == 0
