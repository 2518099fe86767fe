# SPDX-License-Identifier: GPL-2.0-or-later
"""What every end to end test stands on: root, the built programs, bpffs, real peers.

Each class of tests gets namespaces of its own, those about address translation each module. With CI=true a tool that is missing is a failure.
"""

import os
import shutil
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))

from engines import ENGINES  # noqa: E402  pylint: disable=wrong-import-position
from gateway import OFFLOADS, Gateway  # noqa: E402  pylint: disable=wrong-import-position
from netns import Pair  # noqa: E402  pylint: disable=wrong-import-position
from redirectd import BPFFS, REDIRECTCTL, REDIRECTD  # noqa: E402  pylint: disable=wrong-import-position

TOOLS = ("ip", "tc", "nsenter", "curl", "nginx", "socat", "iperf3", "tcpdump", "nft", "ethtool", "ss",
         "bpftool", "systemd-socket-activate", "setpriv", "traceroute", "openssl", "dig", "dnsmasq",
         "redis-cli", "ssh", "ssh-keygen", "dropbear", "dropbearkey")


def pytest_configure(config):
    config.addinivalue_line("markers", "needs(tool): a tool beyond the usual ones")


@pytest.fixture(scope="session", autouse=True)
def environment():
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [t for t in TOOLS if not shutil.which(t)]
    problem = None
    if os.geteuid() != 0:
        problem = "these tests need root"
    elif missing:
        problem = f"missing: {' '.join(missing)}; run: ./quickstart --deps-tests"
    if problem and os.environ.get("CI") != "true":
        pytest.skip(problem)
    assert not problem, problem
    for program in (REDIRECTD, REDIRECTCTL):
        assert os.access(program, os.X_OK), f"{program} is not there; build it, or set REDIRECTD_BUILD"
    mounted = subprocess.run(["stat", "-f", "-c", "%T", BPFFS], capture_output=True, text=True,
                             check=False).stdout.strip() == "bpf_fs"
    if not mounted:
        subprocess.run(["mount", "-t", "bpf", "bpf", BPFFS], check=True)
    yield
    if not mounted:
        subprocess.run(["umount", BPFFS], check=True)


@pytest.fixture(scope="class")
def pair():
    """Client and server with offloads as veth has them: partial checksums, large packets."""
    with Pair() as p:
        yield p


@pytest.fixture(scope="class")
def plain_pair():
    """Client and server without offloads: every packet is as a wire would carry it."""
    with Pair(offloads=False) as p:
        yield p


@pytest.fixture(scope="class", params=[True, False], ids=["offloads", "plain"])
def any_pair(request):
    with Pair(offloads=request.param) as p:
        yield p


@pytest.fixture(scope="module")
def gateway():
    """Client, gateway, backends and the routers between them; offloads as veth has them."""
    with Gateway() as g:
        yield g


@pytest.fixture(scope="module", params=OFFLOADS)
def any_gateway(request):
    with Gateway(request.param) as g:
        yield g


@pytest.fixture(scope="module", params=ENGINES)
def engine(request):
    """What translates: nftables, which shows that the test is right, and redirectd."""
    return ENGINES[request.param]
