"""The network of a job's container: a cable of its own to this machine, from where the kernel lets it out, and nowhere
else. What is closed, and the rules for iptables that close it. Pure.

No bridge: two jobs have no segment in common on which one could pose as another, and the engine has nothing to make.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

import msgspec

SUBNETS: Final = "10.222.0.0/16"
PAIR: Final = 31
"""The prefix of a job's own network: one address of the host, one of the container (RFC 3021)."""
NEVER: Final = tuple(map(IPv4Network, (
    "0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4",
    "169.254.0.0/16",  # link-local: the metadata of most clouds
    "168.63.129.16/32",  # the same, of Azure
)))  # fmt: skip
"""Closed whatever the settings say, as are this machine itself, the other jobs, NATS and the relays."""
PRIVATE: Final = tuple(map(IPv4Network, (
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "192.0.0.0/24", "198.18.0.0/15",
)))  # fmt: skip
"""Closed where the settings do not open them: what is there mostly trusts whoever reaches it."""
_OURS: Final = re.compile(r"-[io] pst[0-9a-f]{5}\+")
DROPPED: Final = "icmp-admin-prohibited"


class Outward(msgspec.Struct, frozen=True, kw_only=True):
    """A host's network for jobs. `closed` and `open` are beside NEVER and PRIVATE; `open` is weaker than what is
    closed by name. `endpoints`: names or addresses of NATS and relays. `resolvers`: for names; they are reached on
    port 53, wherever they are."""

    root: Path
    subnets: IPv4Network = IPv4Network(SUBNETS)
    closed: tuple[IPv4Network, ...] = ()
    open: tuple[IPv4Network, ...] = ()
    endpoints: tuple[str, ...] = ()
    resolvers: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        """Begins the names of all that this host makes in the kernel: 8 of the 15 letters of an interface."""
        return f"pst{hashlib.sha256(str(self.root).encode()).hexdigest()[:5]}"


class Pair(msgspec.Struct, frozen=True):
    """The two ends of a job's cable."""

    network: IPv4Network

    @property
    def host(self) -> IPv4Address:
        """This machine's end."""
        return self.network[0]

    @property
    def inside(self) -> IPv4Address:
        """The container's."""
        return self.network[1]

    def name(self, tag: str) -> str:
        """Of the interface on this machine."""
        return f"{tag}-{int(self.network[0]) & 0xFFFFFF:06x}"


def free_pairs(subnets: IPv4Network, taken: Collection[IPv4Network], chance: random.Random) -> Iterator[Pair]:
    """Those that overlap no network this machine has a route to, in an order of chance: several hosts share a range."""
    count = 2 ** (PAIR - subnets.prefixlen)
    step = chance.randrange(1, count, 2) if count > 1 else 1  # odd, so that it comes by each once
    at = chance.randrange(count)
    for _ in range(count):
        network = IPv4Network((int(subnets.network_address) + 2 * at, PAIR))
        if not any(network.overlaps(each) for each in taken):
            yield Pair(network)
        at = (at + step) % count


def routes(text: str) -> list[IPv4Network]:
    """Of /proc/net/route: the networks there is a way to, but for the default one."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        destination, mask = (int.from_bytes(bytes.fromhex(fields[at])[::-1], "big") for at in (1, 7))
        if mask:
            found.append(IPv4Network((destination, mask.bit_count())))
    return found


def outward_interface(text: str) -> str:
    """Of /proc/net/route: the interface of the default route; empty without one."""
    lines = [line.split() for line in text.splitlines()[1:]]
    return next((fields[0] for fields in lines if fields[1] == fields[7] == "00000000"), "")


def nameservers(text: str) -> list[str]:
    """Of a resolv.conf: those that a container can ask: IPv4, and not this machine's loopback."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) > 1 and fields[0] == "nameserver":
            try:
                address = IPv4Address(fields[1])
            except ValueError:
                continue
            if not address.is_loopback and not address.is_unspecified:
                found.append(str(address))
    return found


def rules(outward: Outward, endpoints: Iterable[str], saved: str) -> str:
    """For `iptables-restore --noflush`, which takes each table as one change: ours anew, and none of another's touched.
    `endpoints`: addresses. `saved`: what iptables-save says now."""
    tag = outward.tag
    old, cable = _jumps(saved, tag), f"{tag}+"
    no, out, back = f"{tag}-no", f"{tag}-out", f"{tag}-back"
    entries = [f"FORWARD 1 -o {cable} -j {back}", f"FORWARD 1 -i {cable} -j {out}", f"INPUT 1 -i {cable} -j {no}"]
    if ":DOCKER-USER " in saved:  # which the engine keeps above all others
        entries += [f"DOCKER-USER 1 -o {cable} -j {back}", f"DOCKER-USER 1 -i {cable} -j {out}"]
    lines = [
        *_table("raw", [], old, [f"PREROUTING 1 -i {cable} -m rpfilter --invert -j DROP"], []),
        *_table("nat", [], old, [f"PREROUTING 1 -i {cable} -j ACCEPT",  # past ports that other containers publish
                                 f"POSTROUTING 1 -s {outward.subnets} ! -o {cable} -j MASQUERADE"], []),
        *_table("filter", [no, out, back], old, entries, [
            f"{no} -p tcp -j REJECT --reject-with tcp-reset",
            f"{no} -j REJECT --reject-with {DROPPED}",
            f"{back} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            f"{back} -j DROP",
            *(f"{out} {each}" for each in _outwards(outward, sorted(set(endpoints)), no)),
        ]),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _outwards(outward: Outward, endpoints: Sequence[str], no: str) -> Iterator[str]:
    yield "-m conntrack --ctstate ESTABLISHED -j ACCEPT"
    for server in outward.resolvers:
        yield from (f"-d {server}/32 -p {kind} --dport 53 -j ACCEPT" for kind in ("udp", "tcp"))
    closed = (*NEVER, outward.subnets, *endpoints, *outward.closed)
    yield from (f"-d {each} -j {no}" for each in closed)
    yield from (f"-d {each} -m conntrack --ctstate NEW,RELATED -j ACCEPT" for each in outward.open)
    yield from (f"-d {each} -j {no}" for each in PRIVATE)
    yield "-m conntrack --ctstate NEW,RELATED -j ACCEPT"
    yield "-j DROP"


def rules6(outward: Outward, saved: str) -> str:
    """The same for ip6tables: nothing at all."""
    cable = f"{outward.tag}+"
    entries = [f"INPUT 1 -i {cable} -j DROP", f"FORWARD 1 -i {cable} -j DROP", f"FORWARD 1 -o {cable} -j DROP"]
    return "\n".join(_table("filter", [], _jumps(saved, outward.tag), entries, [])) + "\n"


def removal(tag: str, saved: str) -> str:
    """Takes away all of ours, for `iptables-restore --noflush` or ip6tables-restore. Empty: there is nothing."""
    lines = []
    for name, own in _tables(saved).items():
        jumps = [f"-D {line[3:]}" for line in own if line.startswith("-A") and not line.startswith(f"-A {tag}-")]
        chains = [line[1:].split()[0] for line in own if line.startswith(f":{tag}-")]
        if mine := [line for line in jumps if tag in line]:
            lines += [f"*{name}", *(f":{chain} - [0:0]" for chain in chains), *mine]
            lines += [*(f"-X {chain}" for chain in chains), "COMMIT"]
    return "\n".join([*lines, ""]) if lines else ""


def standing(tag: str, saved: str) -> tuple[str, ...]:
    """Our own lines of what iptables-save says: the same as long as nobody touches them."""
    return tuple(f"{name} {line}" for name, own in _tables(saved).items() for line in own if tag in line)


def first_in_line(tag: str, saved: str) -> bool:
    """Is nothing of anybody else's asked before ours? (The engine's DOCKER-USER is, and has ours first.)"""
    filters = [line for line in _tables(saved).get("filter", []) if line.startswith("-A")]
    return all(_first(tag, chain, filters) for chain in ("INPUT", "FORWARD")) and (
        ":DOCKER-USER " not in saved or _first(tag, "DOCKER-USER", filters)
    )


def _first(tag: str, chain: str, lines: Sequence[str]) -> bool:
    for line in lines:
        if line.startswith(f"-A {chain} ") and line != f"-A {chain} -j DOCKER-USER":
            if f"-i {tag}+" in line:
                return True
            if not _OURS.search(line):
                return False
    return False


def _table(name: str, chains: Sequence[str], old: dict[str, list[str]], entries: Sequence[str],
           lines: Sequence[str]) -> list[str]:  # fmt: skip
    return [f"*{name}", *(f":{chain} - [0:0]" for chain in chains), *(f"-D {each}" for each in old.get(name, [])),
            *(f"-I {each}" for each in entries), *(f"-A {each}" for each in lines), "COMMIT"]  # fmt: skip


def _jumps(saved: str, tag: str) -> dict[str, list[str]]:
    """Our rules in chains of others, by table."""
    return {
        name: [line[3:] for line in own if line.startswith("-A ") and tag in line and not line.startswith(f"-A {tag}-")]
        for name, own in _tables(saved).items()
    }


def _tables(saved: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in saved.splitlines():
        if line.startswith("*"):
            lines = found.setdefault(line[1:], [])
        else:
            lines.append(line)
    return found
