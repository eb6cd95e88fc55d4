"""How much of everything is measured."""

from __future__ import annotations

import msgspec


class Amounts(msgspec.Struct, frozen=True, kw_only=True):
    """Of one run of the bench."""

    first_lines: int = 30
    log_waits: int = 100
    """Lines of which each is timed until `logs -f` shows it."""
    log_lines: int = 300_000
    """In a round, through the log path."""
    connects: int = 30
    echoes: int = 600
    """Through each of the two servers."""
    echo_block: int = 30
    """So many in a row, then it is the other's turn."""
    breath: float = 0.1
    """Seconds between two connects to a prompt: nobody comes in right behind another."""
    echoes_beside: int = 300
    """Through each of the two servers, while it also serves a download."""
    bulk: int = 200_000_000
    """Bytes of a download or upload."""
    bulks: int = 5
    """Of each, each way."""
    burst: int = 200
    """Connects at once."""
    idle: int = 1000
    """Shells that are open and idle."""
    idle_other: int = 100
    """The same of OpenSSH's sshd."""
    idle_jobs: int = 4
    """So many jobs they are in."""
    containers: int = 50
    """Jobs in containers at once."""
    container_starts: int = 15
    """Of each kind."""
    rounds: int = 3
    """Of the ceiling and the runs, by turns."""
    runs: int = 1500
    """In a round."""
    ceiling: int = 60_000
    """Messages in a round."""
    publishers: int = 3
    """Processes."""
    decided: int = 10_000
    """Runs whose facts are decided on, in a round."""
    waiting_orgs: int = 1000
    waiting: int = 100_000
    """Jobs in the long queue."""
    sessions: int = 10_000
    """Live ones, that the janitor watches."""
    passes: int = 10
    freed: int = 10
    """Slots of which a session is to end."""
    settled: float = 1.5
    """Seconds after which a count is looked at again: longer than read models trail."""


QUICK = Amounts(
    first_lines=2,
    log_waits=4,
    log_lines=5000,
    connects=2,
    echoes=20,
    echo_block=10,
    breath=0,
    echoes_beside=10,
    bulk=4_000_000,
    bulks=1,
    burst=6,
    idle=6,
    idle_other=2,
    idle_jobs=2,
    containers=3,
    container_starts=1,
    rounds=1,
    runs=40,
    ceiling=3000,
    publishers=2,
    settled=0.3,
    decided=400,
    waiting_orgs=20,
    waiting=200,
    sessions=40,
    passes=2,
    freed=2,
)
"""Proves that all of it works; the figures mean nothing."""
