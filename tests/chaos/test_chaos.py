"""The small form of `make chaos`, with one seed: nothing lost, nothing twice, nothing left."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.chaos.havoc import EVERYTHING
from tests.chaos.real import REAL
from tests.chaos.world import CLUSTERED, Plan, play

KILLS = 20


@pytest.mark.timeout(240)
async def test_500_runs_survive_20_kills_of_everything(tmp_path: Path) -> None:
    outcome = await play(tmp_path, Plan(runs=500, seed=3, kills=KILLS, gap=0.8, seconds=25.0))
    print(outcome.line())
    print(outcome.details())
    assert not outcome.wrong, "\n".join([*outcome.wrong, *outcome.acts])
    figures = outcome.figures
    assert figures.requested == figures.ended >= 500
    assert (figures.lost, figures.twice, figures.leaked) == (0, 0, 0)
    assert outcome.kills >= KILLS
    assert outcome.lost_hosts == 1
    assert figures.retried >= 1  # what that host held
    assert outcome.old_starts >= 500
    assert outcome.slow_consumers >= 1
    assert set(EVERYTHING) - set(outcome.deeds) <= {"full disk"}  # which only root can fill


@pytest.mark.timeout(240)
async def test_a_cluster_of_three_loses_one_server_after_the_other(tmp_path: Path) -> None:
    """Killed, stopped for longer than an election, cut off from everybody; sixteen partitions, each stream thrice."""
    deeds = {"kill node": 3, "stop node": 2, "isolate node": 2, "kill owner": 2, "kill host": 2, "cut": 1}
    plan = Plan(runs=100, seed=5, kills=3, gap=0.7, seconds=10.0, partitions=16, clustered=True)
    outcome = await play(tmp_path, plan, msgspec.structs.replace(CLUSTERED, deeds=deeds))
    print(outcome.line())
    print(outcome.details())
    assert not outcome.wrong, "\n".join([*outcome.wrong, *outcome.acts])
    assert outcome.figures.requested == outcome.figures.ended >= 100
    assert (outcome.figures.lost, outcome.figures.twice, outcome.figures.leaked) == (0, 0, 0)
    assert set(outcome.deeds) == set(deeds)


@pytest.mark.timeout(240)
async def test_40_jobs_in_real_sandboxes_outlive_their_hosts(tmp_path: Path) -> None:
    outcome = await play(tmp_path, Plan(runs=40, seed=4, kills=8, gap=1.2, seconds=8.0), REAL)
    print(outcome.line())
    print(outcome.details())
    assert not outcome.wrong, "\n".join([*outcome.wrong, *outcome.acts])
    assert outcome.figures.requested == outcome.figures.ended == 40
    assert outcome.figures.errors == 0
    assert outcome.kills >= 8
