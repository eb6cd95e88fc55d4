"""An attempt in the host's table, and who wants to tell it something."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from pitstop_common.messages import Start, Stop
from pitstop_sandbox.hosting.attempts import Attempt
from pitstop_sandbox.hosting.table import Table


async def test_what_never_began_keeps_nobody_waiting() -> None:
    """A host that is cut off ends all it has, also what it is only about to claim: its stop waits for these words."""
    home = SimpleNamespace(facts=lambda trace: None, folders=SimpleNamespace(path=Path))
    attempt = Attempt(cast(Any, home), Start(org="acme", run="r", job="r-1", attempt=1, cause="c"))
    table = Table(4)
    table.enter(attempt)
    stop = Stop(org="acme", run="r", job="r-1", attempt=1, result="error", reason="host_isolated")
    told = asyncio.ensure_future(attempt.command(stop))
    await asyncio.sleep(0)
    assert not told.done()
    table.leave(attempt, ended=False)
    async with asyncio.timeout(5):
        await told
