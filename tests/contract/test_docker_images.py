"""Images that a host fetches: from a real registry, told as they come, named by digest, and removed when too many."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.contract.backend_kit import Machine, run, until
from tests.docker_engine import BARE, DockerEngine
from tests.docker_registry import push, running_registry

from pitstop_sandbox.backends.docker.fetched import FILE, Fetched, surplus
from pitstop_sandbox.backends.docker.pulling import SAY_EVERY, Progress, reference
from pitstop_sandbox.backends.port import Backend, BackendError, Sandbox


@pytest.fixture
def kind() -> str:
    return "docker"


def names(engine: DockerEngine) -> set[str]:
    """Of the images that the engine has."""
    images = json.loads(engine.get("/images/json")[1])
    return {name for each in images for name in [*(each["RepoTags"] or []), *(each["RepoDigests"] or [])]}


def size_of(engine: DockerEngine, name: str) -> int:
    return int(json.loads(engine.get(f"/images/{name}/json")[1])["Size"])


async def test_images_are_fetched_told_and_removed_when_too_many(
    machine: Machine, docker_engine: DockerEngine, tmp_path: Path
) -> None:
    root, engine = machine.folder.parent, docker_engine
    with running_registry(tmp_path) as address:
        one, two, three = (f"{address}/{name}:1" for name in ("one", "two", "three"))
        digests = {name: await asyncio.to_thread(push, engine, name) for name in (one, two, three)}
        pinned = f"{address}/two@{digests[two]}"
        limit = int(2.5 * size_of(engine, BARE))
        backend = machine.backend(root=root, images=limit, images_kept=0)
        heard: list[str] = []
        first = await create(machine, backend, "job.1", one, heard)
        assert heard[0] == f"fetching {one}: it is not on this host"
        assert heard[-1].startswith(f"fetched {one} in ") and heard[-1].endswith(f" MB on disk, {one}@{digests[one]}")
        assert first.image == f"{one}@{digests[one]}" and first.env["NAME"] == one
        await first.remove()

        second = await create(machine, backend, "job.2", pinned, [])
        assert (second.image, second.env["NAME"]) == (pinned, two)
        assert (await run(second, "echo up"))[1] == "up\n"
        again = await create(machine, backend, "job.1", one, heard := [])
        assert heard == [], "it is there"
        await again.remove()
        with pytest.raises(BackendError, match=f"{address}/none:1 is not on this host .*manifest unknown") as failed:
            await backend.create(machine.spec("job.9", image=f"{address}/none:1"))
        assert failed.value.code == "image_pull_failed"

        # A host that comes again knows what is its own. The least used is in use, so the next one goes.
        later = machine.backend(root=root, images=limit, images_kept=0)
        third = await create(machine, later, "job.3", three, [])
        await until(lambda: one not in names(engine), "it is not removed")
        assert {pinned, three, BARE} <= names(engine)
        await later.aclose()
        assert set(json.loads((root / FILE).read_bytes())) == {pinned, three}
    with pytest.raises(BackendError, match=f"{one} is not on this host and could not be fetched: .*refused"):
        await backend.create(machine.spec("job.9", image=one))
    fourth = await create(machine, backend, "job.4", three, [])
    for sandbox in (second, third, fourth):
        await sandbox.remove()
    for name in (pinned, three):
        engine.remove(f"/images/{name}")


async def create(machine: Machine, backend: Backend, name: str, image: str, heard: list[str]) -> Sandbox:
    machine.spec(name)
    return await machine.create(backend, name, say=heard.append, image=image)


IMAGES = st.dictionaries(
    st.sampled_from("abcde"), st.builds(Fetched, st.just("x"), st.integers(1, 100), st.floats(0, 100))
)


@given(IMAGES, st.integers(0, 300), st.floats(0, 50), st.sets(st.sampled_from("abcde")))
def test_the_least_used_goes_first_and_only_as_long_as_they_are_too_many(
    images: dict[str, Fetched], limit: int, keep: float, stay: set[str]
) -> None:
    before = dict(images)
    while (name := surplus(images, limit, 100, keep, stay)) is not None:
        assert sum(one.size for one in images.values()) > limit and name not in stay
        gone = images.pop(name)
        assert 100 - gone.used >= keep
        assert all(one.used >= gone.used for other, one in images.items() if other not in stay)
    held = {name for name, one in before.items() if name in stay or 100 - one.used < keep}
    assert held <= set(images)
    assert sum(one.size for one in images.values()) <= limit or set(images) == held


@given(st.lists(st.tuples(st.floats(0, 2), st.sampled_from("abc"), st.integers(0, 50), st.booleans()), max_size=60))
def test_a_fetch_is_told_now_and_then(lines: list[tuple[float, str, int, bool]]) -> None:
    now, said = 0.0, [0.0]
    progress = Progress("x:1", now)
    for step, layer, have, done in lines:
        now += step
        line = {"id": layer, "status": "Download complete"} if done else {
            "id": layer, "status": "Downloading", "progressDetail": {"current": have * 10**6, "total": 50 * 10**6}
        }  # fmt: skip
        if text := progress.heard(line, now):
            assert now - said[-1] >= SAY_EVERY
            said.append(now)
            got, whole = (float(word) for word in text.removeprefix("fetching x:1: ").partition(" MB")[0].split(" of "))
            assert got <= whole <= 150


def test_an_image_is_named_by_the_digest_it_can_be_had_by() -> None:
    about = {"Id": "sha256:1", "RepoDigests": ["other@sha256:2", "host:5000/a@sha256:3"]}
    assert reference("host:5000/a:1", about) == "host:5000/a:1@sha256:3"
    assert reference("host:5000/a@sha256:3", about) == "host:5000/a@sha256:3"
    assert reference("mine:1", {"Id": "sha256:1", "RepoDigests": []}) == "mine:1 sha256:1"
