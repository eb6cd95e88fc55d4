"""Containers that are made and started before a job comes, each taken by one job, once.

One is made in `<root>/warm/<id>/{work,job,bin,life}`, which its mounts show. A job's folder takes these in by
rename(2): they stay the same folders, so the mounts stay right. Before that the job's folder says which container it
has (TAKEN): a label cannot be changed, and whoever comes after a kill has to know whose the container is. This process
holds the lifelines of what is ready: with it, they end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from pitstop_sandbox.backends.docker import container, stock
from pitstop_sandbox.backends.docker.engine import to_its_end
from pitstop_sandbox.backends.docker.image import Image
from pitstop_sandbox.backends.port import BackendError, SandboxSpec
from pitstop_sandbox.backends.trees import remove_tree
from pitstop_sandbox.holder import kernel

log = logging.getLogger(__name__)

FOLDER: Final = "warm"
"""Of the host's folder: theirs."""
TAKEN: Final = "container.json"
LOOK_SECONDS: Final = 60.0
"""Between two looks whether all live; and after a failure to make one, until the next try."""
QUIET_SECONDS: Final = 0.5
"""None is made while a job starts, nor so shortly after."""
END_SECONDS: Final = 10.0
"""For the engine to take one away. They end by themselves, too."""

_LINE: Final = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """A container that runs. `started` is when its process 1, `pid`, was; `runc` as `runtime.find` says."""

    container: str
    pid: int
    started: int
    runc: dict[str, Any]


class Taken(msgspec.Struct, frozen=True):
    """What a job's folder says of its container. `sandbox`: its id; `folder`: the name of the one it came from."""

    container: str
    sandbox: str
    folder: str


class _Warm(msgspec.Struct, frozen=True, kw_only=True):
    spec: SandboxSpec
    image: Image
    begun: Begun
    line: int
    """A descriptor of its lifeline."""
    ready: stock.Ready


class Pool:
    """Of one host, in its folder `root`; None: nothing is kept. `like`: what jobs ask for; `need`: the image of one;
    `begin`: starts a container; `clean`: takes away what was made in a folder. Nothing is made before `expects`."""

    def __init__(self, root: Path | None, wanted: stock.Wanted, like: SandboxSpec,
                 need: Callable[[SandboxSpec], Awaitable[Image]],
                 begin: Callable[[SandboxSpec, Image], Coroutine[Any, Any, Begun]],
                 clean: Callable[[Path], Awaitable[None]]) -> None:  # fmt: skip
        self._root = root / FOLDER if root else None
        self._wanted, self._like = wanted, like
        self._need, self._begin, self._clean = need, begin, clean
        self._ready: dict[Path, _Warm] = {}
        self._own: set[Path] = set()
        self._starting = 0
        self._last_start = -QUIET_SECONDS
        self._keeper: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._not_before: dict[str, float] = {}
        self._faults: dict[str, str] = {}
        self._lines: dict[Path, int] = {}

    def expects(self, jobs: bool) -> None:
        """Jobs will come; or none will, and what is ready ends."""
        if jobs and self._keeper is None and self._root is not None:
            self._keeper = asyncio.create_task(self._for_ever(self._root))
        elif not jobs:
            if self._keeper is not None:
                self._keeper.cancel()
                self._let(self._keeper)
                self._keeper = None
            self._end(list(self._ready))

    @property
    def own(self) -> frozenset[Path]:
        """The folders of those that this process is making, has ready, or has given away and not yet heard of again."""
        return frozenset(self._own)

    @property
    def size(self) -> int:
        """How many are ready."""
        return len(self._ready)

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """A job starts: nothing is made meanwhile."""
        self._starting += 1
        try:
            yield
        finally:
            self._starting -= 1
            self._last_start = _now()
            self._news.set()

    async def take(self, spec: SandboxSpec, image: Image) -> Begun | None:
        """One for this job, whose folders are the job's then; None when there is none like it. This process keeps it
        alive until `handed`."""
        warm = self._pick(spec, image)
        if warm is None:
            return None
        folder = warm.spec.folder
        del self._ready[folder]
        self._lines[spec.folder] = warm.line
        try:
            await asyncio.to_thread(_move, folder, spec, warm.begun.container)
        except OSError as error:
            log.warning("a container that was ready could not be given to %s: %s", spec.id, error)
            self.handed(spec.folder)
            await self._clean(spec.folder)
            self._end([folder])
            return None
        self._own.discard(folder)
        return warm.begun

    def handed(self, folder: Path) -> None:
        """The container of this job's folder has another who keeps it alive; or it is to end."""
        if (line := self._lines.pop(folder, None)) is not None:
            os.close(line)

    def _pick(self, spec: SandboxSpec, image: Image) -> _Warm | None:
        for warm in list(self._ready.values()):
            renamed = warm.spec.image == spec.image and warm.image.id != image.id
            if renamed or not _lives(warm.begun):
                self._end([warm.spec.folder])
            elif warm.image == image and _shape(warm.spec) == _shape(spec):
                return warm
        return None

    async def aclose(self) -> None:
        """End what is ready. Returns when it is gone, or the engine has not said so for too long."""
        self.expects(False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                while self._ending:  # one that is cut off in its making ends after that
                    await asyncio.wait(self._ending)
        for task in self._ending:
            task.cancel()

    # -- keeping it up ---------------------------------------------------------------------------------------------

    async def _for_ever(self, root: Path) -> None:
        while True:
            try:
                await self._keep(root)
            except Exception:
                log.exception("keeping containers ready failed, and is begun again")
                await asyncio.sleep(LOOK_SECONDS)

    async def _keep(self, root: Path) -> None:
        await asyncio.to_thread(self._sweep, root)
        while True:
            self._news.clear()
            now = _now()
            dead = [folder for folder, warm in self._ready.items() if not _lives(warm.begun)]
            old = stock.stale(self._wanted, [(folder, warm.ready) for folder, warm in self._ready.items()], now)
            self._end({*dead, *old})
            ready = [warm.ready for warm in self._ready.values()]
            later = [name for name, when in self._not_before.items() if when > now]
            name = stock.missing(self._wanted, ready, later)
            if name is not None:
                await self._quiet()
                await self._make(root, name)
                await asyncio.sleep(60 / self._wanted.per_minute)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(stock.next_look(self._wanted, ready, now, LOOK_SECONDS)):
                    await self._news.wait()

    async def _quiet(self) -> None:
        while self._starting or (left := self._last_start + QUIET_SECONDS - _now()) > 0:
            if self._starting:
                self._news.clear()
                await self._news.wait()
            else:
                await asyncio.sleep(left)

    async def _make(self, root: Path, name: str) -> None:
        folder = root / secrets.token_hex(6)
        spec = msgspec.structs.replace(self._like, id=f"{FOLDER}.{folder.name}", folder=folder, image=name)
        self._own.add(folder)
        try:
            image = await self._need(spec)
            folder.mkdir(mode=0o711, parents=True)
            begun = await to_its_end(self._begin(spec, image))
            line = os.open(folder / container.LIFE / container.LINE, _LINE)
        except (BackendError, OSError) as error:
            if self._faults.get(name) != str(error):
                log.warning("no container of %s can be made ready: %s", name or "the default image", error)
            self._faults[name] = str(error)
            self._not_before[name] = _now() + LOOK_SECONDS
            self._end([folder])
        except BaseException:
            self._end([folder])
            raise
        else:
            ready = stock.Ready(name, _now())
            self._ready[folder] = _Warm(spec=spec, image=image, begun=begun, line=line, ready=ready)

    def _end(self, folders: set[Path] | list[Path]) -> None:
        for folder in folders:
            if warm := self._ready.pop(folder, None):
                os.close(warm.line)
            self._let(asyncio.create_task(self._away(folder)))

    async def _away(self, folder: Path) -> None:
        try:
            await self._clean(folder)
            await asyncio.to_thread(remove_tree, folder)
            self._own.discard(folder)
        except (BackendError, OSError) as error:
            log.warning("a container that was ready is not removed, but has been told to end: %s", error)
            self._own.discard(folder)  # whoever sweeps this host finds it

    def _let(self, task: asyncio.Task[None]) -> None:
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _sweep(self, root: Path) -> None:
        """Folders that an earlier process left. Its containers have ended with it, or are found by their labels."""
        with contextlib.suppress(FileNotFoundError):
            for folder in list(root.iterdir()):
                if folder not in self._own:
                    remove_tree(folder)


def read_taken(folder: Path) -> Taken | None:
    """What a job's folder says of its container; None for one that was made for it."""
    try:
        return msgspec.json.decode((folder / TAKEN).read_bytes(), type=Taken)
    except (OSError, msgspec.MsgspecError):
        return None


def all_taken(root: Path) -> dict[str, tuple[Path, str]]:
    """By container: the folder of the job that has it, and the id of its sandbox."""
    found = {}
    for note in root.glob(f"*/*/{TAKEN}"):
        if (taken := read_taken(note.parent)) is not None:
            found[taken.container] = (note.parent, taken.sandbox)
    return found


def _move(warm: Path, spec: SandboxSpec, made: str) -> None:
    """From the folder of a container to that of a job, whose folders are empty but for its tools. A kill at any point
    leaves a job without a holder, of which everything is made anew, and TAKEN, by which the container is found."""
    draft = spec.folder / f"{TAKEN}.tmp"
    draft.write_bytes(msgspec.json.encode(Taken(made, spec.id, warm.name)))
    draft.rename(spec.folder / TAKEN)
    tools, shown = spec.folder / "bin", warm / "bin"
    if tools.is_dir():
        for tool in tools.iterdir():
            tool.rename(shown / tool.name)
    for name in (container.LIFE, "work", "job", "bin"):
        (warm / name).rename(spec.folder / name)  # takes the place of an empty folder, and of no other
    remove_tree(warm)
    (spec.folder / "holder").mkdir(mode=0o700, exist_ok=True)


def _shape(spec: SandboxSpec) -> SandboxSpec:
    """All by which a container differs from another of the same image."""
    return msgspec.structs.replace(spec, id="", folder=Path(), image="")


def _lives(begun: Begun) -> bool:
    return kernel.start_time(begun.pid) == begun.started and not kernel.is_exiting(begun.pid)


def _now() -> float:
    return time.monotonic()
