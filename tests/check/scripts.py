#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Shell scripts pass shellcheck, Python compiles, C is formatted as .clang-format says."""

import shutil
import subprocess
import sys

import tree


def shell_scripts():
    for path in tree.files():
        with open(f"{tree.ROOT}/{path}", "rb") as f:
            first = f.readline(64)
        if first.startswith((b"#!/bin/bash", b"#!/bin/sh", b"#!/usr/bin/env bash")):
            yield path


def shell():
    if not shutil.which("shellcheck"):
        tree.skip_all("shellcheck is not installed")
    for path in shell_scripts():
        yield f"shellcheck {path}", tree.run("shellcheck", path)


def python():
    for path in tree.sources(".py"):
        try:
            compile(tree.read(path), path, "exec")
            yield f"python {path}", ""
        except SyntaxError as error:
            yield f"python {path}", str(error)


FORMAT_VERSION = "14"  # releases differ in taste; this is Debian 12's


def formatting():
    if not shutil.which("clang-format"):
        tree.skip_all("clang-format is not installed")
    version = subprocess.run(["clang-format", "--version"], capture_output=True, text=True, check=True)
    if f"version {FORMAT_VERSION}." not in version.stdout:
        tree.skip(f"the tree is formatted with clang-format {FORMAT_VERSION}: {version.stdout.strip()}")
    for path in tree.sources(".c", ".h"):
        yield f"clang-format {path}", tree.run("clang-format", "--dry-run", "-Werror", path)


tree.report({"shell": shell, "python": python, "format": formatting}[sys.argv[1]]())
