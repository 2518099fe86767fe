# SPDX-License-Identifier: GPL-2.0-or-later
"""Servers and clients that tests talk through redirects: echo servers, nginx, transfers.

Owns the threads and processes it starts; each server is a context manager.
"""

import contextlib
import hashlib
import os
import select
import socket
import subprocess
import threading
import time

from netns import DEADLINE, family_of, stop


class TcpEcho:
    """Sends back what it gets, on any address of both families. Counts connections."""

    def __init__(self, ns, port, greeting=b""):
        self.listener = ns.listen("::", port)
        self.greeting = greeting
        self.connections = []
        self.peers = []  # (address, port) of each client, as the server sees it
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.threads = []

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        """Ends the threads first: one that waits on a closed descriptor may wait on the next socket that gets it."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()
        for c in self.connections:
            with contextlib.suppress(OSError):
                c.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()
        for c in self.connections:
            c.close()

    def _accept(self):
        while True:
            try:
                connection, peer = self.listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self.connections.append(connection)
            self.peers.append((peer[0].removeprefix("::ffff:"), peer[1]))
            self.threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self.threads[-1].start()

    def _serve(self, connection):
        connection.settimeout(None)
        with contextlib.suppress(OSError):
            connection.sendall(self.greeting)
            while data := connection.recv(65536):
                connection.sendall(data)
            connection.close()


class UdpEcho:
    """Sends each datagram back with a tag in front, to whom it came from, from where it arrived."""

    def __init__(self, ns, address, port, tag=b"echo:"):
        self.socket = ns.listen(address, port, socket.SOCK_DGRAM)
        self.socket.settimeout(0.05)
        self.tag = tag
        self.seen = []
        self.ended = False
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended = True
        self.thread.join()
        self.socket.close()

    def _serve(self):
        while not self.ended:
            with contextlib.suppress(TimeoutError, ConnectionError):
                data, peer = self.socket.recvfrom(65536)
                self.seen.append((data, peer))
                self.socket.sendto(self.tag + data, peer)


class Nginx:
    """A real web server over a folder, both families; with TLS by key.pem and cert.pem of a folder."""

    def __init__(self, ns, port, folder, scratch, tls=None):
        self.ns, self.port = ns, port
        ssl = (f"ssl_certificate {tls}/cert.pem; ssl_certificate_key {tls}/key.pem; "
               "ssl_protocols TLSv1.2 TLSv1.3;") if tls else ""
        self.configuration = os.path.join(scratch, f"nginx-{port}.conf")
        with open(self.configuration, "w", encoding="utf-8") as f:
            f.write(f"""
daemon off; master_process off; pid {scratch}/nginx-{port}.pid; error_log stderr warn;
events {{ worker_connections 512; }}
http {{
    access_log off; sendfile on; keepalive_requests 1000000; default_type text/plain;
    client_body_temp_path {scratch}/nginx-body; proxy_temp_path {scratch}/nginx-proxy;
    fastcgi_temp_path {scratch}/nginx-fcgi; uwsgi_temp_path {scratch}/nginx-uwsgi;
    scgi_temp_path {scratch}/nginx-scgi;
    server {{ listen [::]:{port} ipv6only=off backlog=4096{' ssl' if tls else ''}; {ssl} root {folder}; }}
}}
""")

    def __enter__(self):
        self.process = self.ns.popen("nginx", "-c", self.configuration, "-e", "stderr",
                                     stderr=subprocess.DEVNULL)
        self.ns.wait_listening(self.port)
        return self

    def __exit__(self, *_):
        stop(self.process)


class Socat:
    """socat as it would be typed, in a namespace."""

    def __init__(self, ns, one, other, port, kind="t"):
        self.ns, self.one, self.other, self.port, self.kind = ns, one, other, port, kind

    def __enter__(self):
        self.process = self.ns.popen("socat", self.one, self.other)
        self.ns.wait_listening(self.port, self.kind)
        return self

    def __exit__(self, *_):
        stop(self.process)


def receive(s, length):
    data = b""
    while len(data) < length:
        part = s.recv(length - len(data))
        if not part:
            raise AssertionError(f"the connection ended after {len(data)} of {length} bytes")
        data += part
    return data


def tcp_ask(ns, address, port, message=b"hello", **where):
    """One connection, one message, its echo."""
    with ns.connect(address, port, **where) as s:
        s.sendall(message)
        return receive(s, len(message))


def tcp_refused(ns, address, port, **where):
    try:
        with ns.connect(address, port, **where):
            return False
    except ConnectionRefusedError:
        return True


def udp_ask(ns, address, port, message=b"hello", source=None, deadline=DEADLINE):
    """One datagram and its answer, from a connected socket: the source must be whom we asked."""
    with ns.open_socket(family_of(address), socket.SOCK_DGRAM) as s:
        if source:
            s.bind((source, 0))
        s.connect((address, port))
        s.settimeout(deadline)
        s.send(message)
        return s.recv(65536)


def udp_refused(ns, address, port, source=None):
    try:
        udp_ask(ns, address, port, source=source)
        return False
    except ConnectionRefusedError:
        return True


def curl(ns, url, *options):
    """The body of a page, by the real curl."""
    done = subprocess.run(ns.command("curl", "-gfsS", "--max-time", "100", *options, url),
                          capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, f"curl {url}: exit {done.returncode}: {done.stderr.decode()}"
    return done.stdout


def random_file(path, size):
    """Writes random bytes, returns their sha256."""
    digest = hashlib.sha256()
    with open(path, "wb") as f:
        for _ in range(0, size, 1 << 20):
            block = os.urandom(1 << 20)
            digest.update(block)
            f.write(block)
    return digest.hexdigest()


class Upload:
    """A server that takes one file and answers with the sha256 of what came."""

    def __init__(self, ns, port):
        self.listener = ns.listen("::", port)

    def __enter__(self):
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(DEADLINE)
        self.listener.close()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                digest = hashlib.sha256()
                while data := connection.recv(1 << 20):
                    digest.update(data)
                connection.sendall(digest.hexdigest().encode())
                connection.close()


def upload(ns, address, port, path):
    with ns.connect(address, port) as s, open(path, "rb") as f:
        s.settimeout(4 * DEADLINE)
        s.sendfile(f)
        s.shutdown(socket.SHUT_WR)
        return receive(s, 64).decode()


class Stream:
    """A connection that keeps talking: numbered messages, each echoed, checked in order."""

    def __init__(self, ns, address, port):
        self.socket = ns.connect(address, port)
        self.ended = False
        self.count = 0
        self.error = None
        self.thread = threading.Thread(target=self._talk, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended = True
        self.thread.join()
        self.socket.close()

    def _talk(self):
        try:
            while not self.ended:
                message = b"%015d\n" % self.count
                self.socket.sendall(message)
                answer = receive(self.socket, len(message))
                assert answer == message, f"sent {message!r}, got {answer!r}"
                self.count += 1
                time.sleep(0.002)
        except BaseException as error:  # pylint: disable=broad-except
            self.error = error

    def must_go_on(self):
        """At least ten more messages go through from now."""
        goal = self.count + 10
        end = time.monotonic() + DEADLINE
        while self.count < goal:
            if self.error:
                raise AssertionError(f"the transfer broke after {self.count}") from self.error
            assert time.monotonic() < end, f"the transfer stands still at {self.count}"
            select.select([], [], [], 0.02)
