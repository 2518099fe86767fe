# SPDX-License-Identifier: GPL-2.0-or-later
"""What every check of the tree shares: which files there are, and TAP, which meson counts.

A check is a generator of (name, problem) pairs; a problem that is empty means ok.
"""

import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def files():
    """Files that git tracks or would; without git, all but build folders and caches."""
    asked = subprocess.run(["git", "-C", ROOT, "-c", f"safe.directory={ROOT}", "ls-files", "--cached",
                            "--others", "--exclude-standard"], capture_output=True, text=True, check=False)
    if asked.returncode == 0:
        return sorted({f for f in asked.stdout.splitlines() if os.path.isfile(os.path.join(ROOT, f))})
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [f for f in folders if not f.startswith(("build", ".git", "__pycache__", ".pytest"))]
        found += [os.path.relpath(os.path.join(folder, n), ROOT) for n in names]
    return sorted(found)


def sources(*ends):
    return [f for f in files() if f.endswith(ends)]


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


def run(*command):
    """What a tool has to say against the tree; empty when it is content."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip() or "failed without a word"


def report(checks):
    """Prints TAP and ends the program."""
    number = 0
    for number, (name, problem) in enumerate(checks, 1):
        print(f"{'not ' if problem else ''}ok {number} - {name}")
        for line in problem.splitlines():
            print(f"# {line}", file=sys.stderr)
    if not number:
        print("not ok 1 - nothing to check: the list of files is empty")
    print(f"1..{max(number, 1)}")


def skip_all(reason):
    """A tool is missing; where everything must run, that is a failure."""
    if os.environ.get("CI") == "true":
        print(f"1..1\nnot ok 1 - {reason}")
        sys.exit(0)
    skip(reason)


def skip(reason):
    """What is checked does not apply here."""
    print(f"1..0 # SKIP {reason}")
    sys.exit(0)
