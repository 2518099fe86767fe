# SPDX-License-Identifier: GPL-2.0-or-later
"""A Debian 13 with a real systemd: made once by debootstrap, booted over an overlay.

Owns the cache folder ${XDG_CACHE_HOME:-/var/cache}/redirectd-tests (kept from run to run; nothing
but Debian packages is in it) and, while a context lasts, an overlay, a bpffs and the container.
Relies on debootstrap, systemd-nspawn, overlayfs and, the first time, on the network.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile

from netns import eventually

SUITE = "trixie"
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
BASE = ["systemd", "systemd-sysv", "dbus", "iproute2", "procps"]


class Unavailable(Exception):
    """No container here, and why."""


def build_packages(tree):
    """Debian's names from the table in quickstart: what building needs is said only once."""
    with open(os.path.join(tree, "quickstart"), encoding="utf-8") as f:
        table = f.read().split("NEEDS='", 1)[1].split("'", 1)[0]
    rows = [line.split() for line in table.splitlines() if line]
    return sorted({r[2] for r in rows if r[0] == "build"} | {"libcmocka-dev"})


def run(*command, **more):
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, stdin=subprocess.DEVNULL, check=False, **more)
    return done.returncode, done.stdout


def base_system(packages):
    """The cached root folder with these packages; its name follows from what is in it."""
    for tool in ("debootstrap", "systemd-nspawn"):
        if not shutil.which(tool):
            raise Unavailable(f"{tool} is not installed; run: ./quickstart --deps-tests")
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME", "/var/cache"), "redirectd-tests")
    digest = hashlib.sha256(" ".join(BASE + packages).encode()).hexdigest()[:12]
    root = os.path.join(cache, f"{SUITE}-{digest}")
    if os.path.isdir(root):
        return root
    os.makedirs(cache, exist_ok=True)
    work = tempfile.mkdtemp(prefix=f"{SUITE}-making-", dir=cache)
    try:
        os.chmod(work, 0o755)
        code, said = run("debootstrap", "--variant=minbase", f"--include={','.join(BASE)}", SUITE, work, MIRROR)
        if code:
            raise Unavailable(f"debootstrap {SUITE} from {MIRROR} failed: {said.strip()[-300:]}")
        code, said = run("chroot", work, "sh", "-c", "apt-get update -qq && DEBIAN_FRONTEND=noninteractive "
                         f"apt-get install -y -qq --no-install-recommends {' '.join(packages)} && apt-get clean")
        if code:
            raise Unavailable(f"packages for {SUITE} do not install: {said.strip()[-300:]}")
        os.rename(work, root)
        return root
    finally:
        shutil.rmtree(work, ignore_errors=True)


class Container:
    """The base system under an overlay; `build` folders and installs go to the overlay only."""

    def __init__(self, root, tree):
        self.root, self.tree = root, tree
        self.mounts = []
        self.process = None
        self.leader = None

    def __enter__(self):
        try:
            self.work = tempfile.mkdtemp(prefix="redirectd-container.")
            for folder in ("memory", "root", "bpffs"):
                os.mkdir(os.path.join(self.work, folder))
            # overlayfs wants its upper folder on a file system with trusted.* attributes: tmpfs has them.
            self._mount("tmpfs", "tmpfs", "memory", "mode=755")
            for folder in ("upper", "scratch"):
                os.mkdir(os.path.join(self.work, "memory", folder))
            self._mount("overlay", "overlay", "root", f"lowerdir={self.root},"
                        f"upperdir={self.work}/memory/upper,workdir={self.work}/memory/scratch")
            # A bpffs of its own: pins of this machine are not touched.
            self._mount("bpf", "bpf", "bpffs", "mode=700")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _mount(self, kind, source, folder, options):
        place = os.path.join(self.work, folder)
        code, said = run("mount", "-t", kind, source, place, "-o", options)
        if code:
            raise Unavailable(f"mount of {kind}: {said.strip()}")
        self.mounts.append(place)

    def __exit__(self, *_):
        if self.process:
            self.process.terminate()  # nspawn shuts the container down
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.log.close()
        for place in reversed(self.mounts):
            run("umount", "--lazy" if place.endswith("root") else "-f", place)
        shutil.rmtree(self.work, ignore_errors=True)

    def chroot(self, command, timeout=900):
        """A command in the system that is not booted, with the checkout at /source."""
        return run("systemd-nspawn", "-q", "--register=no", "--keep-unit", "-D", f"{self.work}/root",
                   f"--bind-ro={self.tree}:/source", "--setenv=LC_ALL=C.UTF-8", "sh", "-ec", command,
                   timeout=timeout)

    def boot(self):
        """Starts systemd as process 1 and waits until it is up."""
        self.log = open(os.path.join(self.work, "boot.log"), "wb")  # pylint: disable=consider-using-with
        self.process = subprocess.Popen(
            ["systemd-nspawn", "-q", "-D", f"{self.work}/root", "--boot", "--private-network",
             "--capability=all", "--system-call-filter=bpf perf_event_open",
             f"--bind={self.work}/bpffs:/sys/fs/bpf", "--register=no", "--keep-unit",
             f"--machine=redirectd-{os.getpid()}"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.leader = eventually(self._find_leader, "process 1 of the container")
        eventually(lambda: self.run("systemctl", "is-system-running")[1].strip() in ("running", "degraded"),
                   "the container is up")
        return self

    def _find_leader(self):
        """nspawn's child that is process 1 of its own namespace."""
        if self.process.poll() is not None:
            with open(self.log.name, encoding="utf-8", errors="replace") as f:
                raise Unavailable(f"the container does not boot: {f.read()[-400:]}")
        asked = run("pgrep", "-P", self.process.pid)[1].split()
        for pid in asked:
            with open(f"/proc/{pid}/status", encoding="utf-8") as f:
                ids = [line.split()[1:] for line in f if line.startswith("NSpid:")][0]
            if ids[-1] == "1" and os.path.exists(f"/proc/{pid}/root/run/systemd/private"):
                return pid
        return None

    def command(self, *command):
        return ["nsenter", "-t", self.leader, "-a", "--", *map(str, command)]

    def run(self, *command, timeout=120):
        return run(*self.command(*command), timeout=timeout)

    def shell(self, text, code=0):
        status, said = self.run("sh", "-c", text)
        assert status == code, f"{text}: exit {status}, not {code}\n{said}"
        return said

    def journal(self):
        return self.run("journalctl", "--no-pager", "-q", "-u", "redirectd.service", "-o", "cat")[1]
