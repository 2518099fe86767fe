# SPDX-License-Identifier: GPL-2.0-or-later
"""Network namespaces for tests: made under unique names, removed with all that runs in them.

Owns: the namespaces it makes and the processes it starts. Relies on iproute2, nsenter and root.
`ip netns exec` is not used: it hides /sys/fs/bpf behind a fresh /sys.
"""

import contextlib
import ctypes
import itertools
import os
import signal
import socket
import subprocess
import threading
import time

_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count(1)
CLONE_NEWNET = 0x40000000
DEADLINE = 30.0  # seconds; generous, since no test measures time


def eventually(condition, what="condition", deadline=DEADLINE):
    """Polls until condition() is true and returns its value; fails naming `what` and the last value."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: still {value!r} after {deadline:.0f} s")
        time.sleep(0.05)


class Namespace:
    """One network namespace; a context manager."""

    def __init__(self, label):
        self.name = f"rdt{os.getpid()}-{next(_numbers)}{label}"
        self.path = f"/run/netns/{self.name}"
        self.processes = []

    def __enter__(self):
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.run("ip", "link", "set", "lo", "up")
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            stop(process)
        subprocess.run(["ip", "netns", "delete", self.name], check=True)

    def command(self, *command):
        return ["nsenter", f"--net={self.path}", "--", *map(str, command)]

    def run(self, *command, check=True, **more):
        more.setdefault("stdout", subprocess.PIPE)
        more.setdefault("stderr", subprocess.PIPE)
        more.setdefault("timeout", 120)
        done = subprocess.run(self.command(*command), text=True, **more)
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def popen(self, *command, **more):
        process = subprocess.Popen(self.command(*command), **more)
        self.processes.append(process)
        return process

    def sysctl(self, key, value):
        self.run("sh", "-c", f"echo {value} > /proc/sys/net/{key}")

    @contextlib.contextmanager
    def entered(self):
        """This thread inside the namespace: sockets made here stay there."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(self.path, os.O_RDONLY)
        try:
            if _libc.setns(there, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            yield
        finally:
            _libc.setns(home, CLONE_NEWNET)
            os.close(home)
            os.close(there)

    def open_socket(self, family, kind):
        with self.entered():
            s = socket.socket(family, kind)
        s.settimeout(DEADLINE)
        return s

    def listen(self, address, port, kind=socket.SOCK_STREAM):
        s = self.open_socket(family_of(address), kind)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if s.family == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        s.bind((address, port))
        if kind == socket.SOCK_STREAM:
            s.listen(128)
        return s

    def connect(self, address, port, source=None, sport=0):
        s = self.open_socket(family_of(address), socket.SOCK_STREAM)
        if source or sport:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind((source or ("::" if s.family == socket.AF_INET6 else ""), sport))
        s.connect((address, port))
        return s

    def wait_listening(self, port, kind="t"):
        eventually(lambda: self.run("ss", f"-Hln{kind}", f"sport = :{port}").stdout.strip(),
                   f"somebody listens on {port}")


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def host(address):
    """The address as it stands in a URL or a rule."""
    return f"[{address}]" if ":" in address else address


def stop(process, how=signal.SIGTERM):
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            pipe.close()


def veth(one, one_name, one_addresses, other, other_name, other_addresses):
    """A cable between two namespaces, both ends up, addresses usable at once."""
    one.run("ip", "link", "add", one_name, "type", "veth", "peer", "name", other_name,
            "netns", other.name)
    for ns, name, addresses in ((one, one_name, one_addresses), (other, other_name, other_addresses)):
        for address in addresses:
            nodad = ["nodad"] if ":" in address else []
            ns.run("ip", "address", "add", address, "dev", name, *nodad)
        ns.run("ip", "link", "set", name, "up")
    for ns, name in ((one, one_name), (other, other_name)):
        eventually(lambda: "UP" in ns.run("ip", "-br", "link", "show", name).stdout.split(),
                   f"{name} up")


OFFLOADS = ("rx", "tx", "sg", "tso", "gso", "gro")


def set_offloads(ns, name, on):
    """With offloads off every checksum on the wire is real and no packet exceeds the MTU."""
    state = "on" if on else "off"
    for feature in OFFLOADS:
        ns.run("ethtool", "-K", name, feature, state, check=False)
    shown = ns.run("ethtool", "-k", name).stdout
    wanted = f"tx-checksumming: {state}"
    assert wanted in shown, f"{name}: ethtool does not switch offloads {state}:\n{shown}"


class Pair:
    """A client and a server with a cable: 192.0.2.1 and .2, 2001:db8::1 and ::2."""

    CLIENT4, SERVER4, OTHER4 = "192.0.2.1", "192.0.2.2", "192.0.2.3"
    CLIENT6, SERVER6, OTHER6 = "2001:db8::1", "2001:db8::2", "2001:db8::3"
    SERVERS = (SERVER4, SERVER6)

    def __init__(self, offloads=True):
        self.offloads = offloads
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.client = stack.enter_context(Namespace("c"))
            self.server = stack.enter_context(Namespace("s"))
            veth(self.client, "eth0", [f"{self.CLIENT4}/24", f"{self.CLIENT6}/64"],
                 self.server, "eth0", [f"{self.SERVER4}/24", f"{self.SERVER6}/64",
                                       f"{self.OTHER4}/24"])
            # Deprecated: a server on [::] that answers by routing must not choose it as its source.
            self.server.run("ip", "address", "add", f"{self.OTHER6}/64", "dev", "eth0", "nodad",
                            "preferred_lft", "0")
            for ns in (self.client, self.server):
                set_offloads(ns, "eth0", self.offloads)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self.stack.__exit__(*error)


class Thread(threading.Thread):
    """A thread whose exception comes out at result()."""

    def __init__(self, function, *args):
        super().__init__(daemon=True)
        self.function, self.args = function, args
        self.value, self.error = None, None
        self.start()

    def run(self):
        try:
            self.value = self.function(*self.args)
        except BaseException as error:  # pylint: disable=broad-except
            self.error = error

    def result(self, deadline=4 * DEADLINE):
        self.join(deadline)
        assert not self.is_alive(), f"{self.function.__name__} still runs"
        if self.error:
            raise self.error
        return self.value
