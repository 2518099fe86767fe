# SPDX-License-Identifier: GPL-2.0-or-later
"""Many flows in little time: the attached programs run on made packets (BPF_PROG_TEST_RUN).

The flows are made by the loaded datapath, as packets from the wire would make them, a million in
some ten seconds; no packet reaches anybody.
"""

import ctypes
import platform
import socket
import struct

from redirectd import SYS_BPF, attached

BPF_PROG_TEST_RUN, BPF_PROG_GET_FD_BY_ID = 10, 13
SYN, SYN_ACK, ACK = 0x02, 0x12, 0x10
MACS = bytes(12)
_libc = ctypes.CDLL(None, use_errno=True)


class _Run(ctypes.Structure):
    _fields_ = [("prog_fd", ctypes.c_uint32), ("retval", ctypes.c_uint32),
                ("data_size_in", ctypes.c_uint32), ("data_size_out", ctypes.c_uint32),
                ("data_in", ctypes.c_uint64), ("data_out", ctypes.c_uint64),
                ("repeat", ctypes.c_uint32), ("rest", ctypes.c_uint32 * 15)]


def _bpf(command, attr, size):
    result = _libc.syscall(SYS_BPF[platform.machine()], command, attr, size)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf command {command}")
    return result


class Hook:
    """An attached program that takes a frame."""

    def __init__(self, ns, interface, hook):
        number = next(n for h, _, n in attached(ns, interface) if h == hook)
        attr = ctypes.create_string_buffer(struct.pack("=III", number, 0, 0), 16)
        self.attr = _Run(prog_fd=_bpf(BPF_PROG_GET_FD_BY_ID, attr, 16), repeat=1)

    def run(self, buffer, length):
        """Returns what the program returned; `buffer` is one of ctypes."""
        self.attr.data_in = ctypes.addressof(buffer)
        self.attr.data_size_in = length
        _bpf(BPF_PROG_TEST_RUN, ctypes.byref(self.attr), ctypes.sizeof(self.attr))
        return self.attr.retval


class Frame:
    """An Ethernet frame without payload; addresses, ports and flags are written in place."""

    def __init__(self, protocol, source, destination, sport, dport):
        self.ipv6 = ":" in destination
        family = socket.AF_INET6 if self.ipv6 else socket.AF_INET
        l4 = (struct.pack(">HHIIBBHHH", sport, dport, 1, 1, 0x50, 0, 1024, 0, 0) if protocol == "tcp"
              else struct.pack(">HHHH", sport, dport, 8, 0))
        number = socket.IPPROTO_TCP if protocol == "tcp" else socket.IPPROTO_UDP
        ends = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
        if self.ipv6:
            head = MACS + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(l4), number, 64)
        else:
            head = MACS + b"\x08\x00" + struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(l4), 0, 0, 64, number, 0)
        data = head + ends + l4
        self.length = len(data)
        self.buffer = ctypes.create_string_buffer(data, len(data))
        self.l4 = self.length - len(l4)
        # The last four bytes of each address.
        self.destination = self.l4 - 4
        self.source = self.destination - (16 if self.ipv6 else 4)

    def put(self, offset, layout, *values):
        struct.pack_into(layout, self.buffer, offset, *values)

    def sent(self, client, sport):
        self.put(self.source, ">I", client)
        self.put(self.l4, ">H", sport)

    def answered(self, client, sport):
        self.put(self.destination, ">I", client)
        self.put(self.l4 + 2, ">H", sport)

    def flags(self, flags):
        self.put(self.l4 + 13, "B", flags)


CLIENT4, CLIENT6 = "10.0.0.0", "2001:db8:aaaa::"


def fill(ns, interface, count, *, protocol="tcp", server="192.0.2.2", dport=8080, target=80, first=0):
    """Flows of `count` clients to a redirected port: of TCP established ones, of UDP one datagram.

    Client number n is 10.0.0.0 + n, or 2001:db8:aaaa:: + n, and its port 1024 + n % 60000.
    """
    client = CLIENT6 if ":" in server else CLIENT4
    base = 0 if ":" in server else 10 << 24
    there = Frame(protocol, client, server, 0, dport)
    back = Frame(protocol, server, client, target, 0)
    with ns.entered():
        come, leave = Hook(ns, interface, "ingress"), Hook(ns, interface, "egress")
        for n in range(first, first + count):
            port = 1024 + n % 60000
            there.sent(base + n, port)
            if protocol == "udp":
                come.run(there.buffer, there.length)
                continue
            back.answered(base + n, port)
            for frame, hook, flags in ((there, come, SYN), (back, leave, SYN_ACK), (there, come, ACK)):
                frame.flags(flags)
                hook.run(frame.buffer, frame.length)
