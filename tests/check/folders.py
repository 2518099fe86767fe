#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Folders are layers: what a file may include follows from where it stands."""

import re

import tree

# folder: (patterns of quoted includes, patterns of forbidden system includes). Generated headers
# (the skeleton, the embedded interface text) are named without a folder.
RULES = {
    "bpf/": ([r"bpf/", r"[a-z-]+\.bpf\.h", r"shared/abi\.h"],
             r"^(?!linux/|bpf/bpf_|stdbool\.h|stddef\.h|stdint\.h)"),
    "shared/": ([r"shared/"], r"^(bpf/|systemd/)"),
    "ctl/": ([r"ctl/", r"lib/redirectd\.h", r"shared/"], r"^(bpf/|systemd/)"),
    "lib/": ([r"lib/", r"shared/(varlink|cleanup)\.h"], r"^(bpf/|systemd/)"),
    "daemon/": ([r"daemon/", r"shared/", r"[a-z-]+\.(skel|varlink)\.h"], r"^$"),
    "tests/unit/": ([r"tests/", r"shared/", r"daemon/", r"ctl/"], r"^$"),
}
# jansson is for messages between the programs, not for the grammar.
JANSSON = re.compile(r"^shared/(varlink|rule-json)[a-z-]*\.[ch]$")
# The loaded programs, with the skeleton; where they are attached; the ring buffer.
DATAPATH = re.compile(r"^daemon/datapath(-[a-z]+)?\.[ch]$")
LIBBPF = re.compile(r"^daemon/(datapath(-[a-z]+)?\.[ch]|attach\.c|events\.c)$")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+(?:"([^"]+)"|<([^>]+)>)', re.M)


def problems(path, allowed, forbidden):
    for own, system in INCLUDE.findall(tree.read(path)):
        if own and not any(re.match(p, own) for p in allowed):
            yield f'{path}: may not include "{own}"'
        if system and forbidden != r"^$" and re.search(forbidden, system):
            yield f"{path}: may not include <{system}>"
        if system == "jansson.h" and path.startswith("shared/") and not JANSSON.match(path):
            yield f"{path}: may not include <jansson.h>"


def checks():
    for path in tree.sources(".c", ".h"):
        for folder, (allowed, forbidden) in RULES.items():
            if path.startswith(folder):
                yield f"includes of {path}", "\n".join(problems(path, allowed, forbidden))
    for what, pattern, places in (("libbpf", r"#include <bpf/", LIBBPF),
                                  ("the skeleton", r'#include "[^"]*skel\.h"', DATAPATH)):
        users = [f for f in tree.sources(".c", ".h") if f.startswith("daemon/") and re.search(pattern, tree.read(f))]
        yield (f"who uses {what}", "\n".join(f"{f}: may not use {what}" for f in users if not places.match(f)))


tree.report(checks())
