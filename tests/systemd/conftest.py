# SPDX-License-Identifier: GPL-2.0-or-later
"""A booted Debian 13 in which the tree was built, unit-tested and installed."""

import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))

import container  # noqa: E402  pylint: disable=wrong-import-position

TREE = os.path.dirname(os.path.dirname(HERE))


@pytest.fixture(scope="session")
def system():
    """The container, not booted yet. Where it cannot be had the tests are skipped, in CI they fail."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    try:
        if os.geteuid() != 0:
            raise container.Unavailable("root is needed")
        root = container.base_system(container.build_packages(TREE))
        with container.Container(root, TREE) as made:
            yield made
    except container.Unavailable as problem:
        if os.environ.get("CI") == "true":
            pytest.fail(str(problem))
        pytest.skip(str(problem))


@pytest.fixture(scope="session")
def installed(system):
    """Built from the checkout and installed, with this Debian's own compiler and libraries."""
    code, said = system.chroot(
        "meson setup /root/build /source --prefix=/usr --sysconfdir=/etc -Dwarning_level=3 -Dwerror=true\n"
        "ninja -C /root/build\n"
        "meson install -C /root/build --no-rebuild --destdir /root/image\n"
        "cp -a /root/image/. /\n"
        "systemd-sysusers redirectd.conf\n")
    assert code == 0, said[-6000:]
    return system


@pytest.fixture(scope="session")
def booted(installed):
    return installed.boot()
