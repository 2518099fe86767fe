# SPDX-License-Identifier: GPL-2.0-or-later
"""The programs under test: start, stop and question a real redirectd.

Owns the daemons it starts and their pin folders; a daemon is a context manager and after it
nothing is pinned any more. REDIRECTD_BUILD names the build folder (default: build).
"""

import ctypes
import errno
import itertools
import json
import os
import platform
import shutil
import signal
import socket
import struct
import subprocess
import tempfile

from netns import DEADLINE, eventually, stop

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("REDIRECTD_BUILD", os.path.join(TREE, "build"))
REDIRECTD = os.path.join(BUILD, "daemon", "redirectd")
REDIRECTCTL = os.path.join(BUILD, "ctl", "redirectctl")
BPFFS = "/sys/fs/bpf"
NOBODY = 65534
_numbers = itertools.count(1)

EXIT_FAILED, EXIT_USAGE, EXIT_NO_DAEMON, EXIT_DENIED = 1, 2, 3, 4
EXIT_NO_SUCH, EXIT_INVALID, EXIT_CONFLICT = 5, 6, 7


class Daemon:
    """A redirectd in a namespace, with socket, pins and configuration of its own."""

    def __init__(self, ns, *rules, config=None, arguments=(), prefix=()):
        self.ns, self.rules, self.prefix = ns, rules, list(prefix)
        self.folder = tempfile.mkdtemp(prefix="redirectd-test.")
        os.chmod(self.folder, 0o755)
        self.socket = os.path.join(self.folder, "socket")
        self.config = os.path.join(self.folder, "redirectd.conf")
        self.log_path = os.path.join(self.folder, "log")
        self.pins = f"{BPFFS}/rdt{os.getpid()}-{next(_numbers)}"
        self.arguments = list(arguments)
        self.process = None
        self.write(config)

    def write(self, config):
        if config is not None:
            with open(self.config, "w", encoding="utf-8") as f:
                f.write(config)

    def command(self):
        command = [REDIRECTD, "-s", self.socket, "-p", self.pins]
        if os.path.exists(self.config):
            command += ["-c", self.config]
        for rule in self.rules:
            command += ["-r", rule]
        return [*self.prefix, *command, *self.arguments]

    def start(self, wait=True):
        """Starts it and waits for READY=1, as systemd would."""
        notify_path = os.path.join(self.folder, f"notify{next(_numbers)}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(notify_path)
            environment = {**os.environ, "NOTIFY_SOCKET": notify_path}
            environment.pop("JOURNAL_STREAM", None)
            with open(self.log_path, "ab") as log:
                self.process = subprocess.Popen(self.ns.command(*self.command()), env=environment,
                                                stdout=log, stderr=log)
            if wait:
                self._wait_ready(notify)
        return self

    def _wait_ready(self, notify):
        notify.settimeout(0.2)
        for _ in range(int(2 * DEADLINE / 0.2)):
            try:
                if b"READY=1" in notify.recv(4096).split(b"\n"):
                    return
            except TimeoutError:
                pass
            if self.process.poll() is not None:
                raise AssertionError(f"redirectd ended with {self.process.returncode}:\n{self.log()}")
        raise AssertionError(f"redirectd never said READY=1:\n{self.log()}")

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def end(self, how=signal.SIGTERM):
        """Sends a signal, waits, returns the exit code (negative: killed by that signal)."""
        self.process.send_signal(how)
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after signal {how}:\n{self.log()}") from None

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *error):
        if self.process:
            stop(self.process)
        if error and error[0]:
            print(f"--- log of redirectd\n{self.log()}")
        log = self.log() if os.path.exists(self.log_path) else ""
        shutil.rmtree(self.pins, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        if "ERROR: AddressSanitizer" in log or "runtime error:" in log or "LeakSanitizer" in log:
            raise AssertionError(f"a sanitizer found a fault:\n{log}")

    def ctl(self, *arguments, code=0, **more):
        """Runs redirectctl, which must end with `code`; returns what it printed."""
        done = ctl_run("-s", self.socket, *arguments, **more)
        assert done.returncode == code, (
            f"redirectctl {' '.join(map(str, arguments))}: exit {done.returncode}, not {code}\n"
            f"{done.stdout}{done.stderr}\n--- log\n{self.log()}")
        return done

    def json(self, *arguments, **more):
        return json.loads(self.ctl("-j", *arguments, **more).stdout)

    def add(self, rule):
        self.ctl("add", *rule.split())

    def listed(self):
        return self.json("list")["rules"]

    def rule(self, selector):
        """The one rule of that name or id."""
        found = [r for r in self.listed() if selector in (r["name"], r["id"])]
        assert len(found) == 1, f"{selector}: {found}"
        return found[0]

    def flows(self, *filters):
        return self.json("conntrack", "list", *filters)["flows"]

    def file(self, name, text):
        """Writes a file beside the configuration; returns its path."""
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def texts(self):
        """What is in force, as `list -o rules` prints it."""
        return self.ctl("list", "-o", "rules").stdout.splitlines()

    def interfaces(self):
        """Where the datapath is attached, by the daemon's own word."""
        return {a["interface"] for a in self.json("status")["attachments"]}

    def logged(self, text, after=0):
        """Waits until `text` stands in the log behind offset `after`."""
        eventually(lambda: text in self.log()[after:], f"{text!r} in the log:\n{self.log()}")


def ctl_run(*arguments, **more):
    more.setdefault("timeout", 4 * DEADLINE)
    if "input" not in more:
        more["stdin"] = subprocess.DEVNULL
    return subprocess.run([REDIRECTCTL, *map(str, arguments)], capture_output=True, text=True,
                          check=False, **more)


BPF_PROG_QUERY = 16
TCX_HOOKS = {"ingress": 46, "egress": 47}
SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}


def tcx_programs(ns, interface, hook):
    """Ids of programs on a TCX hook, asked from the kernel (bpftool of old does not know TCX)."""
    index = json.loads(ns.run("ip", "-j", "link", "show", interface).stdout)[0]["ifindex"]
    ids = (ctypes.c_uint32 * 64)()
    attr = ctypes.create_string_buffer(struct.pack(
        "=IIIIQIIQQQQ", index, TCX_HOOKS[hook], 0, 0, ctypes.addressof(ids), 64, 0, 0, 0, 0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    with ns.entered():
        failed = libc.syscall(SYS_BPF[platform.machine()], BPF_PROG_QUERY, attr, len(attr) - 1)
    if failed:
        assert ctypes.get_errno() == errno.EINVAL, f"BPF_PROG_QUERY: {ctypes.get_errno()}"
        return []  # no TCX in this kernel
    return list(ids)[:struct.unpack_from("=I", attr.raw, 24)[0]]


def clsact_programs(ns, interface, hook):
    shown = json.loads(ns.run("tc", "-j", "filter", "show", "dev", interface, hook).stdout or "[]")
    return [f["options"]["prog"]["id"] for f in shown
            if f["kind"] == "bpf" and "prog" in f.get("options", {})]


def attached(ns, interface):
    """eBPF programs on an interface's two hooks, by the kernel's word: [(hook, how, id)]."""
    return [(hook, how, number) for hook in TCX_HOOKS
            for how, ask in (("tcx", tcx_programs), ("clsact", clsact_programs))
            for number in ask(ns, interface, hook)]


def qdiscs(ns, interface):
    return {q["kind"] for q in json.loads(ns.run("tc", "-j", "qdisc", "show", "dev", interface).stdout)}
