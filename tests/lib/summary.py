#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Adds up what meson and pytest ran, names what failed, and closes with one line.

Usage: summary.py [LABEL=]FILE...   FILE: meson's testlog.json or a JUnit XML of pytest
       summary.py --event LABEL passed|failed|skipped WHY   prints a one-case file for the above

A cmocka program counts as its single tests, a TAP script as its points. A program that found no
test, crashed, or failed outside of its tests counts as one failure more.
"""

import collections
import json
import re
import sys
import xml.etree.ElementTree as ElementTree

# cmocka's closing lines; from 1.1.6 on the group's name stands in front of the number.
CMOCKA_PASSED = re.compile(r"^\[\s*PASSED\s*\] (?:.*: )?(\d+) test\(s\)\.", re.M)
CMOCKA_LIST = re.compile(r"^\[\s*(FAILED|SKIPPED)\s*\] (?:.*: )?\d+ test\(s\), listed below:\n"
                         r"((?:\[\s*(?:FAILED|SKIPPED)\s*\] .*\n)+)", re.M)
TAP = re.compile(r"^(not )?ok \d+(?: - ([^#\n]*))?(# SKIP.*)?", re.M | re.I)

Case = collections.namedtuple("Case", "name result text")


def cmocka_cases(*streams):
    """Single tests of a program; those that passed have no name in the closing lines."""
    cases = []
    for output in streams:
        cases += [Case("", "passed", "")] * sum(int(n) for n in CMOCKA_PASSED.findall(output))
        for word, names in CMOCKA_LIST.findall(output):
            cases += [Case(line.split("] ", 1)[1], word.lower(), "") for line in names.splitlines()]
    return cases


def tap_cases(output):
    return [Case((name or "").strip(), "failed" if bad else "skipped" if skip else "passed", "")
            for bad, name, skip in TAP.findall(output)]


def meson_cases(path):
    with open(path, encoding="utf-8") as f:
        for line in f:
            test = json.loads(line)
            name, result = test["name"], test["result"]
            streams = [test.get(s, "") for s in ("stdout", "stderr")]
            output = "\n".join(streams)
            cases = cmocka_cases(*streams) or tap_cases(streams[0])
            yield from (c._replace(name=f"{name}: {c.name}", text=output) for c in cases)
            good = result in ("OK", "EXPECTEDFAIL")
            if good and not cases:
                yield Case(name, "passed", output)
            elif result == "SKIP" and not cases:
                yield Case(name, "skipped", output)
            elif not good and result != "SKIP" and not any(c.result == "failed" for c in cases):
                yield Case(f"{name} ({result.lower()})", "failed", output)


def junit_cases(path):
    for case in ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname', '')}::{case.get('name')}".removeprefix("::")
        bad = [c for c in case if c.tag in ("failure", "error")]
        skipped = case.find("skipped")
        if bad:
            yield Case(name, "failed", "\n".join(c.text or c.get("message", "") for c in bad))
        elif skipped is not None:
            yield Case(name, "skipped", skipped.get("message", ""))
        else:
            yield Case(name, "passed", "")


def cases_of(path):
    try:
        return list((junit_cases if path.endswith(".xml") else meson_cases)(path))
    except (OSError, ValueError, KeyError, ElementTree.ParseError) as error:
        return [Case(f"no results in {path}: {error}", "failed", "")]


def event(label, result, why):
    case = ElementTree.Element("testcase", name=label)
    if result != "passed":
        child = ElementTree.SubElement(case, "failure" if result == "failed" else "skipped", message=why)
        child.text = why
    suite = ElementTree.Element("testsuite")
    suite.append(case)
    print(ElementTree.tostring(suite, encoding="unicode"))


def main(arguments):
    if arguments[:1] == ["--event"]:
        event(*arguments[1:])
        return 0
    total = collections.Counter()
    failed, skipped = [], []
    print(f"\n{'suite':<24}{'passed':>8}{'failed':>8}{'skipped':>8}")
    for argument in arguments:
        label, _, path = argument.rpartition("=")
        cases = cases_of(path)
        count = collections.Counter(c.result for c in cases)
        if not cases:
            cases, count = [Case("ran no test at all", "failed", "")], collections.Counter(failed=1)
        print(f"{label:<24}{count['passed']:>8}{count['failed']:>8}{count['skipped']:>8}")
        total += count
        failed += [(label, c) for c in cases if c.result == "failed"]
        skipped += [(label, c) for c in cases if c.result == "skipped"]
    for label, case in skipped:
        print(f"skipped: {label}: {case.name}: {case.text.strip().splitlines()[0] if case.text.strip() else ''}")
    for label, case in failed:
        print(f"FAILED: {label}: {case.name}")
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return 1 if total["failed"] or not total["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
