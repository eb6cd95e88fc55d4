"""A machine with backends of one kind, and a sandbox on it. A module may ask for other kinds by its own `kind`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contract.backend_kit import Machine

from pitstop_sandbox.backends.port import Backend, Sandbox


@pytest.fixture
def kind() -> str:
    return "namespaces"


@pytest.fixture
async def machine(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Machine]:
    engine = request.getfixturevalue("docker_engine") if kind == "docker" else None
    made = Machine(kind, tmp_path, engine)
    works, why = (True, "") if engine else await made.backend().probe()
    if not works:
        await made.end()
        pytest.skip(f"{kind}: {why}")
    yield made
    await made.end()


@pytest.fixture
def backend(machine: Machine) -> Backend:
    return machine.backend()


@pytest.fixture
async def sandbox(machine: Machine, backend: Backend) -> Sandbox:
    return await machine.create(backend)
