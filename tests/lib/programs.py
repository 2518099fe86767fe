# SPDX-License-Identifier: GPL-2.0-or-later
"""Servers as people run them, for tests that talk to them through redirects: DNS, a database, ssh, QUIC.

Each is a context manager that owns its process; files go to the folder it is given. Clients are run
by the tests themselves.
"""

import os
import shutil
import subprocess

from netns import eventually, stop


def certificate(folder, *addresses):
    """key.pem and cert.pem for these addresses, signed by themselves."""
    names = ",".join(f"IP:{a}" for a in addresses)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                    "-nodes", "-days", "2", "-subj", "/CN=test", "-addext", f"subjectAltName={names}",
                    "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"],
                   check=True, capture_output=True)


class Program:
    """A process in a namespace, up when somebody listens on its port."""

    input = "/dev/null"

    def __init__(self, ns, port, kind, *command):
        self.ns, self.port, self.kind, self.command = ns, port, kind, command

    def __enter__(self):
        with open(self.input, "rb") as given:
            self.process = self.ns.popen(*self.command, stdin=given, stdout=subprocess.DEVNULL,
                                         stderr=subprocess.DEVNULL)
        self.ns.wait_listening(self.port, self.kind)
        return self

    def __exit__(self, *_):
        stop(self.process)


class Dnsmasq(Program):
    """A name server that knows three names; what it says of big.test does not fit into one packet."""

    A, AAAA = "192.0.2.80", "2001:db8::80"
    BIG = ["%03d-" % n + "x" * 196 for n in range(12)]

    def __init__(self, ns):
        super().__init__(ns, 53, "u", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv",
                         "--no-hosts", "--user=root", "--pid-file", "--edns-packet-max=4096", "--local=/test/",
                         f"--host-record=web.test,{self.A},{self.AAAA}",
                         f"--txt-record=big.test,{','.join(self.BIG)}")


class Redis(Program):
    """Debian has the program apart from the service that would start it: redis-check-rdb by that name."""

    def __init__(self, ns, folder):
        program = shutil.which("redis-server") or shutil.which("redis-check-rdb")
        super().__init__(ns, 6379, "t", "bash", "-c", 'exec -a redis-server "$0" "$@"', program, "--port", "6379",
                         "--save", "", "--dir", folder, "--protected-mode", "no", "--bind", "*", "-::*")


class QuicServer(Program):
    """HTTP/3 over QUIC, by ngtcp2; serves a folder with its key.pem and cert.pem."""

    def __init__(self, ns, port, folder, address="*"):
        super().__init__(ns, port, "u", "gtlsserver", "-q", "-d", folder, address, str(port),
                         f"{folder}/key.pem", f"{folder}/cert.pem")


# In a mount namespace of its own, where root has an empty home: dropbear looks there for the key.
SSHD = """
mount -t tmpfs -o mode=700 tmpfs /root && mkdir -m 700 /root/.ssh && cat >/root/.ssh/authorized_keys &&
exec dropbear -F -E -s -m -P '' -p 22 -r "$1"
"""


class Sshd(Program):
    """dropbear with keys made for the occasion; root may log in with one of them."""

    def __init__(self, ns, folder):
        self.folder = folder
        subprocess.run(["dropbearkey", "-t", "ed25519", "-f", f"{folder}/host_key"], check=True, capture_output=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{folder}/key"], check=True)
        super().__init__(ns, 22, "t", "unshare", "-m", "sh", "-c", SSHD, "sshd", f"{folder}/host_key")
        self.input = f"{folder}/key.pub"

    def client(self, address, port, *more):
        """The command of a client that may log in."""
        return ["ssh", "-F", "/dev/null", "-i", f"{self.folder}/key", "-p", str(port), "-o", "BatchMode=yes",
                "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
                *more, f"root@{address}"]


class Dialogue:
    """A session at pipes: what is said, and waiting for what comes back."""

    def __init__(self, ns, *command):
        self.process = ns.popen(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.heard = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        stop(self.process)

    def say(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def hear(self, text):
        """Waits for it; what came before is returned."""
        def there():
            self.heard += self.process.stdout.read() or b""
            return text.encode() in self.heard
        try:
            eventually(there, f"{text!r} comes")
        except AssertionError as error:
            raise AssertionError(f"{error}; heard: {self.heard[-1000:]!r}") from None
        before, _, self.heard = self.heard.partition(text.encode())
        return before
