#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Every test that docs/CONFORMANCE.md points to exists."""

import re

import tree

REFERENCE = re.compile(r"`((?:[\w/-]+\.(?:py|c|conf)|Test\w+|test_\w+)(?:::\w+)*)`")


def names():
    """Files of tests, their classes and functions: by themselves, and a class with its functions."""
    known, pairs = set(), set()
    for path in tree.files():
        if not path.startswith("tests/"):
            continue
        known |= {path, path.rsplit("/", 1)[-1]}
        if path.startswith("tests/bpf/") and path.endswith(".c"):
            known |= set(re.findall(r"\b(test_\w+)\(", tree.read(path)))
        if not path.startswith("tests/netns/test_"):
            continue
        place = None
        for kind, name in re.findall(r"^ *(class|def) (\w+)", tree.read(path), re.M):
            place = name if kind == "class" else place
            known.add(name)
            pairs.add((place, name))
    return known, pairs


def problem(reference, known, pairs):
    parts = reference.split("::")
    missing = [p for p in parts if p not in known]
    if missing:
        return f"docs/CONFORMANCE.md: {reference}: there is no {missing[0]}"
    pair = tuple(parts[-2:])
    if len(parts) > 1 and pair[0].startswith("Test") and pair not in pairs:
        return f"docs/CONFORMANCE.md: {reference}: {pair[0]} has no {pair[1]}"
    return ""


def checks():
    known, pairs = names()
    for reference in sorted(set(REFERENCE.findall(tree.read("docs/CONFORMANCE.md")))):
        yield f"test {reference}", problem(reference, known, pairs)


tree.report(checks())
