"""The Docker Engine, as far as sandboxes need it. Every fault is a BackendError whose text says what to do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import aiodocker
import aiohttp

from pitstop_sandbox.backends.port import BackendError

T = TypeVar("T")
DEFAULT_HOST: Final = "unix:///var/run/docker.sock"
PULL_SECONDS: Final = 1800.0
SAY_SECONDS: Final = 120.0
"""For any other answer: a busy engine may take long, but not for ever."""
_NO_END: Final = aiohttp.ClientTimeout(total=None, sock_connect=SAY_SECONDS)
NO_CONNECTION: Final = 900
OK: Final = 200
NOT_FOUND: Final = 404
CONFLICT: Final = 409
MAX_FILE: Final = 1 << 20
"""Of a file that is read out of an image, bytes."""


class EngineError(BackendError):
    """The engine refused, or was not there. `status` is that of HTTP, or NO_CONNECTION."""

    def __init__(self, code: str, text: str, status: int) -> None:
        super().__init__(code, text)
        self.status = status


class Listed(NamedTuple):
    """A container in a list."""

    name: str
    labels: dict[str, str]


class Engine:
    """One engine at a unix socket. Connects at its first question."""

    def __init__(self, host: str = DEFAULT_HOST) -> None:
        self.host = host
        self._docker: aiodocker.Docker | None = None
        self._silent = ""
        """Why nothing is asked, when it does not even answer a ping."""
        self._asking: set[asyncio.Task[Any]] = set()
        self._cut: set[asyncio.Task[Any]] = set()

    @property
    def socket(self) -> Path | None:
        """Of an engine on this machine; None for any other."""
        return Path(self.host.removeprefix("unix://")) if self.host.startswith("unix://") else None

    async def ping(self) -> None:
        """Returns when it answers, which may be never."""
        with self._faults("the engine does not answer", always=True):
            # Not by aiodocker, whose first question of all is another one.
            async with self._client.session.get(self._url("_ping"), timeout=_NO_END) as reply:
                if reply.status != OK:
                    raise EngineError("engine_refused", "the engine does not answer", reply.status)
        self._silent = ""

    def cut(self, why: str) -> None:
        """It hangs: everything that waits for it fails now, and what is asked later at once, until it answers."""
        self._silent = why
        for task in self._asking - self._cut:
            self._cut.add(task)
            task.cancel()

    async def deaths(self, label: str) -> AsyncGenerator[tuple[str, dict[str, str]]]:
        """First ("", {}), when the engine hears us; then of each container with this label: `kill` when the engine is
        to end it, `die` when it has ended, and its labels. Ends with the engine."""
        about = {"filters": json.dumps({"type": ["container"], "event": ["die", "kill"], "label": [label]})}
        with self._faults("its events cannot be heard", always=True):
            async with self._client.session.get(self._url("events"), params=about, timeout=_NO_END) as reply:
                if reply.status != OK:
                    raise EngineError("engine_refused", "its events cannot be heard", reply.status)
                self._silent = ""
                yield "", {}
                async for line in reply.content:
                    event = json.loads(line)
                    yield event["Action"], dict(event["Actor"]["Attributes"])

    async def info(self) -> dict[str, Any]:
        """What the engine says of itself."""
        with self._faults("the engine does not answer"):
            return dict(await self._client.system.info())

    async def image(self, name: str) -> dict[str, Any] | None:
        """What is known of an image that is here; None when it is not."""
        try:
            with self._faults(f"the image {name} cannot be looked at"):
                return dict(await self._client.images.inspect(name))
        except EngineError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    async def image_ids(self) -> set[str]:
        """Of all that are here."""
        with self._faults("the images cannot be listed"):
            return {str(each["Id"]) for each in await self._client.images.list()}

    async def remove_image(self, name: str) -> None:
        """This name of it; with its last name it goes. Refused with CONFLICT when a container uses it."""
        with self._faults(f"the image {name} cannot be removed"):
            await self._client.images.delete(name)

    async def pull(self, name: str) -> AsyncIterator[dict[str, Any]]:
        """Fetch an image from its registry; what the engine says of it as it comes."""
        # Not cut off: who reads this may be awaiting something else.
        with self._faults(f"the image {name} cannot be fetched", cut=False):
            timeout = aiohttp.ClientTimeout(total=PULL_SECONDS, sock_read=SAY_SECONDS)
            async with contextlib.aclosing(
                self._client.images.pull(name, stream=True, timeout=timeout)  # type: ignore[call-overload]
            ) as said:
                async for line in said:
                    if fault := line.get("error"):
                        raise EngineError("image_pull_failed", str(fault), 0)
                    yield line

    async def create(self, config: dict[str, Any], name: str | None = None) -> str:
        """A container that is not started: its id."""
        with self._faults("the container cannot be made"):
            return str((await self._client.containers.create(config, name=name)).id)

    async def put(self, container: str, files: bytes) -> None:
        """Unpack a tar at the root of a container."""
        with self._faults("files cannot be put into the container"):
            await self._container(container).put_archive("/", files)  # type: ignore[no-untyped-call]

    async def read(self, container: str, path: str) -> str:
        """A text file of a container; empty when there is none."""
        try:
            with self._faults(f"{path} of the image cannot be read"):
                archive: tarfile.TarFile = await self._container(container).get_archive(path)
        except EngineError as error:
            if error.status == NOT_FOUND:
                return ""
            raise
        with archive:
            file = archive.extractfile(archive.getmembers()[0])
            return file.read(MAX_FILE).decode(errors="replace") if file else ""

    async def has(self, container: str, paths: Iterable[str]) -> set[str]:
        """Those of the paths that are there."""
        found = set()
        url = self._url(f"containers/{container}/archive")
        for path in paths:
            with self._faults(f"{path} of the image cannot be looked at"):
                # Not by aiodocker, which looks for JSON in the body of a refused HEAD.
                async with self._client.session.head(url, params={"path": path}) as reply:
                    if reply.status == OK:
                        found.add(path)
                    elif reply.status != NOT_FOUND:
                        raise EngineError("engine_refused", f"{path} of the image cannot be looked at", reply.status)
        return found

    async def start(self, container: str) -> int:
        """Start it: the pid of its process 1, as this machine sees it. 0: it has ended already."""
        with self._faults("the container cannot be started"):
            each = self._container(container)
            await each.start()
            return int((await each.show())["State"]["Pid"])

    async def find(self, **labels: str) -> dict[str, Listed]:
        """All containers, running or not, that have these labels; by id."""
        filters = {"label": [f"{name}={value}" for name, value in labels.items()]}
        with self._faults("the containers cannot be listed"):
            found = await self._client.containers.list(all=True, filters=filters)
            return {each.id: Listed((each["Names"] or [""])[0].lstrip("/"), dict(each["Labels"])) for each in found}

    async def remove(self, container: str) -> None:
        """Kill it and take it away, with its anonymous volumes. No error when it is gone, or on its way. Returns when
        it is gone."""
        each = self._container(container)
        try:
            with self._faults("the container cannot be removed"):
                await each.delete(force=True, v=True)
        except EngineError as error:
            if error.status == NOT_FOUND:
                return
            if error.status != CONFLICT:
                raise
        try:
            with self._faults("the container is not removed"):
                await each.wait(condition="removed")
        except EngineError as error:
            if error.status != NOT_FOUND:
                raise

    async def aclose(self) -> None:
        """Let go of the engine."""
        if self._docker is not None:
            await self._docker.close()
            self._docker = None

    @property
    def _client(self) -> aiodocker.Docker:
        if self._docker is None:
            timeout = aiohttp.ClientTimeout(total=SAY_SECONDS)
            self._docker = aiodocker.Docker(url=self.host, timeout=timeout)
        return self._docker

    def _container(self, id: str) -> aiodocker.containers.DockerContainer:
        return self._client.containers.container(id)

    def _url(self, path: str) -> Any:
        return self._client._canonicalize_url(path, versioned_api=False)

    @contextlib.contextmanager
    def _faults(self, what: str, *, always: bool = False, cut: bool = True) -> Iterator[None]:
        """`always`: ask it though it was silent. `cut`: let go when it is."""
        if self._silent and not always:
            raise EngineError("engine_lost", f"{what}: {self._silent}", NO_CONNECTION)
        task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        if cut:
            self._asking.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._cut or task.uncancel() > before:
                raise
            raise EngineError("engine_lost", f"{what}: {self._silent}", NO_CONNECTION) from None
        except aiodocker.DockerError as error:
            if error.status == NO_CONNECTION:
                text = f"no Docker Engine answers at {self.host}"
                raise EngineError("engine_lost", text, error.status) from None
            raise EngineError("engine_refused", f"{what}: {error.message}", error.status) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            text = f"{what}: the engine at {self.host} broke off ({error or type(error).__name__})"
            raise EngineError("engine_lost", text, NO_CONNECTION) from None
        finally:
            self._asking.discard(task)
            self._cut.discard(task)


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Not cut off in the middle of a request, or a container would be made that nobody knows of: a cancellation is
    heeded when it is done."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise
