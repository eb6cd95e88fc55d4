"""The images of a host: had from the engine, or fetched once for all who wait; looked into once each."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from pathlib import Path
from typing import Any, Final

from pitstop_sandbox.backends.docker import container
from pitstop_sandbox.backends.docker.engine import Engine, EngineError, to_its_end
from pitstop_sandbox.backends.docker.fetched import FetchedImages
from pitstop_sandbox.backends.docker.image import PATHS, Image, Unusable, describe, full_name
from pitstop_sandbox.backends.docker.pulling import Progress, reference
from pitstop_sandbox.backends.port import BackendError, Hear, silent

log = logging.getLogger(__name__)

DEFAULT: Final = "pitstop/job:latest"
"""What `make images` builds."""


class Images:
    """`default`: of jobs that name none; empty: DEFAULT, when it is there. `root`: the host's folder."""

    def __init__(self, engine: Engine, default: str, fetched: FetchedImages, root: Path | None = None) -> None:
        self._engine = engine
        self._fetched = fetched
        self._waiting: dict[str, list[Hear]] = {}
        self._trimming: set[asyncio.Task[None]] = set()
        self._default = default
        self._root = root
        self._looking: set[str] = set()
        self._known: dict[tuple[str, str, str], Image] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    async def default(self) -> str:
        """The name of the image for jobs that name none; empty when there is none."""
        if self._default:
            return full_name(self._default)
        return DEFAULT if await self._engine.image(DEFAULT) else ""

    async def need(self, name: str, *, user: str, home: str, say: Hear = silent) -> Image:
        """The image of a job, which is here then. `say` hears how it is fetched. Raises BackendError `image_missing`,
        `image_pull_failed`, `image_unusable`: all of the job's own."""
        wanted = full_name(name) if name else await self.default()
        if not wanted:
            raise BackendError(
                "image_missing",
                "this job names no image, and this host has no default one: name one in the job, or have the host's "
                "PITSTOP_DOCKER_IMAGE set (`make images` builds one)",
            )
        waiting = self._waiting.setdefault(wanted, [])
        waiting.append(say)
        try:
            return await self._in_turn(wanted, user, home)
        finally:
            waiting.remove(say)

    async def _in_turn(self, wanted: str, user: str, home: str) -> Image:
        async with self._turns.setdefault(wanted, asyncio.Lock()):
            about = await self._engine.image(wanted) or await self._fetch(wanted)
            self._fetched.used(wanted, str(about["Id"]))
            key = (str(about["Id"]), user, home)
            if key not in self._known:
                self._known[key] = await to_its_end(self._look(wanted, about, user, home))
            return self._known[key]

    async def aclose(self) -> None:
        """Returns when nothing is being removed any more."""
        for task in self._trimming:
            task.cancel()
        await asyncio.gather(*self._trimming, return_exceptions=True)

    def _tell(self, name: str, text: str | None) -> None:
        if text:
            log.info("%s", text)
            for say in list(self._waiting.get(name, ())):
                say(text)

    async def _fetch(self, name: str) -> dict[str, Any]:
        progress = Progress(name, time.monotonic())
        self._tell(name, progress.first())
        try:
            before = await self._engine.image_ids()
            async for line in self._engine.pull(name):
                self._tell(name, progress.heard(line, time.monotonic()))
        except EngineError as error:
            if error.code == "engine_lost":
                raise
            raise BackendError(
                "image_pull_failed",
                f"the image {name} is not on this host and could not be fetched: {error}. Check the name, and that "
                f"this host reaches the registry and may read it; or load it here: docker load, docker pull {name}",
            ) from None
        about = await self._engine.image(name)
        if about is None:
            raise BackendError("image_missing", f"the image {name} was fetched, and is not there: docker pull {name}")
        self._tell(name, progress.last(reference(name, about), int(about["Size"]), time.monotonic()))
        if about["Id"] not in before:
            self._fetched.add(name, str(about["Id"]), int(about["Size"]))
            self._trimming.add(task := asyncio.create_task(self._fetched.trim()))
            task.add_done_callback(self._trimmed)
        return about

    def _trimmed(self, task: asyncio.Task[None]) -> None:
        self._trimming.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.warning("images are not removed: %s", error)

    async def _look(self, name: str, about: dict[str, Any], user: str, home: str) -> Image:
        called = f"{container.NAMED}look-{secrets.token_hex(4)}"
        self._looking.add(called)
        try:
            return await self._look_by(called, name, about, user, home)
        finally:
            self._looking.discard(called)

    async def _look_by(self, called: str, name: str, about: dict[str, Any], user: str, home: str) -> Image:
        made = await self._engine.create(container.look(str(about["Id"]), self._root), called)
        try:
            passwd = await self._engine.read(made, "/etc/passwd")
            group = await self._engine.read(made, "/etc/group")
            there = await self._engine.has(made, (*PATHS, home))
        finally:
            await self._engine.remove(made)
        try:
            return describe(name, about, passwd, group, there, user=user, home=home)
        except Unusable as error:
            raise BackendError("image_unusable", str(error)) from None

    async def sweep(self, root: Path) -> None:
        """Take away the containers by which an earlier process of this host looked into images. Raises EngineError."""
        for made, (name, labels) in (
            await self._engine.find(**{container.ROOT: str(root), container.LOOK: ""})
        ).items():
            if container.looks(root, name, labels) and name not in self._looking:
                await self._engine.remove(made)
