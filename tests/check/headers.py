#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Every header compiles alone, by each compiler there is: it includes what it uses.

BPF headers compile for BPF. Usage: headers.py BUILD-FOLDER (for generated headers)
"""

import platform
import shutil
import subprocess
import sys

import tree

USER = ["-fsyntax-only", "-x", "c", "-std=gnu11", "-D_GNU_SOURCE", '-DREDIRECTD_VERSION="check"', "-Wall",
        "-Wextra", "-Werror", "-Wshadow", "-Wno-unused-parameter", "-Wno-unused-function", "-I", "."]
BPF_ARCHITECTURES = {"x86_64": "x86", "aarch64": "arm64", "ppc64le": "powerpc", "riscv64": "riscv",
                     "s390x": "s390"}


def multiarch():
    asked = subprocess.run(["gcc", "-print-multiarch"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or f"{platform.machine()}-linux-gnu"


def flags():
    asked = subprocess.run(["pkg-config", "--cflags", "libbpf", "libsystemd", "jansson"],
                           capture_output=True, text=True, check=True)
    return asked.stdout.split()


def compile_alone(header, *command):
    text = f'#include "{header}"\nextern int nothing_else;\n'
    done = subprocess.run([*command, "-"], input=text, cwd=tree.ROOT, capture_output=True, text=True,
                          check=False)
    return "" if done.returncode == 0 else done.stderr or "failed without a word"


def checks(build):
    libraries = flags()
    compilers = [c for c in ("gcc", "clang") if shutil.which(c)]
    bpf = ["clang", "-target", "bpf", "-fsyntax-only", "-x", "c", "-std=gnu11", "-O2", "-Wall", "-Werror",
           "-Wno-unused-function", f"-D__TARGET_ARCH_{BPF_ARCHITECTURES[platform.machine()]}",
           "-I", ".", f"-I/usr/include/{multiarch()}"]
    for header in tree.sources(".h"):
        if header.startswith(("bpf/", "tests/bpf/bpf", "tests/bench")):
            if header.endswith(".bpf.h"):
                yield f"{header} alone (bpf)", compile_alone(header, *bpf)
            continue
        for compiler in compilers:
            yield (f"{header} alone ({compiler})",
                   compile_alone(header, compiler, *USER, "-I", build, *libraries))


tree.report(checks(sys.argv[1]))
