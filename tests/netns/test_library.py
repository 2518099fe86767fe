# SPDX-License-Identifier: GPL-2.0-or-later
"""libredirectd as others use it: installed, found by pkg-config, the example compiled and run."""

import os
import shutil
import subprocess

import pytest

from netns import Pair
from peers import TcpEcho, tcp_ask
from redirectd import BUILD, EXIT_DENIED, EXIT_NO_DAEMON, NOBODY, TREE, Daemon


@pytest.fixture(name="prefix", scope="module")
def prefix_(tmp_path_factory):
    """Everything installed below a folder of its own; returns the environment that finds it."""
    if not os.path.exists(os.path.join(BUILD, "meson-private")):
        pytest.skip(f"{BUILD} is no build folder of meson")
    root = tmp_path_factory.mktemp("root")
    root.chmod(0o755)
    done = subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild"], capture_output=True, text=True,
                          check=False, env={**os.environ, "DESTDIR": str(root)})
    assert done.returncode == 0, done.stdout + done.stderr
    found, = root.rglob("libredirectd.pc")
    library, = root.rglob("libredirectd.so")
    yield {**os.environ, "PKG_CONFIG_PATH": str(found.parent), "PKG_CONFIG_SYSROOT_DIR": str(root),
           "LD_LIBRARY_PATH": str(library.parent)}
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(name="example", scope="module", params=["gcc", "clang"])
def example_(prefix, request, tmp_path_factory):
    """The installed example, compiled with what pkg-config says and nothing else."""
    source, = (os.path.join(folder, "example.c") for folder, _, names
               in os.walk(prefix["PKG_CONFIG_SYSROOT_DIR"]) if "example.c" in names)
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "libredirectd"], env=prefix, check=True,
                           capture_output=True, text=True).stdout.split()
    folder = tmp_path_factory.mktemp("example")
    folder.chmod(0o755)
    program = folder / "example"
    subprocess.run([request.param, "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-o", program, source,
                    *flags], check=True)
    return program


def run(program, prefix, socket, **more):
    return subprocess.run([program], capture_output=True, text=True, check=False, timeout=60,
                          env={**prefix, "REDIRECTD_SOCKET": str(socket)}, **more)


class TestExample:
    def test_rules_flows_and_an_error(self, pair, example, prefix):
        with Daemon(pair.server, "tcp 8080 to 80 name web", "udp 53 to 5353") as daemon, \
                TcpEcho(pair.server, 80):
            for _ in range(3):
                tcp_ask(pair.client, Pair.SERVER4, 8080)
            done = run(example, prefix, daemon.socket)
            assert done.returncode == 0, done.stderr
            assert done.stdout.splitlines() == [
                "tcp 8080 to 80 name web: 3 flows", "udp 53 to 5353: 0 flows",
                'io.redirectd.InvalidRule: "to" is missing in front of "too", column 7']

    def test_no_daemon(self, example, prefix, tmp_path):
        done = run(example, prefix, tmp_path / "nobody")
        assert done.returncode == EXIT_NO_DAEMON
        assert f"no daemon at {tmp_path}/nobody" in done.stderr

    def test_no_permission(self, pair, example, prefix):
        with Daemon(pair.server, "tcp 8080 to 80") as daemon:
            os.chmod(daemon.socket, 0o600)
            # Where others may read, which pytest's folders do not let them.
            program = shutil.copy(example, daemon.folder)
            shutil.copytree(prefix["LD_LIBRARY_PATH"], os.path.join(daemon.folder, "lib"))
            prefix = {**prefix, "LD_LIBRARY_PATH": os.path.join(daemon.folder, "lib")}
            done = run(program, prefix, daemon.socket, user=NOBODY, group=NOBODY, extra_groups=[])
            assert done.returncode == EXIT_DENIED and "permission" in done.stderr


class TestHeader:
    @pytest.mark.parametrize("compiler, language", [("gcc", "c11"), ("clang", "c11"), ("g++", "c++17")])
    def test_alone(self, prefix, compiler, language):
        """In strict C and in C++, with nothing in front of it."""
        if not shutil.which(compiler):
            pytest.skip(f"{compiler} is not installed")
        flags = subprocess.run(["pkg-config", "--cflags", "libredirectd"], env=prefix, check=True,
                               capture_output=True, text=True).stdout.split()
        kind = "c++" if "++" in language else "c"
        subprocess.run([compiler, "-x", kind, f"-std={language}", "-fsyntax-only", "-Wall", "-Wextra",
                        "-Werror", "-pedantic", *flags, "-"], input="#include <redirectd.h>\n", text=True,
                       check=True)

    def test_only_what_is_declared_is_exported(self, prefix):
        folder = prefix["LD_LIBRARY_PATH"]
        shown = subprocess.run(["nm", "-D", "--defined-only", os.path.join(folder, "libredirectd.so")],
                               capture_output=True, text=True, check=True).stdout
        exported = {line.split()[-1] for line in shown.splitlines()}
        with open(os.path.join(TREE, "lib", "redirectd.h"), encoding="utf-8") as f:
            header = f.read()
        assert exported and all(f"{name}(" in header for name in exported)
        assert {"redirectd_open", "redirectd_call", "redirectd_stream", "redirectd_close"} <= exported
