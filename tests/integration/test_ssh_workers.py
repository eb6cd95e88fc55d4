"""Several workers as one process group: what becomes of them when their parent is killed, or told twice to stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.integration.test_ssh_service import At, Service, service
from tests.patience import PATIENCE
from tests.screens import screen
from tests.whole_system import wait_until

__all__ = ["service"]


@contextlib.asynccontextmanager
async def workers(made: Service, folder: Path, **settings: str) -> AsyncIterator[tuple[Any, dict[str, Any]]]:
    """Two more, beside the one that there is; people come to them from now on."""
    ready = folder / "workers"
    environ = made.environ | {"PITSTOP_READY_FILE": str(ready), "PITSTOP_RELAY_WORKERS": "2", **settings}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "pitstop_relay", env=environ)
    try:
        await asyncio.to_thread(wait_until, ready.exists, PATIENCE)
        facts = json.loads(ready.read_text())
        at = At(**facts["ssh"])
        (folder / "known_hosts").write_text(at.known_hosts + "\n")
        made.ssh.at = at  # type: ignore[assignment]
        yield process, facts
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


async def test_workers_whose_parent_is_killed_tell_their_people_and_end(service: Service, tmp_path: Path) -> None:
    async with workers(service, tmp_path) as (process, facts):
        with screen(service.ssh) as person:
            person.type("echo up''now\n")
            await person.until("upnow")
            process.kill()
            await person.until("pitstop: this relay is being stopped. Your shell goes on; connect again in a moment.")
            assert await person.ended() == 255
        pids = [worker["pid"] for worker in facts["workers"]]
        await asyncio.to_thread(wait_until, lambda: not any(alive(pid) for pid in pids), PATIENCE)


async def test_a_second_sigterm_ends_the_wait_of_all_workers(service: Service, tmp_path: Path) -> None:
    async with workers(service, tmp_path, PITSTOP_DRAIN_TIMEOUT="600") as (process, facts):
        with screen(service.ssh) as person:
            person.type("echo up''now\n")
            await person.until("upnow")
            process.send_signal(signal.SIGTERM)
            await person.until("this relay will end in 600 s at the latest")
            process.send_signal(signal.SIGTERM)
            await person.until("pitstop: this relay is being stopped.")
            assert await person.ended() == 255
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
        assert not any(alive(worker["pid"]) for worker in facts["workers"])


async def test_a_number_of_workers_that_cannot_be() -> None:
    files = {f"PITSTOP_TLS_{name}": "unused" for name in ("CA", "CERT", "KEY")}
    environ = {**os.environ, **files, "PITSTOP_NATS_URL": "nats://unused"}
    for wrong, said in (("65", "PITSTOP_RELAY_WORKERS=65: should be 1 to 64"),
                        ("two", "PITSTOP_RELAY_WORKERS='two': should be a whole number")):  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pitstop_relay", env=environ | {"PITSTOP_RELAY_WORKERS": wrong},
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _out, err = await process.communicate()
        assert process.returncode == 2
        assert said in err.decode() and "Traceback" not in err.decode()
