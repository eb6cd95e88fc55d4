"""The rules about the network of jobs: what is taken from a range, what iptables is told, and what is seen of it."""

from __future__ import annotations

import random
from ipaddress import IPv4Network
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop_common.errors import ConfigError
from pitstop_sandbox.backends.choosing import outward
from pitstop_sandbox.backends.docker import network
from pitstop_sandbox.backends.docker.network import NEVER, PRIVATE, Outward
from pitstop_sandbox.config import SandboxConfig

ROUTES = """Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
pst-1\t04DEDE0A\t00000000\t0001\t0\t0\t0\tFEFFFFFF\t0\t0\t0
"""
OURS = Outward(root=Path("/a"), endpoints=("nats",), resolvers=("10.0.0.2",), open=(IPv4Network("10.1.0.0/16"),))
TAG = OURS.tag
EMPTY = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [1:60]\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\nCOMMIT\n"

networks = st.builds(
    lambda start, size: IPv4Network((start >> (32 - size) << (32 - size), size)),
    st.integers(0x0ADE0000, 0x0ADEFFFF), st.integers(18, 32),
)  # fmt: skip


@given(st.lists(networks, max_size=8), st.integers(16, 30), st.integers())
def test_pairs_are_of_the_range_each_once_and_overlap_nothing(taken: list[IPv4Network], size: int, seed: int) -> None:
    subnets = IPv4Network((0x0ADE0000, size))
    found = [each.network for each in islice(network.free_pairs(subnets, taken, random.Random(seed)), 300)]
    assert len(set(found)) == len(found)
    assert all(each.prefixlen == 31 and each.subnet_of(subnets) for each in found)
    assert not any(each.overlaps(other) for each in found for other in taken)
    free = sum(not any(each.overlaps(other) for other in taken) for each in islice(subnets.subnets(new_prefix=31), 600))
    assert size < 22 or len(found) == min(free, 300), "none that is free is missed"


def test_what_there_is_a_way_to_is_read() -> None:
    assert network.routes(ROUTES) == [IPv4Network("192.0.2.0/24"), IPv4Network("10.222.222.4/31")]
    assert network.outward_interface(ROUTES) == "eth0"
    assert network.outward_interface(ROUTES.splitlines()[0]) == ""


def test_only_servers_that_a_container_can_ask_are_name_servers() -> None:
    text = "# x\nsearch a\nnameserver 127.0.0.53\nnameserver fe80::1\nnameserver 10.0.0.2 \nnameserver\nnameserver x\n"
    assert network.nameservers(text) == ["10.0.0.2"]


def applied(saved: str, changes: str) -> str:
    """What `iptables-restore --noflush` makes of it: the parts of it that we use."""
    chains: dict[str, dict[str, list[str]]] = {}
    name = ""
    for line in [*saved.splitlines(), *changes.splitlines()]:
        kind, _, rest = line.partition(" ")
        if line.startswith("*"):
            name = line[1:]
            chains.setdefault(name, {})
        elif line.startswith(":"):
            chains[name][kind[1:]] = []
        elif kind == "-X":
            assert not chains[name].pop(rest), "it is not empty"
            assert not any(f"-j {rest}" in each for rules in chains[name].values() for each in rules), "it is in use"
        elif kind == "-A":
            chains[name].setdefault(rest.split()[0], []).append(rest.split(" ", 1)[1])
        elif kind == "-I":
            chain, _, rule = rest.split(" ", 2)
            chains[name].setdefault(chain, []).insert(0, rule)
        elif kind == "-D":
            chain, rule = rest.split(" ", 1)
            chains[name][chain].remove(rule)
    lines = []
    for name, own in chains.items():
        lines += [f"*{name}", *(f":{chain} - [0:0]" for chain in own)]
        lines += [*(f"-A {chain} {rule}" for chain, rules in own.items() for rule in rules), "COMMIT"]
    return "\n".join(lines) + "\n"


def test_rules_made_twice_are_there_once_and_go_without_a_trace() -> None:
    once = applied(EMPTY, network.rules(OURS, ["203.0.113.9"], EMPTY))
    other = network.rules(Outward(root=Path("/b")), [], once)
    both = applied(once, other)
    assert applied(once, network.rules(OURS, ["203.0.113.9"], once)) == once
    assert network.first_in_line(TAG, once) and network.first_in_line(TAG, both), "another host's do no harm"
    assert network.standing(TAG, both) == network.standing(TAG, once) != ()
    for saved in (once, both):
        left = applied(saved, network.removal(TAG, saved))
        assert TAG not in left
        assert network.removal(TAG, left) == ""
    assert network.standing(TAG, applied(EMPTY, network.removal(TAG, EMPTY))) == ()
    v6 = applied("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\nCOMMIT\n", network.rules6(OURS, ""))
    assert applied(v6, network.rules6(OURS, v6)) == v6
    assert TAG not in applied(v6, network.removal(TAG, v6))


@pytest.mark.parametrize("chain", ["INPUT", "FORWARD", "DOCKER-USER"])
def test_somebody_elses_rule_before_ours_is_seen(chain: str) -> None:
    saved = applied(EMPTY, network.rules(OURS, [], EMPTY))
    assert not network.first_in_line(TAG, applied(saved, f"*filter\n-I {chain} 1 -s 10.0.0.0/8 -j ACCEPT\nCOMMIT\n"))
    assert network.first_in_line(TAG, applied(saved, f"*filter\n-A {chain} -s 10.0.0.0/8 -j ACCEPT\nCOMMIT\n"))
    assert not network.first_in_line(TAG, EMPTY)


def test_what_is_never_reached_stands_before_what_the_settings_open() -> None:
    own = [
        line for line in network.rules(OURS, ["203.0.113.9"], EMPTY).splitlines() if line.startswith(f"-A {TAG}-out")
    ]
    at = {line.split(" -d ")[1].split(" ")[0]: number for number, line in enumerate(own) if " -d " in line}
    assert max(at[str(each)] for each in (*NEVER, OURS.subnets)) < at["203.0.113.9"] < at["10.1.0.0/16"]
    assert at["10.1.0.0/16"] < min(at[str(each)] for each in PRIVATE)
    assert at["10.0.0.2/32"] < at["0.0.0.0/8"] and all("--dport 53" in line for line in own if "10.0.0.2/32" in line)


def config(**more: object) -> SandboxConfig:
    return SandboxConfig(**{"nats_url": "-", **more})  # type: ignore[arg-type]


def test_nats_and_the_relays_are_closed() -> None:
    made = outward(config(nats_url="nats://u:p@nats.internal:4222,tls://10.9.9.9:4222", ssh_public="ci.example.com:22",
                          sandbox_deny=("203.0.113.0/24",), sandbox_dns=("9.9.9.9",)))  # fmt: skip
    assert made.endpoints == ("10.9.9.9", "ci.example.com", "nats.internal")
    assert (made.closed, made.resolvers) == ((IPv4Network("203.0.113.0/24"),), ("9.9.9.9",))


def test_wrong_settings_are_all_named() -> None:
    with pytest.raises(ConfigError) as refused:
        config(docker_subnets="10.222.0.0/31", sandbox_network="bridge", sandbox_deny=("10.0.0.1/8",),
               sandbox_allow=("fd00::/8",), sandbox_dns=("dns",), sandbox_memory_mib=1, sandbox_cpus=0)  # fmt: skip
    for name in ("DOCKER_SUBNETS", "SANDBOX_NETWORK", "SANDBOX_DENY", "SANDBOX_ALLOW", "SANDBOX_DNS",
                 "SANDBOX_MEMORY_MIB", "SANDBOX_CPUS"):  # fmt: skip
        assert f"PITSTOP_{name}" in str(refused.value)
