# SPDX-License-Identifier: GPL-2.0-or-later
"""`redirectctl import`: golden files in tests/import, and what the real programs print here.

Each input there has a .ok with what goes to stdout, and a .err with what goes to stderr. Made by
the programs themselves: nft.json from nft.rules, *.save from *.sh, zone.xml and firewall-cmd.txt by
firewall-offline-cmd.
"""

import glob
import json
import os
import random
import shutil
import socket
import subprocess

import jsonschema
import pytest

from netns import Namespace
from redirectd import EXIT_FAILED, EXIT_INVALID, EXIT_USAGE, REDIRECTCTL, TREE, ctl_run

FOLDER = os.path.join(TREE, "tests", "import")
FORMATS = {"iptables.save": "iptables", "ip6tables.save": "iptables", "nft.json": "nft",
           "nft-of-iptables.json": "nft", "zone.xml": "firewalld", "firewall-cmd.txt": "firewall-cmd",
           "docker.txt": "docker", "docker-ps.txt": "docker", "rinetd.conf": "rinetd",
           "rinetd-patterns.conf": "rinetd"}


def read(name):
    with open(os.path.join(FOLDER, name), encoding="utf-8") as f:
        return f.read()


def run(*arguments, **more):
    return ctl_run("import", *arguments, cwd=FOLDER, **more)


def run_text(text, *arguments):
    return subprocess.run([REDIRECTCTL, "import", *arguments], input=text, capture_output=True, text=True,
                          check=False, timeout=60)


class TestGolden:
    def test_every_file_is_tried(self):
        assert {os.path.basename(p)[:-3] for p in glob.glob(f"{FOLDER}/*.ok")} == set(FORMATS)

    @pytest.mark.parametrize("name", FORMATS)
    def test_file(self, name):
        done = run(name)
        assert done.stdout == read(f"{name}.ok")
        assert done.stderr == read(f"{name}.err")
        assert done.returncode == (EXIT_INVALID if "not taken" in done.stderr else 0)

    @pytest.mark.parametrize("name, expected", FORMATS.items())
    def test_format_and_json(self, name, expected):
        """Detected as what it is; naming the format changes nothing; JSON says the same."""
        with open(os.path.join(TREE, "tests", "netns", "schemas", "import.json"), encoding="utf-8") as f:
            schema = json.load(f)
        done = ctl_run("-j", "import", name, cwd=FOLDER)
        told = json.loads(done.stdout)
        jsonschema.validate(told, schema, cls=jsonschema.Draft202012Validator)
        assert told["format"] == expected and not done.stderr
        assert [f"redirect {r['rule']}" for r in told["rules"]] == read(f"{name}.ok").splitlines()
        assert told["complete"] == (done.returncode == 0)
        assert told["complete"] == all(r["kind"] == "note" for r in told["remarks"])
        assert run(name, "--format", expected).stdout == read(f"{name}.ok")

    @pytest.mark.parametrize("name", FORMATS)
    def test_what_is_printed_is_a_configuration(self, name, tmp_path):
        """Of the grammar, and without conflicts."""
        (tmp_path / "new.conf").write_text(read(f"{name}.ok"))
        done = ctl_run("-j", "check", tmp_path / "new.conf")
        assert done.returncode == 0, done.stdout

    @pytest.mark.parametrize("name", FORMATS)
    def test_lines_are_right(self, name):
        """The line that is named holds the text that is shown."""
        told = json.loads(ctl_run("-j", "import", name, cwd=FOLDER).stdout)
        lines = read(name).splitlines()
        for remark in told["remarks"]:
            if remark["line"] and remark["text"] and not name.endswith(".xml"):
                assert lines[remark["line"] - 1] == remark["text"]
            elif remark["line"]:
                assert remark["text"].split()[0].rstrip(">") in lines[remark["line"] - 1]

    def test_standard_input(self):
        assert run_text(read("docker.txt")).stdout == read("docker.txt.ok")
        assert run_text(read("docker.txt"), "-").stdout == read("docker.txt.ok")

    def test_quiet_has_no_notes(self):
        said = ctl_run("-q", "import", "iptables.save", cwd=FOLDER).stderr
        assert "not taken" in said and "note:" not in said


class TestRealPrograms:
    """The same from the programs of this machine, whatever their version."""

    @pytest.fixture(name="ns")
    def ns_(self):
        with Namespace("i") as ns:
            yield ns

    def test_nft(self, ns):
        ns.run("nft", "-f", os.path.join(FOLDER, "nft.rules"))
        done = run_text(ns.run("nft", "-j", "list", "ruleset").stdout)
        assert done.stdout == read("nft.json.ok")

    @pytest.mark.parametrize("program", ["iptables", "ip6tables"])
    def test_iptables_save(self, ns, program):
        if not shutil.which(program) and os.environ.get("CI") != "true":
            pytest.skip(f"{program} is not installed; run: ./quickstart --deps-tests")
        ns.run("sh", "-e", os.path.join(FOLDER, f"{program}.sh"))
        done = run_text(ns.run(f"{program}-save").stdout)
        assert done.stdout == read(f"{program}.save.ok")

    def test_firewall_offline_cmd(self, tmp_path):
        if not shutil.which("firewall-offline-cmd") and os.environ.get("CI") != "true":
            pytest.skip("firewalld is not installed; run: ./quickstart --deps-tests")
        (tmp_path / "zones").mkdir()
        shutil.copy("/etc/firewalld/firewalld.conf", tmp_path)

        def zone(*arguments):
            return subprocess.run(["firewall-offline-cmd", "--system-config", tmp_path, "--zone=public",
                                   *arguments], check=True, capture_output=True, text=True).stdout
        zone("--add-interface=eth7")
        zone("--add-forward-port=port=8080:proto=tcp:toport=80")
        zone("--add-forward-port=port=9000-9010:proto=udp:toport=7000-7010:toaddr=10.0.0.5")
        zone('--add-rich-rule=rule family="ipv4" source address="192.0.2.0/24" '
             'forward-port port="2222" protocol="tcp" to-port="22"')
        done = run(tmp_path / "zones" / "public.xml")
        assert done.stdout.splitlines() == ["redirect tcp 8080 to 80 on eth7",
                                            "redirect udp 9000-9010 to 10.0.0.5:7000-7010 on eth7",
                                            "redirect tcp 2222 to 22 on eth7 from 192.0.2.0/24"]
        listed = run_text(zone("--list-forward-ports"))
        assert listed.stdout.splitlines() == ["redirect tcp 8080 to 80",
                                              "redirect udp 9000-9010 to 10.0.0.5:7000-7010"]


class TestFailures:
    @pytest.mark.parametrize("text, code, word", [
        ("", EXIT_INVALID, "empty"), ("hello\n", EXIT_INVALID, "no format"), ("{]", EXIT_INVALID, "not taken"),
        ('{"a":1}', EXIT_INVALID, "nft -j list ruleset"), ("<zone><forward", EXIT_INVALID, "not XML")])
    def test_not_what_it_should_be(self, text, code, word):
        done = run_text(text)
        assert done.returncode == code and word in done.stderr and not done.stdout

    @pytest.mark.parametrize("text, code, words", [
        ("", EXIT_INVALID, "redirectctl: the standard input is empty"),
        ("*nat\n-A PREROUTING -j X\n\0-A PREROUTING -j Y\n", EXIT_INVALID,
         "redirectctl: the standard input has a NUL byte in line 3"),
        ("*filter\nwhatever\nCOMMIT\n*nat\n-A PREROUT", EXIT_INVALID, "-:5: not taken: COMMIT is missing"),
        ("*nat\nhello world\nCOMMIT\n", EXIT_INVALID, "-:2: not taken: not a line of iptables-save"),
        ("*nat\n:PREROUTING ACCEPT [0:0]\n# x\n\n-N A\nCOMMIT\n", 0,
         "redirectctl: the standard input has no redirection")])
    def test_nothing_is_passed_over(self, text, code, words):
        done = run_text(text)
        assert done.returncode == code and not done.stdout
        assert done.stderr.splitlines()[0].startswith(words)

    def test_nothing_to_do_is_told_once(self):
        assert run_text("*nat\nCOMMIT\n", "-q").stderr == ""
        assert json.loads(run_text("*nat\nCOMMIT\n", "-j").stdout)["complete"]
        assert run_text("whatever\n", "--format", "foo").returncode == EXIT_USAGE
        assert run_text("", "--format", "foo").returncode == EXIT_USAGE

    @pytest.mark.parametrize("change", [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("-A ", "[12:3456] -A ")], ids=["CRLF", "counters"])
    def test_other_spellings_of_iptables(self, change):
        """Written on another system, or by `iptables-save -c`."""
        text = ("*nat\n:PREROUTING ACCEPT [0:0]\n"
                "-A PREROUTING -p tcp -m tcp --dport 1 -j REDIRECT --to-ports 2\nCOMMIT\n")
        for arguments in ((), ("--format", "iptables")):
            done = run_text(change(text), *arguments)
            assert (done.stdout, done.returncode) == ("redirect tcp 1 to 2\n", 0), done.stderr

    def test_no_such_file(self):
        done = run("nosuch")
        assert done.returncode == EXIT_FAILED and "nosuch" in done.stderr

    def test_no_such_format(self):
        done = run("docker.txt", "--format", "rinted")
        assert done.returncode == EXIT_USAGE and 'did you mean "rinetd"' in done.stderr

    def test_names_of_services(self):
        try:
            assert socket.getservbyname("http") == 80
        except OSError:
            pytest.skip("no /etc/services here")
        assert run_text("0.0.0.0 http 10.0.0.5 8000\n").stdout == "redirect tcp 80 to 10.0.0.5:8000 masquerade\n"

    def test_jumps_in_circles_end(self):
        done = run_text("*nat\n:PREROUTING ACCEPT [0:0]\n:A - [0:0]\n-A PREROUTING -j A\n-A A -j A\n"
                        "-A A -p tcp -m tcp --dport 1 -j REDIRECT --to-ports 2\nCOMMIT\n")
        assert done.stdout == "redirect tcp 1 to 2\n"

    @pytest.mark.parametrize("name", FORMATS)
    def test_mutations(self, name, tmp_path):
        """Cut and changed at random (seeded): an answer, never a crash, and what is printed parses."""
        chance = random.Random(name)
        text = read(name)
        for _ in range(60):
            letters = list(text)
            for _ in range(chance.randrange(1, 8)):
                letters[chance.randrange(len(letters))] = chance.choice("0:-/!.,\"<>{}[] \n\\aA9*")
            changed = "".join(letters)[:chance.randrange(1, len(letters))]
            done = run_text(changed, "--format", FORMATS[name])
            assert done.returncode in (0, EXIT_INVALID), f"{changed}\n{done.stderr}"
            (tmp_path / "new.conf").write_text(done.stdout)
            checked = ctl_run("-j", "check", tmp_path / "new.conf")
            assert checked.returncode == 0, checked.stdout
