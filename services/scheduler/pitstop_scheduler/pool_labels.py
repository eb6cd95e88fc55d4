"""Which pool a job's `runs-on` means. Pure.

A pool is a set of hosts with the same labels. Where its hosts say different ones, it has those that all of them have:
a job may come to any of them. A label is also met by a pool of that name, and by a name of another system's runners
that the settings give to the pool (GitHub's `ubuntu-latest` is the default pool's).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from pitstop_common.faults import shown
from pitstop_common.limits import POOL
from pitstop_common.spec import JobSpec
from pitstop_scheduler.host import Host

DEFAULT_POOL: Final = "default"
CONTAINERS: Final = "docker"
"""What hosts say that run a job in a container of the image it names."""
_OF_ALL: Final = frozenset({"linux", "self-hosted"})
"""Labels of a pool whose hosts nobody has heard of yet."""
_SHOWN: Final = 20
Aliases = tuple[tuple[str, str], ...]
"""Patterns of labels (`*` stands for anything), and the pool each means. The first that fits counts."""


class Offer(NamedTuple):
    """A pool, as a job may choose it: the labels of its hosts, how many of them take work, and the jobs that it has or
    that wait for it, for each of its places."""

    pool: str
    labels: frozenset[str]
    hosts: int
    load: float


def labels_of_pools(hosts: Iterable[Host]) -> dict[str, tuple[frozenset[str], int]]:
    """Each pool that a host was ever of: what all its hosts that take work have in common (of all, where none does),
    and how many take work. The default pool is always there."""
    by_pool: dict[str, list[Host]] = {}
    for host in hosts:
        by_pool.setdefault(host.pool, []).append(host)
    found = {DEFAULT_POOL: (_OF_ALL, 0)}
    for pool, all_of_it in sorted(by_pool.items()):
        up = [host for host in all_of_it if host.places > 0]
        labels = [frozenset(host.labels) for host in up or all_of_it]
        found[pool] = (frozenset.intersection(*labels), len(up))
    return found


def wanted(job: JobSpec) -> tuple[tuple[str, ...], ...]:
    """The labels that its pool must have, the best first: what it says it runs on, and containers where it names an
    image. None: the pool that it has will do."""
    if not job.image:
        return (job.runs_on,) if job.runs_on else ()
    if job.runs_on:
        return ((*job.runs_on, CONTAINERS),)
    of_its_pool = (job.pool, CONTAINERS)
    return (of_its_pool, (CONTAINERS,)) if job.pool == DEFAULT_POOL else (of_its_pool,)


def choose(runs_on: Sequence[str], offers: Iterable[Offer], aliases: Aliases) -> str | None:
    """The pool that has every label. Of several: one with a host that takes work before one without; then the one with
    the fewest labels that were not asked for, so that plain jobs leave machines of a special kind alone; then the one
    with the least load; then the first by name. None: no pool has them all."""
    asked = set(runs_on)
    fit = [offer for offer in offers if all(_meets(offer, label, aliases) for label in asked)]
    best = min(fit, default=None, key=lambda one: (one.hosts == 0, len(one.labels - asked), one.load, one.pool))
    return best.pool if best else None


def _meets(offer: Offer, label: str, aliases: Aliases) -> bool:
    if label == CONTAINERS and offer.labels == _OF_ALL:
        return True  # its first host may be one
    return label in offer.labels or label == offer.pool or offer.pool == _alias(label, aliases)


def _alias(label: str, aliases: Aliases) -> str:
    """The pool that the first pattern gives it; empty: none does."""
    return next((pool for pattern, pool in aliases if fnmatchcase(label, pattern)), "")


def refusal(runs_on: Sequence[str], offers: Sequence[Offer], aliases: Aliases) -> str:
    """Why no pool was found, and what there is."""
    unknown = [one for one in runs_on if not any(_meets(offer, one, aliases) for offer in offers)]
    if unknown:
        text = f"no sandbox host has the label{'s' * (len(unknown) > 1)} {', '.join(map(shown, unknown))}"
        known = sorted({*(offer.pool for offer in offers), *(label for offer in offers for label in offer.labels)})
        close = difflib.get_close_matches(unknown[0][:100], known, 1)
        text += f"; did you mean {close[0]}?" if close else ""
    else:
        text = f"no pool has all of {', '.join(map(shown, runs_on))}"
    there = "; ".join(_described(offer) for offer in offers[:_SHOWN])
    more = f"; and {len(offers) - _SHOWN} more" if len(offers) > _SHOWN else ""
    names = ", ".join(f"{pattern} is {pool}" for pattern, pool in aliases)
    return f"{text}. Pools there are: {there}{more}" + (f". And {names}" if names else "")


def _described(offer: Offer) -> str:
    labels = ", ".join(sorted(offer.labels)) or "no label"
    up = f"{offer.hosts} host{'s' * (offer.hosts > 1)} up" if offer.hosts else "no host is up"
    return f"{offer.pool} ({labels}; {up})"


def read_aliases(pairs: Sequence[str]) -> Aliases:
    """From `ubuntu-*=default` and the like. Raises ValueError that names a wrong one."""
    found = []
    for pair in pairs:
        pattern, _, pool = pair.rpartition("=")
        if not pattern or not POOL.match(pool):
            raise ValueError(f"{pair!r} is not LABEL=POOL (a `*` in the label stands for anything)")
        found.append((pattern.lower(), pool))
    return tuple(found)
