# SPDX-License-Identifier: GPL-2.0-or-later
"""Several targets: shares by weight, flows that stay, Maglev, and machines that agree.

nftables spreads by `jhash` (for hash) and `numgen random`; Maglev it has not, so those cases run
through redirectd only. Bounds are six standard deviations wide.
"""

import contextlib
import socket

import pytest

from engines import Nftables, Redirectd
from gateway import CLIENT, GATEWAY, Gateway
from netns import family_of, host
from peers import TcpEcho, UdpEcho, receive

FAMILIES = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
TARGETS = {4: [f"10.0.0.{n}" for n in (21, 22, 23, 24)], 6: [f"2001:db8:10::{n}" for n in (21, 22, 23, 24)]}
PORTS = range(30000, 30600)
BATCH = 50  # datagrams on their way at once
EVEN, WEIGHTED = (1, 1, 1, 1), (1, 2, 5, 0)
ENGINES = [(Nftables, "hash"), (Nftables, "random"),
           (Redirectd, "hash"), (Redirectd, "random"), (Redirectd, "maglev")]
STABLE = [(Nftables, "hash"), (Redirectd, "hash"), (Redirectd, "maglev")]


def rule(version, balance, weights, protocol="udp", port=8080):
    """The targets that have a weight; each listens on a port of its own, 91 and so on."""
    targets = ",".join(f"{host(address)}:{91 + number} weight {weight}"
                       for number, (address, weight) in enumerate(zip(TARGETS[version], weights)) if weight)
    return f"{protocol} {host(GATEWAY[version])}:{port} to {targets} balance {balance}"


def pools(balance, weights, *more):
    return [rule(version, balance, weights, *more) for version in (4, 6)]


def name_of(parameter):
    return "-".join((parameter[0].__name__, parameter[1])).lower()


@contextlib.contextmanager
def services(gateway):
    """Four targets on one host; each answers with its number."""
    with contextlib.ExitStack() as stack:
        for version in (4, 6):
            for number, address in enumerate(TARGETS[version]):
                gateway.backend.run("ip", "address", "replace", f"{address}/{24 if version == 4 else 64}",
                                    "dev", "eth0", *(["nodad", "preferred_lft", "0"] * (version == 6)))
                stack.enter_context(UdpEcho(gateway.backend, address, 91 + number, b"%d" % number))
        for number in range(4):
            stack.enter_context(TcpEcho(gateway.backend, 91 + number, b"%d" % number))
        yield gateway


@pytest.fixture(scope="module")
def net(gateway):
    with services(gateway):
        yield gateway


class Datagrams:
    """One UDP socket a source port; `ask` tells which target each of them reaches."""

    def __init__(self, ns, version, ports=PORTS, to=8080):
        self.sockets = {}
        for port in ports:
            s = ns.open_socket(family_of(CLIENT[version]), socket.SOCK_DGRAM)
            s.bind((CLIENT[version], port))
            s.connect((GATEWAY[version], to))
            self.sockets[port] = s

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for s in self.sockets.values():
            s.close()

    def ask(self):
        answers, ports = {}, list(self.sockets)
        for at in range(0, len(ports), BATCH):
            for port in ports[at:at + BATCH]:
                self.sockets[port].send(b"?")
            for port in ports[at:at + BATCH]:
                answer = self.sockets[port].recv(100)
                assert answer[1:] == b"?"
                answers[port] = int(answer[:1])
        return answers


def choices(net, version, to=8080):
    """Which target each source port gets; new flows, if the engine is new."""
    with Datagrams(net.client, version, to=to) as datagrams:
        return datagrams.ask()


def assert_shares(answers, weights):
    total = sum(weights)
    for number, weight in enumerate(weights):
        share = weight / total
        count = sum(1 for a in answers if a == number)
        slack = 6 * (len(answers) * share * (1 - share)) ** 0.5
        assert abs(count - len(answers) * share) <= slack, f"target {number}: {count} of {len(answers)}"


class TestShares:
    @pytest.fixture(scope="class", params=ENGINES, ids=name_of)
    def pool(self, request, net):
        engine, balance = request.param
        with engine(net.gateway, *pools(balance, EVEN), *pools(balance, WEIGHTED, "udp", 8081),
                    *pools(balance, WEIGHTED, "tcp", 8082)):
            yield net

    @FAMILIES
    def test_even(self, pool, version):
        assert_shares(list(choices(pool, version).values()), EVEN)

    @FAMILIES
    def test_weighted(self, pool, version):
        assert_shares(list(choices(pool, version, to=8081).values()), WEIGHTED)

    @FAMILIES
    def test_tcp(self, pool, version):
        answers = []
        for port in range(31000, 31160):
            with pool.client.connect(GATEWAY[version], 8082, sport=port) as s:
                answers.append(int(receive(s, 1)))
        assert_shares(answers, WEIGHTED)


class TestRandom:
    @pytest.mark.parametrize("engine", [Nftables, Redirectd])
    def test_is_not_hash(self, net, engine):
        """The same flows, begun anew, end up elsewhere."""
        seen = []
        for _ in range(2):
            with engine(net.gateway, rule(4, "random", EVEN)):
                seen.append(choices(net, 4))
        assert seen[0] != seen[1]


class TestFlowsStay:
    @pytest.fixture(scope="class", params=ENGINES, ids=name_of)
    def pool(self, request, net):
        net.engine, net.balance = request.param
        with net.engine(net.gateway, *pools(net.balance, EVEN)) as net.translating:
            yield net

    def change(self, pool, weights, protocol):
        pool.translating.replace(*pools(pool.balance, weights, protocol))

    @FAMILIES
    def test_connections_outlive_their_target(self, pool, version):
        """Targets leave the rule: their connections go on, new ones go to the others."""
        self.change(pool, EVEN, "tcp")
        with contextlib.ExitStack() as stack:
            old = [stack.enter_context(pool.client.connect(GATEWAY[version], 8080)) for _ in range(24)]
            first = [receive(s, 1) for s in old]
            self.change(pool, (1, 0, 1, 0), "tcp")
            new = [stack.enter_context(pool.client.connect(GATEWAY[version], 8080)) for _ in range(24)]
            assert {receive(s, 1) for s in new} <= {b"0", b"2"}
            for s in old + new:
                s.sendall(b"still there?")
                assert receive(s, 12) == b"still there?"
            assert set(first) - {b"0", b"2"}, "no connection to a target that left: proves nothing"

    @FAMILIES
    def test_datagrams_stay_with_targets_that_stay(self, pool, version):
        self.change(pool, (1, 1, 1, 0), "udp")
        with Datagrams(pool.client, version, PORTS[:120]) as datagrams:
            before = datagrams.ask()
            self.change(pool, (1, 1, 0, 1), "udp")
            after = datagrams.ask()
            self.change(pool, EVEN, "udp")
            again = datagrams.ask()
        assert all(after[port] == target for port, target in before.items() if target != 2)
        if pool.engine is Nftables:  # nf_conntrack never asks the rules again
            assert after == before
        else:  # a flow of UDP follows the rule when its target has left
            assert set(after.values()) <= {0, 1, 3}
        assert again == after


class TestAgreement:
    @pytest.mark.parametrize("parameter", STABLE, ids=name_of)
    def test_two_machines(self, net, parameter):
        """Two gateways of the same addresses and rules: the same flow goes to the same target."""
        engine, balance = parameter
        rules = pools(balance, (1, 2, 3, 1))
        with Gateway() as twin, services(twin), engine(net.gateway, *rules), engine(twin.gateway, *rules):
            for version in (4, 6):
                assert choices(net, version) == choices(twin, version)


class TestMaglev:
    @pytest.fixture(scope="class")
    def seen(self, net):
        """What the flows get of four targets, of three, and of four again."""
        seen = []
        for weights in (EVEN, (1, 1, 0, 1), EVEN):
            with Redirectd(net.gateway, *pools("maglev", weights)):
                seen.append({version: choices(net, version) for version in (4, 6)})
        return seen

    @FAMILIES
    def test_one_of_four_leaves(self, seen, version):
        """Its flows are spread over the others; of the others' flows few move."""
        whole, without, again = (s[version] for s in seen)
        moved = [port for port in whole if whole[port] != 2 and without[port] != whole[port]]
        assert len(moved) <= len(whole) * 0.1
        assert_shares(list(without.values()), (1, 1, 0, 1))
        assert {without[port] for port in whole if whole[port] == 2} == {0, 1, 3}
        assert again == whole
