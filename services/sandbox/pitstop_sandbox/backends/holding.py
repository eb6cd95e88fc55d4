"""A sandbox and its processes as the host process holds them: through the socket of their holder."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from pitstop_sandbox.backends.link import Link
from pitstop_sandbox.backends.port import BackendError, Exit, Process, SandboxSpec, Spawn, Tcp, Unix
from pitstop_sandbox.backends.sockets import SocketListener
from pitstop_sandbox.backends.starting import END_SECONDS, Ending
from pitstop_sandbox.backends.trees import give_tree, remove_tree
from pitstop_sandbox.holder import frames
from pitstop_sandbox.holder.sweep import sweep_one


class Keeper(Protocol):
    """Of a backend that made something of a sandbox itself, beside its holder."""

    async def clean(self, folder: Path) -> None:
        """Take it away: the holder is gone. Raises BackendError."""

    async def why(self, folder: Path, reason: str) -> BackendError:
        """What to say of a sandbox that has died by itself. `reason`: what its holder saw."""


class HeldProcess:
    """See `Process`."""

    def __init__(
        self, sandbox: HeldSandbox, name: str, spool: Path | None, scrollback: Path | None, fds: tuple[int, ...]
    ) -> None:
        self._sandbox = sandbox
        self._id = name
        self._spool = spool
        self._scrollback = scrollback
        self._fds = fds

    @property
    def id(self) -> str:
        """See `Process`."""
        return self._id

    @property
    def fds(self) -> tuple[int, ...]:
        """See `Process`."""
        return self._fds

    @property
    def spool(self) -> Path | None:
        """See `Process`."""
        return self._spool

    @property
    def scrollback(self) -> Path | None:
        """See `Process`."""
        return self._scrollback

    async def wait(self) -> Exit:
        """See `Process`."""
        while self._id not in self._sandbox.exits:
            await self._sandbox.changed()
        return self._sandbox.exits[self._id]

    async def grown(self, beyond: int) -> int:
        """See `Process`."""
        while self._sandbox.sizes.get(self._id, 0) <= beyond and self._id not in self._sandbox.exits:
            await self._sandbox.changed()
        return self._sandbox.sizes.get(self._id, 0)

    async def signal(self, number: int, *, tree: bool = False) -> int:
        """See `Process`."""
        return int(await self._sandbox.ask("signal", id=self._id, number=int(number), tree=tree) or 0)

    async def resize(self, columns: int, rows: int) -> None:
        """See `Process`."""
        await self._sandbox.ask("resize", id=self._id, columns=columns, rows=rows)


class HeldSandbox:
    """See `Sandbox`. After the constructor, `make` or `greet`."""

    def __init__(
        self,
        spec: SandboxSpec,
        sock: socket.socket,
        ending: Ending | None,
        forget: Callable[[HeldSandbox], None],
        keeper: Keeper | None = None,
    ) -> None:
        self._spec = spec
        self._ending = ending
        self._forget = forget
        self._keeper = keeper
        self._uid, self._gid = os.geteuid(), os.getegid()
        self._notes: tuple[str, ...] = ()
        self._env: dict[str, str] = {}
        self._image = ""
        self._shells: tuple[str, ...] = ()
        self._expected = False
        self._reason = ""
        self._gone = asyncio.Event()
        self._news = asyncio.Event()
        self.exits: dict[str, Exit] = {}
        self.sizes: dict[str, int] = {}
        self._link = Link(sock, self._heard, self._ended)

    @property
    def id(self) -> str:
        """See `Sandbox`."""
        return self._spec.id

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Sandbox`."""
        return self._notes

    @property
    def image(self) -> str:
        """See `Sandbox`."""
        return self._image

    @property
    def env(self) -> dict[str, str]:
        """See `Sandbox`."""
        return self._env

    async def make(self, plan: dict[str, Any]) -> None:
        """Have a new holder make the sandbox. Raises BackendError."""
        await self._link.request("create", plan=plan)
        # A holder that hears nothing after its answer takes it that nobody heard the answer, and ends.
        self._learn(await self.ask("hello"))

    async def greet(self) -> bool:
        """Meet the holder of an earlier host process. Is it that of this sandbox? Raises BackendError."""
        about, _ = await self._link.request("hello")
        if about["id"] != self._spec.id:
            return False
        self._learn(about)
        self._ending = Ending(about["pid"])
        return True

    def _learn(self, about: dict[str, Any]) -> None:
        self._uid, self._gid = about["uid"], about["gid"]
        self._notes = tuple(about["notes"])
        self._env = about["image"]["env"]
        self._image = about["image"].get("reference", "")
        self._shells = tuple(about["image"]["shells"])

    def give(self, path: Path) -> None:
        """See `Sandbox`."""
        if self._uid != os.geteuid():
            give_tree(self._spec.folder, path, self._uid, self._gid)

    async def spawn(self, request: Spawn) -> HeldProcess:
        """See `Sandbox`."""
        about, fds = await self._link.request("spawn", **msgspec.to_builtins(request))
        return self._process(about, fds)

    async def dial(self, to: Tcp | Unix) -> int:
        """See `Sandbox`."""
        _, (fd,) = await self._link.request("socket", way="dial", **msgspec.to_builtins(to))
        return fd

    async def listen(self, at: Tcp | Unix, *, folder: bool = False) -> SocketListener:
        """See `Sandbox`."""
        place = {**msgspec.to_builtins(at), "folder": folder}
        about, fds = await self._link.request("socket", way="listen", **place)

        async def removed() -> None:
            if isinstance(at, Unix):
                await self._link.request("socket", way="remove", **place)

        return SocketListener(about["port"], fds, removed)

    async def processes(self) -> dict[str, Process]:
        """See `Sandbox`."""
        return {about["id"]: self._process(about, ()) for about in await self.ask("list")}

    async def cpu_seconds(self) -> dict[str, float]:
        """See `Sandbox`."""
        return dict(await self.ask("cpu"))

    def _process(self, about: dict[str, Any], fds: tuple[int, ...]) -> HeldProcess:
        name = about["id"]
        self._note(about)
        folder = self._spec.folder / "holder"
        spool = folder / f"{name}.out" if about["mode"] == "spool" else None
        scrollback = folder / f"{name}.scrollback" if about["keep"] else None
        return HeldProcess(self, name, spool, scrollback, fds)

    async def shells(self) -> tuple[str, ...]:
        """See `Sandbox`."""
        return self._shells

    async def ask(self, op: str, **body: Any) -> Any:
        """A request to the holder. Raises BackendError."""
        return (await self._link.request(op, **body))[0]

    async def changed(self) -> None:
        """Returns at the next news of any process. Raises BackendError `sandbox_lost` when there will be none."""
        if self._link.closed:
            raise BackendError("sandbox_lost", self._reason or "the sandbox was removed")
        await self._news.wait()

    async def lost(self) -> BackendError:
        """See `Sandbox`."""
        await self._gone.wait()
        if self._keeper is not None:
            return await self._keeper.why(self._spec.folder, self._reason)
        return BackendError("sandbox_lost", f"the sandbox died: {self._reason}")

    async def remove(self) -> None:
        """See `Sandbox`."""
        self._expected = True
        with contextlib.suppress(BackendError, TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await self._link.request("remove")
        await self._clear()

    async def discard(self, *, clear: bool) -> None:
        """After a failed `make`: end its holder and, with `clear`, remove what is there of the sandbox."""
        self._expected = True
        self._link.close()
        if self._ending:
            # It ends by itself: at once, or as soon as it has made what nobody wants.
            await self._ending.wait()
        self.let_go()
        if clear:
            await self._clear()

    async def _clear(self) -> None:
        folder = self._spec.folder
        await asyncio.to_thread(sweep_one, folder / "holder")
        if self._ending:
            await self._ending.wait()
        self.let_go()
        if self._keeper is not None:
            await self._keeper.clean(folder)
        for name in ("holder", "home"):
            await asyncio.to_thread(remove_tree, folder / name)

    def alive(self) -> None:
        """Its holder's patience begins anew."""
        self._link.tell("alive")

    def let_go(self) -> None:
        """Close the connection; the holder goes on."""
        self._expected = True
        self._link.close()
        if self._ending:
            self._ending.close()
        self._forget(self)

    # -- what the holder says ------------------------------------------------------------------------------------

    def _heard(self, event: frames.Message) -> None:
        if event["event"] == "lost":
            self._reason = event["reason"]
        else:
            self._note(event)

    def _note(self, about: dict[str, Any]) -> None:
        """Sizes and exits only grow: a late answer does not undo an event."""
        name = about["id"]
        self.sizes[name] = max(about["size"], self.sizes.get(name, 0))
        if about.get("exit"):
            self.exits[name] = msgspec.convert(about["exit"], Exit)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _ended(self) -> None:
        if not self._expected:
            self._reason = self._reason or _last_word(self._spec.folder) or "the sandbox's holder was killed"
            self._gone.set()
        self._wake()


def _last_word(folder: Path) -> str:
    try:
        return str(json.loads((folder / "holder" / frames.ENDED).read_bytes())["reason"])
    except (OSError, ValueError, KeyError):
        return ""
