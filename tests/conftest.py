"""Fixtures of all tests: a real nats-server for each test that asks for one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import settings
from tests.docker_engine import docker_engine

from pitstop_common.bus import Bus, connected
from pitstop_common.embedded import EmbeddedServer
from pitstop_common.provision import provision

__all__ = ["docker_engine"]


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """A server with an empty store. Nothing is shared between tests."""
    server = EmbeddedServer(tmp_path / "nats")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def partitions(request: pytest.FixtureRequest) -> int:
    """Of the decision log: 1, or the parameter of the test."""
    return int(getattr(request, "param", 1))


@pytest.fixture
async def bus(nats_server: EmbeddedServer, partitions: int) -> AsyncIterator[Bus]:
    """A connection with all streams and buckets made."""
    async with connected(nats_server.url(), "test") as connection:
        await provision(connection, partitions=partitions)
        yield connection


# No time limit for an example: these machines are busy. CI repeats the same examples; a developer's run looks for new.
settings.register_profile("pitstop", deadline=None, derandomize="PITSTOP_CI" in os.environ)
settings.load_profile("pitstop")

KNOWN_SKIPS: frozenset[str] = frozenset()
"""Tests that may skip in CI, by node id. None needs to: what they use is installed from Debian."""


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a skip that nobody knows of is a failure: a missing program must not look like a pass."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("PITSTOP_CI") or reporter is None:
        return
    unknown = {report.nodeid for report in reporter.stats.get("skipped", [])} - KNOWN_SKIPS
    if unknown:
        reporter.write_line(f"skipped, and not among the known skips: {', '.join(sorted(unknown))}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
