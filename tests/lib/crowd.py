# SPDX-License-Identifier: GPL-2.0-or-later
"""Many real clients at once, and a server for them: who keeps talking, and who comes new.

Each is a context manager that owns a thread and its sockets. What they wait for they wait for long:
under a flood packets are lost, and TCP and the clients of UDP send them again.
"""

import contextlib
import selectors
import socket
import threading
import time

from netns import family_of

PATIENCE = 90.0  # seconds; TCP has sent a SYN again six times then
PAUSE = 0.02     # between two messages of one talker
AGAIN = 1.0      # until a datagram is sent again
MESSAGE = 16


class Service:
    """Echoes what comes, by TCP and UDP, on one port of both families; one thread for all."""

    def __init__(self, ns, port):
        self.selector = selectors.DefaultSelector()
        self.ended = False
        self.sockets = [ns.listen("::", port), ns.listen("::", port, socket.SOCK_DGRAM)]
        for s, handler in zip(self.sockets, (self._accept, self._answer)):
            s.setblocking(False)
            self.selector.register(s, selectors.EVENT_READ, handler)
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended = True
        self.thread.join()
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.selector.close()

    def _serve(self):
        while not self.ended:
            for key, _ in self.selector.select(0.1):
                with contextlib.suppress(BlockingIOError):
                    key.data(key.fileobj)

    def _accept(self, listener):
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            self.selector.register(connection, selectors.EVENT_READ, self._echo)

    def _echo(self, connection):
        try:
            data = connection.recv(65536)
        except ConnectionError:
            data = b""
        if data:
            connection.sendall(data)
            return
        self.selector.unregister(connection)
        connection.close()

    @staticmethod
    def _answer(s):
        while True:
            data, peer = s.recvfrom(2048)
            s.sendto(data, peer)


class Talker:
    """One connection or stream of datagrams: numbered messages, each echoed, checked in order."""

    def __init__(self, ns, address, port, kind):
        self.udp = kind == socket.SOCK_DGRAM
        self.socket = ns.open_socket(family_of(address), kind)
        self.socket.settimeout(PATIENCE)
        self.socket.connect((address, port))
        self.local = self.socket.getsockname()[:2]
        self.socket.setblocking(False)
        self.count, self.heard, self.sent_at, self.stalled = 0, b"", None, 0.0
        self.error = None

    def message(self):
        return b"%015d\n" % self.count

    def speak(self, now):
        """Sends the next message when it is time, a datagram that got lost once more."""
        if self.sent_at is None or (self.udp and now - self.sent_at > AGAIN):
            with contextlib.suppress(BlockingIOError):
                self.socket.send(self.message())
            self.sent_at = now

    def listen(self, now):
        data = self.socket.recv(2048)
        assert data, f"closed by the other side after {self.count}"
        if self.udp and data != self.message():
            assert int(data) < self.count, f"{data!r} in answer to {self.message()!r}"
            return  # a second answer to one that was sent again
        self.heard += data
        assert self.message().startswith(self.heard), f"{self.heard!r} in answer to {self.message()!r}"
        if len(self.heard) == MESSAGE:
            self.stalled = max(self.stalled, now - self.sent_at)
            self.count, self.heard, self.sent_at = self.count + 1, b"", None


class Crowd:
    """Talkers that go on and on; `tcp` connections and `udp` streams, half of each IPv6."""

    def __init__(self, ns, servers, port, tcp, udp):
        kinds = [socket.SOCK_STREAM] * tcp + [socket.SOCK_DGRAM] * udp
        self.talkers = [Talker(ns, servers[n % 2], port, kind) for n, kind in enumerate(kinds)]
        self.selector = selectors.DefaultSelector()
        for t in self.talkers:
            self.selector.register(t.socket, selectors.EVENT_READ, t)
        self.ended = False
        self.thread = threading.Thread(target=self._talk, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended = True
        self.thread.join()
        for t in self.talkers:
            t.socket.close()
        self.selector.close()

    def _talk(self):
        while not self.ended:
            now = time.monotonic()
            for t in self.talkers:
                self._try(t, t.speak, now)
            end = now + PAUSE
            while (now := time.monotonic()) < end:
                for key, _ in self.selector.select(end - now):
                    self._try(key.data, key.data.listen, time.monotonic())

    def _try(self, talker, what, now):
        if talker.error:
            return
        try:
            what(now)
        except BlockingIOError:
            pass
        except (OSError, AssertionError, ValueError) as error:
            talker.error = error
            self.selector.unregister(talker.socket)

    def counts(self):
        return [t.count for t in self.talkers]

    def must_go_on(self, than):
        """Every one has got more through than at `than`."""
        end = time.monotonic() + PATIENCE
        while True:
            for number, t in enumerate(self.talkers):
                if t.error:
                    raise AssertionError(f"talker {number} broke after {t.count}") from t.error
            still = [n for n, (t, before) in enumerate(zip(self.talkers, than)) if t.count <= before]
            if not still:
                return
            assert time.monotonic() < end, f"{len(still)} talkers stand still: {still[:10]}"
            time.sleep(0.1)


class Newcomers:
    """New connections one after another, with a request each; `took` has how long each took."""

    def __init__(self, ns, address, port):
        self.ns, self.address, self.port = ns, address, port
        self.took, self.failed = [], []
        self.ended = False
        self.thread = threading.Thread(target=self._come, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended = True
        self.thread.join()

    def _come(self):
        while not self.ended:
            began = time.monotonic()
            try:
                with self.ns.open_socket(family_of(self.address), socket.SOCK_STREAM) as s:
                    s.settimeout(PATIENCE)
                    s.connect((self.address, self.port))
                    s.sendall(b"hello")
                    assert s.recv(100) == b"hello"
            except (OSError, AssertionError) as error:
                self.failed.append(error)
            else:
                self.took.append(time.monotonic() - began)
            time.sleep(PAUSE)

    def milliseconds(self, share):
        """The latency that so large a share stayed within."""
        ordered = sorted(self.took)
        return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else None
