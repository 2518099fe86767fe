# SPDX-License-Identifier: GPL-2.0-or-later
"""`stats -o openmetrics` before real readers: the OpenMetrics parser of Prometheus' own client
library, a Prometheus that scrapes it over HTTP, and its node exporter's textfile collector; the
scripts, units and the dashboard of docs/metrics."""

import json
import os
import shutil
import socket
import subprocess
import urllib.parse

import pytest

from netns import Pair, eventually
from peers import TcpEcho, receive, tcp_ask
from redirectd import EXIT_USAGE, REDIRECTCTL, TREE, Daemon

METRICS = os.path.join(TREE, "docs", "metrics")
PORT, PROMETHEUS_PORT, EXPORTER_PORT = 9617, 9090, 9100


def needed(tool):
    """The tool's path; without it the test is skipped, or fails where all must run."""
    found = shutil.which(tool)
    if not found and os.environ.get("CI") != "true":
        pytest.skip(f"{tool} is not installed; run: ./quickstart --deps-tests")
    assert found, f"{tool} is not installed"
    return found


@pytest.fixture(name="net", scope="class")
def net_(pair):
    with Daemon(pair.server, "tcp 8080 to 80 name web", "udp 5300 to 53",
                "tcp 81 to 82 name off disabled",
                "udp 5302 to 54 weight 3,[2001:db8::2]:55 weight 0 name two max-flows 1") as daemon, \
            TcpEcho(pair.server, 80):
        for server in Pair.SERVERS:
            tcp_ask(pair.client, server, 8080)
        tcp_ask(pair.client, Pair.SERVER4, 80)
        with pair.client.open_socket(socket.AF_INET6, socket.SOCK_DGRAM) as s, \
                pair.client.open_socket(socket.AF_INET6, socket.SOCK_DGRAM) as refused:
            s.sendto(b"x", (Pair.SERVER6, 5302))
            eventually(lambda: daemon.rule("two")["counters"]["flows"] == 1, "the one flow")
            refused.sendto(b"x", (Pair.SERVER6, 5302))
            eventually(lambda: daemon.rule("two")["counters"]["refused"] == 1, "it is refused")
        pair.daemon = daemon
        yield pair


def environment(net):
    return {**os.environ, "REDIRECTD_SOCKET": net.daemon.socket,
            "PATH": f"{os.path.dirname(REDIRECTCTL)}:{os.environ['PATH']}"}


def parse(text):
    """{family: {sorted labels: value}} by the OpenMetrics parser, which refuses what is not valid."""
    if os.environ.get("CI") == "true":
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as read
    else:
        read = pytest.importorskip("prometheus_client.openmetrics.parser").text_string_to_metric_families
    return {f.name: f for f in read(text)}


def value(families, family, sample=None, **labels):
    found = [s.value for s in families[family].samples
             if s.name == (sample or family) and labels.items() <= s.labels.items()]
    assert len(found) == 1, f"{family} {labels}: {found}"
    return found[0]


class TestText:
    def test_parses_and_tells_the_truth(self, net):
        families = parse(net.daemon.ctl("stats", "-o", "openmetrics").stdout)
        stats, rules = net.daemon.json("stats"), net.daemon.listed()
        totals = {"redirectd_redirected_packets": stats["redirected"],
                  "redirectd_redirected_bytes": stats["redirected_bytes"],
                  "redirectd_created_flows": 3, "redirectd_lost_events": stats["events_lost"],
                  "redirectd_refused_flows": stats["flows"]["insert_failed"]}
        for name, expected in totals.items():
            assert families[name].type == "counter"
            assert value(families, name, f"{name}_total") == expected, name
        assert value(families, "redirectd_active_flows") == stats["flows"]["active"]
        assert value(families, "redirectd_max_flows") == stats["flows"]["max"]
        assert families["redirectd_seen_bytes"].unit == "bytes"
        for rule in rules:
            labels = {"id": str(rule["id"]), "name": rule["name"] or ""}
            for key in ("packets", "bytes", "flows"):
                name = f"redirectd_rule_{key}"
                assert value(families, name, f"{name}_total", **labels) == rule["counters"][key]
            assert value(families, "redirectd_rule_active_flows", **labels) == rule["counters"]["active"]
            assert value(families, "redirectd_rule_refused_flows", "redirectd_rule_refused_flows_total",
                         **labels) == rule["counters"]["refused"]
            assert value(families, "redirectd_rule_info", rule=rule["rule"], origin=rule["origin"],
                         **labels) == rule["enabled"]
        assert value(families, "redirectd_rule_flows", "redirectd_rule_flows_total", name="web") == 2
        two = net.daemon.rule("two")
        for target, name in zip(two["targets"], ("54", "[2001:db8::2]:55")):
            labels = {"id": str(two["id"]), "name": "two", "target": name}
            for key in ("packets", "bytes", "flows"):
                family = f"redirectd_target_{key}"
                assert value(families, family, f"{family}_total", **labels) == target["counters"][key]
            assert value(families, "redirectd_target_active_flows", **labels) == target["counters"]["active"]
        assert [t["counters"]["flows"] for t in two["targets"]] == [1, 0] and two["counters"]["refused"] == 1
        assert len(families["redirectd_target_flows"].samples) == 2
        for family, key in (("dropped", "drops"), ("passed", "passed")):
            name = f"redirectd_{family}_packets"
            assert {s.labels["reason"] for s in families[name].samples} == set(stats[key])
        assert value(families, "redirectd_passed_packets", "redirectd_passed_packets_total",
                     reason="unrelated") > 0

    def test_every_family_is_in_the_text(self, net):
        with open(os.path.join(TREE, "docs", "METRICS.md"), encoding="utf-8") as f:
            text = f.read()
        for family in parse(net.daemon.ctl("stats", "-o", "openmetrics").stdout).values():
            assert f"`{family.name}{'_total' if family.type == 'counter' else ''}`" in text

    def test_labels_are_escaped(self, net):
        """A rule's text has few odd characters; the name of an interface may have them."""
        rule = 'tcp 7000 to 7001 on a\\b name odd'
        net.daemon.ctl("add", rule)
        families = parse(net.daemon.ctl("stats", "-o", "openmetrics").stdout)
        net.daemon.ctl("remove", "odd")
        assert value(families, "redirectd_rule_info", name="odd", rule=rule) == 1

    def test_only_stats_has_it(self, net):
        net.daemon.ctl("list", "-o", "openmetrics", code=EXIT_USAGE)
        net.daemon.ctl("-j", "stats", "-o", "openmetrics", code=EXIT_USAGE)


class TestSourcePorts:
    def test_where_most_are_in_use(self, pair):
        """A masqueraded connection, back to the client's own host."""
        pair.server.sysctl("ipv4/ip_forward", 1)
        with Daemon(pair.server, f"tcp 8080 to {Pair.CLIENT4}:80 masquerade") as daemon, \
                TcpEcho(pair.client, 80), pair.client.connect(Pair.SERVER4, 8080) as s:
            s.sendall(b"hello")
            assert receive(s, 5) == b"hello"
            families = parse(daemon.ctl("stats", "-o", "openmetrics").stdout)
            room = {"protocol": "tcp", "src": Pair.SERVER4, "dst": Pair.CLIENT4, "dport": "80"}
            assert value(families, "redirectd_source_ports_used", **room) == 1
            assert value(families, "redirectd_source_ports_max", **room) > 60000
            searches = "redirectd_source_port_searches"
            assert value(families, searches, f"{searches}_total", tried="1") == 1


def query(ns, expression):
    """The result of a query, by the API of the Prometheus in the namespace."""
    url = f"http://127.0.0.1:{PROMETHEUS_PORT}/api/v1/query?query={urllib.parse.quote(expression)}"
    answer = json.loads(ns.run("curl", "-sS", "--max-time", "20", url).stdout)
    assert answer["status"] == "success", f"{expression}: {answer}"
    return answer["data"]["result"]


def dashboard():
    with open(os.path.join(METRICS, "grafana.json"), encoding="utf-8") as f:
        return json.load(f)


class TestScrape:
    """systemd-socket-activate does what redirectd-metrics.socket does: a process a connection."""

    @pytest.fixture(scope="class")
    def prometheus(self, net, tmp_path_factory):
        needed("prometheus")
        folder = tmp_path_factory.mktemp("prometheus")
        (folder / "prometheus.yml").write_text(
            "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: redirectd\n"
            f"    static_configs:\n      - targets: ['127.0.0.1:{PORT}']\n")
        with open(folder / "log", "wb") as log:
            net.server.popen("systemd-socket-activate", "-l", f"127.0.0.1:{PORT}", "--accept", "--inetd",
                             "-E", "REDIRECTD_SOCKET", "-E", "PATH",
                             os.path.join(METRICS, "redirectd-metrics"), env=environment(net),
                             stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            net.server.wait_listening(PORT)
            net.server.popen("prometheus", f"--config.file={folder}/prometheus.yml",
                             f"--storage.tsdb.path={folder}/data",
                             f"--web.listen-address=127.0.0.1:{PROMETHEUS_PORT}",
                             stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        net.server.wait_listening(PROMETHEUS_PORT)
        eventually(lambda: (r := query(net.server, 'up{job="redirectd"}')) and r[0]["value"][1] == "1",
                   "Prometheus has scraped it")
        return net.server

    def test_counters_arrive(self, net, prometheus):
        web = net.daemon.rule("web")["counters"]
        found, = query(prometheus, 'redirectd_rule_bytes_total{name="web"}')
        assert int(found["value"][1]) == web["bytes"] > 0
        assert len(query(prometheus, "redirectd_rule_info")) == 4

    def test_every_query_of_the_dashboard(self, prometheus):
        targets = [t for panel in dashboard()["panels"] for t in panel["targets"]]
        eventually(lambda: query(prometheus, "rate(redirectd_seen_packets_total[1m])"), "two scrapes")
        for target in targets:
            expression = (target["expr"].replace("$instance", ".*").replace("$__rate_interval", "1m"))
            found = query(prometheus, expression)
            assert found or expression.endswith("> 0"), f"{expression} finds nothing"

    def test_http(self, net, prometheus):
        base = f"http://127.0.0.1:{PORT}"
        told = prometheus.run("curl", "-sSi", "--max-time", "20", f"{base}/metrics").stdout
        assert told.startswith("HTTP/1.0 200 OK") and "application/openmetrics-text" in told
        assert told.endswith("# EOF\n")
        parse(told.partition("\n\n")[2])
        assert "404" in prometheus.run("curl", "-sSi", "--max-time", "20", f"{base}/etc/passwd").stdout
        net.daemon.end()
        assert " 503 " in prometheus.run("curl", "-sSi", "--max-time", "20", f"{base}/metrics").stdout
        net.daemon.start()


class TestTextfile:
    def run(self, net, folder):
        return net.server.run(os.path.join(METRICS, "redirectd-textfile"), folder, check=False,
                              env=environment(net))

    def test_node_exporter_reads_it(self, net, tmp_path):
        needed("prometheus-node-exporter")
        assert self.run(net, tmp_path).returncode == 0
        assert os.listdir(tmp_path) == ["redirectd.prom"]
        net.server.popen("prometheus-node-exporter", "--collector.disable-defaults",
                         "--collector.textfile", f"--collector.textfile.directory={tmp_path}",
                         f"--web.listen-address=127.0.0.1:{EXPORTER_PORT}",
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        net.server.wait_listening(EXPORTER_PORT)
        told = net.server.run("curl", "-sS", f"http://127.0.0.1:{EXPORTER_PORT}/metrics").stdout
        assert "node_textfile_scrape_error 0" in told
        rule = net.daemon.rule("web")
        assert f'redirectd_rule_bytes_total{{id="{rule["id"]}",name="web"}} {rule["counters"]["bytes"]}' in told

    def test_without_a_daemon_no_stale_file(self, net, tmp_path):
        assert self.run(net, tmp_path).returncode == 0
        net.daemon.end()
        assert self.run(net, tmp_path).returncode != 0
        assert os.listdir(tmp_path) == []
        net.daemon.start()


class TestFiles:
    def test_units(self, tmp_path):
        """systemd's own reader finds nothing wrong, with the scripts' place put in."""
        for name in os.listdir(METRICS):
            if name.endswith((".service.in", ".socket", ".timer")):
                with open(os.path.join(METRICS, name), encoding="utf-8") as f:
                    text = f.read().replace("@metricsdir@", METRICS)
                (tmp_path / name.removesuffix(".in")).write_text(text)
        units = sorted(str(p) for p in tmp_path.iterdir())
        assert len(units) == 4
        done = subprocess.run([needed("systemd-analyze"), "verify", "--man=no", *units],
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0 and str(tmp_path) not in done.stderr, done.stderr

    def test_dashboard_structure(self):
        """What Grafana's importer insists on; each panel has its own id and place."""
        d = dashboard()
        assert d["title"] and d["uid"] and d["schemaVersion"] >= 30
        assert {v["name"] for v in d["templating"]["list"]} == {"datasource", "instance"}
        assert len({p["id"] for p in d["panels"]}) == len(d["panels"])
        taken = set()
        for p in d["panels"]:
            g = p["gridPos"]
            assert g["x"] + g["w"] <= 24 and p["type"] in ("stat", "gauge", "timeseries", "table")
            cells = {(x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])}
            assert not cells & taken, f"{p['title']} lies over another panel"
            taken |= cells
            for t in p["targets"]:
                assert t["expr"] and t["refId"] and t["datasource"]["uid"] == "${datasource}"
