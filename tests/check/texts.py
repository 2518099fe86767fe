#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Every file bears its licence, ends with a newline, and names no place of one machine only."""

import os
import re

import tree

# Cannot bear a comment, or are the licence itself, or are compared byte by byte.
BARE = re.compile(r"^(LICENSE|\.gitignore|\.editorconfig|\.clang-format|.*\.md|.*\.txt"
                  r"|tests/config/.*|tests/import/.*|tests/fuzz/corpus/.*|meson_options\.txt)$")
SPDX = "SPDX-License-Identifier: GPL-2.0-or-later"
BINARY = (".png", ".gz", ".bin", ".pcap")


def machine_places():
    """Where this checkout and this user live; a text that names them works here only."""
    home = os.path.expanduser("~")
    places = [tree.ROOT, os.path.realpath(tree.ROOT)]
    if home not in ("/", "/root"):
        places.append(home)
    return sorted(set(places))


def missing_licence(path, text):
    head = "\n".join(text.split("\n", 12)[:12])
    return "" if BARE.match(path) or SPDX in head else f"{path}: no line {SPDX} near the top"


def stray_places(path, text):
    return "\n".join(f"{path}: names {place}" for place in machine_places()
                     if re.search(re.escape(place) + r"(?![\w-])", text))


def bad_ends(path, text):
    if path.startswith(("tests/config/", "tests/import/")) or path == "LICENSE":
        return ""
    if text and not text.endswith("\n"):
        return f"{path}: no newline at the end"
    return "\n".join(f"{path}:{n}: blanks at the end of the line"
                     for n, line in enumerate(text.split("\n"), 1) if line.endswith((" ", "\t")))


def checks():
    for path in tree.files():
        if path.endswith(BINARY) or path.startswith(("tests/config/", "tests/import/")):
            continue
        text = tree.read(path)
        found = [p for p in (missing_licence(path, text), stray_places(path, text), bad_ends(path, text)) if p]
        yield f"text of {path}", "\n".join(found)


tree.report(checks())
