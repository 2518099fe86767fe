# SPDX-License-Identifier: GPL-2.0-or-later
"""Displays of the manual pages (mdoc's .Dl and .Bd -literal), as a reader would copy them."""

import os
import re

from redirectd import TREE

ESCAPES = {r"\(dq": '"', r"\e": "\\", r"\-": "-", r"\&": ""}


def plain(line):
    """A line of mdoc as it is printed."""
    return re.sub(r"\\\(dq|\\e|\\-|\\&", lambda m: ESCAPES[m[0]], line)


def displays(page, section=None):
    """All displays of a page in docs/, or those of one section, in order."""
    with open(os.path.join(TREE, "docs", page), encoding="utf-8") as f:
        lines = f.read().splitlines()
    here, block = None, None
    for line in lines:
        if line.startswith(".Sh "):
            here = line[4:]
        elif line.startswith(".Bd -literal"):
            block = []
        elif line == ".Ed":
            if section in (None, here):
                yield "\n".join(block)
            block = None
        elif block is not None:
            block.append(plain(line))
        elif line.startswith(".Dl ") and section in (None, here):
            yield plain(line[4:])
