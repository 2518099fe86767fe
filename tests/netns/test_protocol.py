# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/PROTOCOL.md and daemon/io.redirectd.varlink against the daemon.

Every example is run in the order of the text: the reply has to be of the same kind and to have the
members shown, and every reply has to be what the interface definition says. The definition's own
words are read by a small parser here, independent of the daemon.
"""

import json
import os
import re
import socket
import threading

import pytest

from netns import Pair, eventually
from peers import TcpEcho, UdpEcho, tcp_ask
from redirectd import TREE, Daemon

TOKEN = re.compile(r"#[^\n]*|->|\[string\]|\[\]|[A-Za-z][A-Za-z0-9_.]*|[(),:?]")
BASIC = {"bool": (bool,), "int": (int,), "float": (int, float), "string": (str,), "object": (dict,)}


def read(*path):
    with open(os.path.join(TREE, *path), encoding="utf-8") as f:
        return f.read()


class Interface:
    """A .varlink text: types, methods (parameters, result) and errors, as nested tuples."""

    def __init__(self, text):
        self.tokens = [t for t in TOKEN.findall(text) if not t.startswith("#")]
        self.types, self.methods, self.errors = {}, {}, {}
        assert self.take() == "interface"
        self.name = self.take()
        while self.tokens:
            keyword, name = self.take(), self.take()
            if keyword == "method":
                parameters = self.type()
                assert self.take() == "->"
                self.methods[name] = (parameters, self.type())
            else:
                {"type": self.types, "error": self.errors}[keyword][name] = self.type()

    def take(self):
        return self.tokens.pop(0)

    def type(self):
        token = self.take()
        if token in ("?", "[]", "[string]"):
            return token, self.type()
        if token != "(":
            return "name", token
        members = {}
        while self.tokens[0] != ")":
            name = self.take()
            members[name] = self.type() if self.tokens[0] == ":" and self.take() else None
            if self.tokens[0] == ",":
                self.take()
        self.take()
        if members and not any(members.values()):
            return "enum", set(members)
        return "struct", members

    def check(self, kind, value, where):
        """Complains when `value` is not of the type."""
        shape, inner = kind
        if shape == "?":
            if value is not None:
                self.check(inner, value, where)
        elif shape == "[]":
            assert isinstance(value, list), where
            for i, item in enumerate(value):
                self.check(inner, item, f"{where}[{i}]")
        elif shape == "[string]":
            assert isinstance(value, dict), where
            for key, item in value.items():
                self.check(inner, item, f"{where}.{key}")
        elif shape == "enum":
            assert value in inner, where
        elif shape == "struct":
            self.check_struct(inner, value, where)
        elif inner in BASIC:
            assert type(value) in BASIC[inner], f"{where}: {value!r} is no {inner}"
        else:
            self.check(self.types[inner], value, where)

    def check_struct(self, members, value, where):
        assert isinstance(value, dict), where
        # The daemon always gives every member, and no other.
        assert set(value) == set(members), where
        for name, kind in members.items():
            self.check(kind, value[name], f"{where}.{name}")

    def check_reply(self, method, reply):
        if "error" in reply:
            name = reply["error"].rpartition(".")[2]
            self.check(self.errors[name], reply["parameters"], reply["error"])
        else:
            self.check(self.methods[method][1], reply["parameters"], method)


INTERFACES = {i.name: i for i in (Interface(read("daemon", f"{name}.varlink"))
                                  for name in ("io.redirectd", "org.varlink.service"))}


def check_reply(method, reply):
    interface = reply.get("error", method).rpartition(".")[0]
    INTERFACES[interface].check_reply(method.rpartition(".")[2], reply)


def examples():
    for block in re.findall(r"```json\n(.*?)```", read("docs", "PROTOCOL.md"), re.DOTALL):
        call, *replies = [json.loads(line) for line in block.splitlines()]
        assert replies, f"no reply to {call}"
        yield call, replies


def same_shape(shown, given, where):
    """Members of objects and kinds of values; texts and numbers depend on time and place."""
    if isinstance(shown, dict):
        assert isinstance(given, dict), where
        assert set(shown) <= set(given), where
        for key, value in shown.items():
            same_shape(value, given[key], f"{where}.{key}")
    elif isinstance(shown, list):
        assert isinstance(given, list) and bool(shown) == bool(given), f"{where}: {given}"
        for one, other in zip(shown, given):
            same_shape(one, other, where)
    elif shown is None or isinstance(shown, bool):
        assert given is shown, where
    else:
        numbers = (int, float)
        assert isinstance(given, numbers if isinstance(shown, numbers) else type(shown)), where


class Caller:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(120)
        self.socket.connect(path)
        self.waiting = b""

    def message(self):
        pieces = [self.waiting]
        while b"\0" not in pieces[-1]:
            pieces.append(self.socket.recv(1 << 16))
            assert pieces[-1], "the daemon closed the connection"
        text, _, self.waiting = b"".join(pieces).partition(b"\0")
        return json.loads(text)

    def call(self, call, most=None):
        """All replies, or the first ones, each checked against the interface definition."""
        self.socket.sendall(json.dumps(call).encode() + b"\0")
        replies = []
        while not replies or replies[-1].get("continues") and len(replies) != most:
            replies.append(self.message())
            check_reply(call["method"], replies[-1])
        return replies

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


@pytest.fixture(name="caller", scope="class")
def caller_(pair):
    config = re.search(r"```conf\n(.*?)```", read("docs", "PROTOCOL.md"), re.DOTALL)[1]
    with Daemon(pair.server, config=config) as daemon, TcpEcho(pair.server, 80):
        tcp_ask(pair.client, Pair.SERVERS[0], 8080)
        with Caller(daemon.socket) as caller:
            yield caller


class TestExamples:
    def test_every_method_has_an_example(self):
        shown = {call["method"] for call, _ in examples()}
        for interface in INTERFACES.values():
            for method in interface.methods:
                assert f"{interface.name}.{method}" in shown

    def test_every_error_is_in_the_text(self):
        text = read("docs", "PROTOCOL.md")
        for error in INTERFACES["io.redirectd"].errors:
            assert f"`io.redirectd.{error}`" in text

    def test_run_all(self, caller):
        for call, shown in examples():
            if shown[-1].get("continues"):  # a stream without end
                with Caller(caller.socket.getpeername()) as other:
                    given = other.call(call, len(shown))
            else:
                given = caller.call(call)
            where = json.dumps(call)
            assert len(given) == len(shown), where
            for one, other in zip(shown, given):
                assert one.get("error") == other.get("error"), f"{where}: {other}"
                same_shape(one, other, where)

    def test_description_is_the_file(self, caller):
        for name in INTERFACES:
            reply, = caller.call({"method": "org.varlink.service.GetInterfaceDescription",
                                  "parameters": {"interface": name}})
            assert reply["parameters"]["description"] == read("daemon", f"{name}.varlink")


class TestManyFlows:
    """A table of thousands, streamed, refused in one piece, filtered, counted."""

    FLOWS = 5000
    RULE = "udp 7000 to 7001 name many"

    @pytest.fixture(scope="class")
    def daemon(self, pair):
        with Daemon(pair.server, self.RULE) as daemon, UdpEcho(pair.server, Pair.SERVERS[0], 7001):
            ports = range(20000, 20000 + self.FLOWS)
            for port in ports:
                with pair.client.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                    s.bind(("0.0.0.0", port))
                    s.sendto(b"x", (Pair.SERVERS[0], 7000))
            eventually(lambda: self.count(daemon) == self.FLOWS, "all flows are there")
            yield daemon

    def count(self, daemon, **filters):
        with Caller(daemon.socket) as caller:
            reply, = caller.call({"method": "io.redirectd.ConntrackCount", "parameters": filters})
        return reply["parameters"]["count"]

    def conntrack(self, daemon, more, **filters):
        with Caller(daemon.socket) as caller:
            return caller.call({"method": "io.redirectd.Conntrack", "parameters": filters, "more": more})

    def test_stream_has_each_once(self, daemon):
        replies = self.conntrack(daemon, True)
        ports = [f["original"]["sport"] for r in replies for f in r["parameters"]["flows"]]
        assert sorted(ports) == list(range(20000, 20000 + self.FLOWS))
        assert all(len(r["parameters"]["flows"]) <= 256 for r in replies)

    def test_too_many_for_one(self, daemon):
        reply, = self.conntrack(daemon, False)
        assert reply["error"] == "io.redirectd.TooManyFlows"
        assert reply["parameters"]["limit"] == 4096

    def test_filters(self, daemon):
        reply, = self.conntrack(daemon, False, sport=20007)
        assert [f["original"]["sport"] for f in reply["parameters"]["flows"]] == [20007]
        client = reply["parameters"]["flows"][0]["original"]["src"]
        assert self.count(daemon, src=client) == self.FLOWS
        assert self.count(daemon, src=f"{client}/32", dport=7000, protocol="udp", rule="many") == self.FLOWS
        assert self.count(daemon, dst=client) == 0
        assert self.count(daemon, dport=7001) == 0
        assert self.count(daemon, protocol="tcp") == 0
        assert self.count(daemon, state="ESTABLISHED") == 0
        assert self.count(daemon, state="unreplied") + self.count(daemon, state="replied") == self.FLOWS

    def test_slow_stream_leaves_others_alone(self, daemon):
        with Caller(daemon.socket) as slow:
            for _ in range(20):  # more than the socket's buffers hold
                slow.socket.sendall(b'{"method":"io.redirectd.Conntrack","more":true}\0')
            done = threading.Event()
            worker = threading.Thread(target=lambda: (self.count(daemon), done.set()))
            worker.start()
            assert done.wait(60)
            worker.join()
            flows = 0
            for _ in range(20):
                while True:
                    message = slow.message()
                    flows += len(message["parameters"]["flows"])
                    if not message.get("continues"):
                        break
            assert flows == 20 * self.FLOWS

    def test_flows_of_a_removed_rule(self, daemon):
        number = str(daemon.rule("many")["id"])
        daemon.ctl("remove", "many")
        assert self.count(daemon, rule=number) > 0
        for gone in ("many", "4000000", "x y", ""):
            reply, = self.conntrack(daemon, True, rule=gone)
            assert reply["error"] == "io.redirectd.NoSuchRule"


class TestManyRules:
    def test_one_reply_holds_them_all(self, pair):
        rules = [f"tcp {port} to 80 name r{port}" for port in range(10000, 20000)]
        config = "".join(f"redirect {rule}\n" for rule in rules)
        with Daemon(pair.server, config=config) as daemon, Caller(daemon.socket) as caller:
            reply, = caller.call({"method": "io.redirectd.List"})
        assert [r["rule"] for r in reply["parameters"]["rules"]] == rules
