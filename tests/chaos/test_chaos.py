"""The small form of `make chaos`, with one seed: nothing lost, nothing twice, nothing left."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.chaos.havoc import EVERYTHING
from tests.chaos.real import REAL
from tests.chaos.world import Plan, play

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
    assert outcome.old_starts >= 500
    assert outcome.slow_consumers >= 1
    assert set(EVERYTHING) - set(outcome.deeds) <= {"full disk"}  # which only root can fill


@pytest.mark.timeout(240)
async def test_40_jobs_in_real_sandboxes_outlive_their_hosts(tmp_path: Path) -> None:
    outcome = await play(tmp_path, Plan(runs=40, seed=4, kills=8, gap=1.2, seconds=8.0), REAL)
    print(outcome.line())
    print(outcome.details())
    assert not outcome.wrong, "\n".join([*outcome.wrong, *outcome.acts])
    assert outcome.figures.requested == outcome.figures.ended == 40
    assert outcome.figures.errors == 0
    assert outcome.kills >= 8
