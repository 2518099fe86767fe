# SPDX-License-Identifier: GPL-2.0-or-later
"""The control socket and redirectctl: who may what, limits, exit codes, JSON by its schemas."""

import contextlib
import json
import os
import re
import socket

import jsonschema
import pytest

from netns import Pair, eventually
from peers import TcpEcho, UdpEcho, tcp_ask, udp_ask
from redirectd import (EXIT_CONFLICT, EXIT_DENIED, EXIT_INVALID, EXIT_NO_DAEMON, EXIT_NO_SUCH, EXIT_USAGE,
                       NOBODY, REDIRECTCTL, Daemon, ctl_run)

HERE = os.path.dirname(os.path.abspath(__file__))


def schema(name):
    with open(os.path.join(HERE, "schemas", f"{name}.json"), encoding="utf-8") as f:
        return json.load(f)


@pytest.fixture(scope="class")
def net(pair):
    with Daemon(pair.server, config="redirect tcp+udp 8080 to 80 name web\n"
                                    "redirect tcp 9000-9003 to 9100-9103 from 192.0.2.0/24 on eth0,lo\n"
                                    "redirect udp [2001:db8::2]:53 to 5353 disabled\n") as daemon:
        pair.daemon = daemon
        with TcpEcho(pair.server, 80), UdpEcho(pair.server, Pair.SERVER6, 80):
            for server in Pair.SERVERS:
                tcp_ask(pair.client, server, 8080)
            udp_ask(pair.client, Pair.SERVER6, 8080)
            yield pair


class Raw:
    """A client by hand: bytes in, bytes out."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.waiting = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, method, parameters=None, **more):
        call = {"method": method, **({"parameters": parameters} if parameters is not None else {}), **more}
        self.socket.sendall(json.dumps(call).encode() + b"\0")

    def receive(self):
        """The next reply, or None when the daemon has closed."""
        while b"\0" not in self.waiting:
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self.waiting += data
        message, self.waiting = self.waiting.split(b"\0", 1)
        return json.loads(message)

    def must_be_hung_up(self):
        """At the most an error, then the end."""
        answer = self.receive()
        if answer is not None:
            assert "error" in answer
            assert self.receive() is None

    def call(self, method, parameters=None, **more):
        self.send(method, parameters, **more)
        return self.receive()


@pytest.fixture
def raw(net):
    with Raw(net.daemon.socket) as r:
        yield r


class TestJson:
    @pytest.mark.parametrize("name, arguments", [
        ("list", ["list"]), ("conntrack", ["conntrack", "list"]), ("stats", ["stats"])])
    def test_schema(self, net, name, arguments):
        jsonschema.validate(net.daemon.json(*arguments), schema(name),
                            cls=jsonschema.Draft202012Validator)

    @pytest.mark.parametrize("verb", ["list", "stats"])
    def test_o_json_is_the_same(self, net, verb):
        one = json.loads(net.daemon.ctl(verb, "-o", "json").stdout)
        assert one.keys() == net.daemon.json(verb).keys()

    @pytest.mark.parametrize("arguments, code", [
        (["add", "tcp", "1", "too", "2"], EXIT_INVALID), (["add", "tcp", "8080", "to", "81"], EXIT_CONFLICT),
        (["remove", "nosuch"], EXIT_NO_SUCH), (["show", "nosuch"], EXIT_NO_SUCH), (["nosuch"], EXIT_USAGE)])
    def test_errors(self, net, arguments, code):
        done = net.daemon.ctl("-j", *arguments, code=code)
        jsonschema.validate(json.loads(done.stdout), schema("error"), cls=jsonschema.Draft202012Validator)

    def test_schemas_refuse_what_they_must(self, net):
        """A schema that lets everything through would test nothing."""
        good = net.daemon.json("list")
        del good["rules"][0]["counters"]["bytes"]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(good, schema("list"))

    def test_list_tells_the_truth(self, net):
        web, shifted, dns = net.daemon.listed()
        assert web["rule"] == "tcp+udp 8080 to 80 name web"
        assert web["origin"] == "config"
        assert web["source"] == f"{net.daemon.config}:1"
        assert web["listen"] == {"address": None, "ports": [8080, 8080]}
        only, = web["targets"]
        assert only.pop("counters") == {k: v for k, v in web["counters"].items() if k != "refused"}
        assert only == {"address": None, "ports": [80, 80], "weight": 1}
        assert web["limits"] == {"rule": None, "source": None} and web["timeouts"] == {}
        assert web["on_change"] == {"policy": "keep", "drain_seconds": None}
        assert shifted["from"] == ["192.0.2.0/24"]
        assert shifted["interfaces"] == ["eth0", "lo"]
        assert shifted["listen"]["ports"] == [9000, 9003]
        assert shifted["targets"][0]["ports"] == [9100, 9103]
        assert dns["enabled"] is False
        assert dns["listen"]["address"] in ("2001:db8::2", "[2001:db8::2]")


CONNTRACK_TCP = re.compile(
    r"tcp      6 \d+ [A-Z_0-9]+ src=(\S+) dst=(\S+) sport=\d+ dport=8080 packets=\d+ bytes=\d+ "
    r"(\[UNREPLIED\] )?src=(\S+) dst=(\S+) sport=80 dport=\d+ packets=\d+ bytes=\d+ (\[ASSURED\] )?"
    r"mark=0( secctx=\S+)?( zone=\d+)? use=\d+$")
CONNTRACK_UDP = re.compile(
    r"udp      17 \d+ src=\S+ dst=\S+ sport=\d+ dport=8080 packets=\d+ bytes=\d+ "
    r"(\[UNREPLIED\] )?src=\S+ dst=\S+ sport=80 dport=\d+ packets=\d+ bytes=\d+ (\[ASSURED\] )?mark=0 use=\d+$")


class TestText:
    def test_conntrack_lines(self, net):
        lines = net.daemon.ctl("conntrack", "list").stdout.splitlines()
        assert len(lines) == 3
        for line in lines:
            assert (CONNTRACK_TCP if line.startswith("tcp") else CONNTRACK_UDP).match(line), line

    def test_rules_can_be_typed_back(self, net):
        printed = net.daemon.ctl("list", "-o", "rules").stdout.splitlines()
        rules = [line for line in printed if line and not line.startswith("#")]
        assert len(rules) == 3
        with Daemon(net.client, *[r.removeprefix("redirect ") for r in rules]) as other:
            assert [r["rule"] for r in other.listed()] == [r["rule"] for r in net.daemon.listed()]

    @pytest.mark.parametrize("arguments", [["list"], ["show", "web"], ["stats"], ["status"],
                                           ["conntrack", "count"]])
    def test_tables_for_people(self, net, arguments):
        done = net.daemon.ctl(*arguments)
        assert done.stdout.strip()
        assert "\x1b" not in done.stdout, "no colours into a pipe"
        assert not done.stderr

    def test_pipe_that_closes(self, net):
        done = net.server.run("sh", "-c", f"{REDIRECTCTL} -s {net.daemon.socket} list | head -n 1; exit 0")
        assert "rror" not in done.stderr



class TestChanges:
    def test_add_show_remove(self, net):
        ctl = net.daemon.ctl
        said = ctl("add", "tcp", "7000", "to", "7001", "name", "extra")
        assert "runtime" in said.stdout + said.stderr
        rule = net.daemon.rule("extra")
        assert rule["origin"] == "runtime"
        assert "7000" in ctl("show", "extra").stdout
        assert "7000" in ctl("show", rule["id"]).stdout
        ctl("remove", "tcp 7000 to 7001 name extra")
        ctl("show", "extra", code=EXIT_NO_SUCH)

    def test_remove_by_id(self, net):
        net.daemon.add("tcp 7000 to 7001 name byid")
        net.daemon.ctl("remove", net.daemon.rule("byid")["id"])
        net.daemon.ctl("remove", "byid", code=EXIT_NO_SUCH)

    def test_short_spelling(self, net):
        net.daemon.ctl("add", "tcp", "7002", "7003")
        net.daemon.ctl("remove", "tcp", "7002", "to", "7003")

    def test_shell_ate_the_arrow(self, net):
        done = net.daemon.ctl("add", "tcp", "7002", "-", code=EXIT_INVALID)
        assert "shell" in done.stderr

    def test_dry_run(self, net):
        before = net.daemon.listed()
        net.daemon.ctl("-n", "add", "tcp", "7000", "to", "7001")
        net.daemon.ctl("-n", "remove", "web")
        net.daemon.ctl("-n", "disable", "web")
        net.daemon.ctl("-n", "add", "tcp", "8080", "to", "7001", code=EXIT_CONFLICT)
        after = net.daemon.listed()
        assert [r["rule"] for r in after] == [r["rule"] for r in before]

    def test_conflict_names_the_other_rule_and_its_place(self, net):
        done = net.daemon.ctl("add", "tcp", "8080", "to", "81", code=EXIT_CONFLICT)
        assert "tcp+udp 8080 to 80 name web" in done.stderr
        assert f"{net.daemon.config}:1" in done.stderr
        assert done.stderr.splitlines()[1].strip().startswith("narrow one down by an address")

    def test_name_in_use(self, net):
        done = net.daemon.ctl("add", "tcp", "7000", "to", "81", "name", "web", code=EXIT_CONFLICT)
        assert "web" in done.stderr and "choose another name" in done.stderr

    @pytest.mark.parametrize("rule", ["tcp 0 to 80", "tcp 8080", "icmp 1 to 2", "tcp 70000 to 80",
                                      "tcp 1-5 to 10-12", "tcp 1 to 2 on", "tcp 1 to 2 name a/b",
                                      "tcp 10.0.0.1/8:1 to 2", "tcp 80 to 80"])
    def test_invalid_rules(self, net, rule):
        done = net.daemon.ctl("add", *rule.split(), code=EXIT_INVALID)
        assert "^" in done.stderr

    @pytest.mark.parametrize("rule", [
        "tcp 1 to 2 max-flows 7 max-flows 3 per source", "tcp 1 to 2 rate 5/s burst 9",
        "tcp 1 to 2 rate 10/m per source", "tcp 1 to 2 timeout tcp-established 1h",
        "tcp 1 to 2 weight 0,3", "tcp 1 to 2 on-change reset", "tcp 1 to 2 on-change drain 30s"])
    def test_limits_timeouts_and_changes_are_listed_as_written(self, net, rule):
        net.daemon.ctl("add", *rule.split())
        try:
            assert rule in [r["rule"] for r in net.daemon.listed()]
            jsonschema.validate(net.daemon.json("list"), schema("list"),
                                cls=jsonschema.Draft202012Validator)
        finally:
            net.daemon.ctl("remove", *rule.split())

    def test_check_file(self, net, tmp_path):
        good, bad = tmp_path / "good.conf", tmp_path / "bad.conf"
        good.write_text("redirect tcp 1 to 2\n")
        bad.write_text("redirect tcp 1 to\nredirect udp 1 to 2 nme x\n")
        assert ctl_run("check", good).returncode == 0
        done = ctl_run("check", bad)
        assert done.returncode == EXIT_INVALID
        assert f"{bad}:1:" in done.stderr and f"{bad}:2:21:" in done.stderr
        error = json.loads(ctl_run("-j", "check", bad).stdout)["error"]
        assert error["message"].startswith(f"{bad}:1:") and error["message"].endswith(" (and 1 more)")

    def test_shipped_example(self, net):
        tree = os.path.dirname(os.path.dirname(HERE))
        path = os.path.join(tree, "etc", "redirectd.conf")
        done = ctl_run("check", path)
        assert done.returncode == 0, done.stderr
        with open(path, encoding="utf-8") as f:
            all_of_it = re.sub(r"^#(?=\w)", "", f.read(), flags=re.M)
        done = ctl_run("check", "-", input=all_of_it)
        assert done.stdout == "7 rules, no errors\n", done.stderr

    def test_large_rule_set(self, net):
        """3,000 rules by file; list, reload and look-up cope."""
        with Daemon(net.client, config="".join(f"redirect tcp {p} to {p + 20000} name r{p}\n"
                                               for p in range(10000, 13000))) as daemon:
            assert len(daemon.listed()) == 3000
            daemon.ctl("reload")
            assert daemon.rule("r12999")["listen"]["ports"] == [12999, 12999]
            with TcpEcho(net.client, 32999):
                assert tcp_ask(net.server, Pair.CLIENT4, 12999) == b"hello"


class TestExitCodes:
    def test_no_daemon(self, tmp_path):
        done = ctl_run("-s", tmp_path / "nobody", "list")
        assert done.returncode == EXIT_NO_DAEMON
        assert str(tmp_path / "nobody") in done.stderr

    @pytest.mark.parametrize("arguments", [[], ["lst"], ["list", "--wat"], ["-Z", "list"], ["remove"],
                                           ["conntrack", "lst"], ["list", "-o", "xml"]])
    def test_usage(self, net, arguments):
        done = net.daemon.ctl(*arguments, code=EXIT_USAGE)
        assert done.stderr and not done.stdout

    @pytest.mark.parametrize("arguments", [["--help"], ["help"], ["add", "--help"], ["conntrack", "--help"],
                                           ["-V"]])
    def test_help(self, net, arguments):
        assert net.daemon.ctl(*arguments).stdout

    def test_did_you_mean(self, net):
        assert "list" in net.daemon.ctl("lsit", code=EXIT_USAGE).stderr


@pytest.fixture(scope="class")
def grouped(pair, tmp_path_factory):
    """A daemon that finds a group redirectd (4711) in its /etc/group; the machine's is untouched."""
    group = tmp_path_factory.mktemp("etc") / "group"
    with open("/etc/group", encoding="utf-8") as f:
        lines = [line for line in f if not line.startswith("redirectd:")]
    group.write_text("".join(lines) + "redirectd:x:4711:\n")
    prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c",
              f'mount --bind {group} /etc/group && exec "$0" "$@"']
    with Daemon(pair.server, "tcp 8080 to 80 name web", prefix=prefix) as daemon:
        yield daemon


class TestPermissions:
    STRANGER = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    MEMBER = {"user": NOBODY, "group": NOBODY, "extra_groups": [4711]}
    PRIMARY = {"user": NOBODY, "group": 4711, "extra_groups": []}

    @pytest.mark.parametrize("arguments", [["list"], ["stats"], ["status"], ["conntrack", "list"],
                                           ["conntrack", "count"], ["show", "web"]])
    def test_anybody_may_read(self, grouped, arguments):
        grouped.ctl(*arguments, **self.STRANGER)

    @pytest.mark.parametrize("arguments", [["add", "tcp", "1", "to", "2"], ["remove", "web"],
                                           ["disable", "web"], ["enable", "web"], ["reload"]])
    def test_nobody_may_not_change(self, grouped, arguments):
        before = grouped.listed()
        done = grouped.ctl(*arguments, code=EXIT_DENIED, **self.STRANGER)
        assert "permission" in done.stderr.lower() or "denied" in done.stderr.lower()
        assert [r["rule"] for r in grouped.listed()] == [r["rule"] for r in before]

    @pytest.mark.parametrize("who", ["MEMBER", "PRIMARY"])
    def test_group_may_change(self, grouped, who):
        grouped.ctl("add", "tcp", "1", "to", "2", **getattr(self, who))
        grouped.ctl("remove", "tcp", "1", "to", "2", **getattr(self, who))

    def test_socket_without_access(self, grouped):
        os.chmod(grouped.socket, 0o600)
        try:
            grouped.ctl("list", code=EXIT_DENIED, **self.STRANGER)
        finally:
            os.chmod(grouped.socket, 0o666)


class TestSocket:
    def test_get_info(self, raw):
        info = raw.call("org.varlink.service.GetInfo")["parameters"]
        assert "io.redirectd" in info["interfaces"]
        assert info["version"]

    def test_interface_description(self, raw):
        text = raw.call("org.varlink.service.GetInterfaceDescription",
                        {"interface": "io.redirectd"})["parameters"]["description"]
        assert "interface io.redirectd" in text
        for method in ("List", "Add", "Remove", "Reload", "Conntrack", "Stats", "Status"):
            assert re.search(rf"^method {method}\b", text, re.M), method

    @pytest.mark.parametrize("method, parameters, error", [
        ("io.redirectd.NoSuch", {}, "org.varlink.service.MethodNotFound"),
        ("io.nobody.List", {}, "org.varlink.service.InterfaceNotFound"),
        ("io.redirectd.Show", {}, "org.varlink.service.InvalidParameter"),
        ("io.redirectd.Show", {"rule": 7}, "org.varlink.service.InvalidParameter"),
        ("io.redirectd.List", {"surplus": 1}, "org.varlink.service.InvalidParameter"),
        ("io.redirectd.Show", {"rule": "nosuch"}, "io.redirectd.NoSuchRule")])
    def test_errors(self, raw, method, parameters, error):
        assert raw.call(method, parameters)["error"] == error
        assert "parameters" in raw.call("io.redirectd.Stats"), "the connection goes on"

    def test_pipelined_calls_in_order(self, raw):
        for _ in range(20):
            raw.send("io.redirectd.Stats")
            raw.send("io.redirectd.List")
        for _ in range(20):
            assert "flows" in raw.receive()["parameters"]
            assert "rules" in raw.receive()["parameters"]

    def test_oneway_gets_no_answer(self, raw):
        raw.send("io.redirectd.List", oneway=True)
        raw.send("io.redirectd.Stats")
        assert "flows" in raw.receive()["parameters"]

    def test_request_in_pieces(self, raw):
        for byte in b'{"method":"io.redirectd.Stats"}\0':
            raw.socket.sendall(bytes([byte]))
        assert "flows" in raw.receive()["parameters"]

    @pytest.mark.parametrize("garbage", [b"\0", b"no json\0", b"[]\0", b'{"method":1}\0', b'{"a":1,"a":2}\0',
                                         b'{"method":"io.redirectd.List"}trail\0',
                                         b'{"method":"x","parameters":' + b'{"a":' * 40 + b"1" + b"}" * 41 +
                                         b"\0", b"\xff\xfe\0"])
    def test_garbage_hurts_nobody(self, net, raw, garbage):
        raw.socket.sendall(garbage)
        answer = raw.receive()
        assert answer is None or "error" in answer
        assert len(net.daemon.listed()) == 3

    def test_huge_request(self, net, raw):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(40):
                raw.socket.sendall(b'"' * (1 << 16))
        raw.must_be_hung_up()
        assert len(net.daemon.listed()) == 3

    def test_slow_request(self, net, raw):
        """Ten seconds for one request; the daemon hangs up, and serves others meanwhile."""
        raw.socket.sendall(b'{"method":')
        assert len(net.daemon.listed()) == 3
        raw.must_be_hung_up()

    def test_seventy_clients(self, net):
        """All places taken: the longest idle one gives way, a new one always gets in."""
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Raw(net.daemon.socket)) for _ in range(70)]
            assert "flows" in clients[-1].call("io.redirectd.Stats")["parameters"]
            assert len(net.daemon.listed()) == 3

            def first_gave_way():
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    return clients[0].call("io.redirectd.Stats") is None
                return True
            assert first_gave_way()

    def test_client_that_never_reads(self, net, raw):
        """Asks on and on and reads nothing: paused, not waited for."""
        raw.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            for _ in range(100000):
                raw.socket.send(b'{"method":"io.redirectd.List"}\0')
        assert len(net.daemon.listed()) == 3
        eventually(lambda: net.daemon.json("status"), "others are served")

    def test_stream_of_flows(self, raw):
        raw.send("io.redirectd.Conntrack", {}, more=True)
        flows = []
        while True:
            reply = raw.receive()
            flows += reply["parameters"].get("flows", [])
            if not reply.get("continues"):
                break
        assert len(flows) == 3

    def test_call_verb(self, net):
        reply = json.loads(net.daemon.ctl("call", "io.redirectd.Show", '{"rule":"web"}').stdout)
        assert "8080" in json.dumps(reply)
