"""Forwards of one connection: every socket, listener and agent path is made inside the sandbox, through its port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import asyncssh

from pitstop_sandbox.backends.port import Accepted, BackendError, Listener, Tcp, Unix
from pitstop_sandbox.channels.pace import Pace
from pitstop_sandbox.channels.rules import Rules
from pitstop_sandbox.channels.stream import Stream
from pitstop_sandbox.channels.waiting import passed, track
from pitstop_sandbox.ports import Session, SessionHost, Use

log = logging.getLogger(__name__)

MAX_LISTENERS: Final = 16
"""Of one connection, its agent's among them."""
FIRST_FREE_PORT: Final = 1024
"""Those below are for the privileged."""
_CONNECT_FAILED: Final = 2

Open = Callable[[Callable[[], Stream], Accepted], Awaitable[object]]
"""Opens a channel to the client for a connection that came in. Raises asyncssh.ChannelOpenError."""


class Forwards:
    """Dials and listens for one person. `tasks` holds what still runs for it."""

    def __init__(self, host: SessionHost, person: Session, rules: Rules, tasks: set[asyncio.Task[None]]) -> None:
        self._host = host
        self._person = person
        self._tasks = tasks
        self._streams: set[Stream] = set()
        self._listeners: set[Remote] = set()
        self._holds: set[str] = set()
        self._agent: Remote | None = None
        self.over = False
        self.rules = rules
        self.notes: list[str] = []
        """What was refused without a word in the protocol, for a terminal to show."""
        self.agent_path = ""
        """Of the agent's socket inside; empty without one."""

    async def dial(self, to: Tcp | Unix) -> Stream:
        """A connection inside. Raises asyncssh.ChannelOpenError with the reason."""
        self._host.used(self._person, Use("dial", _name(to)))
        try:
            fd = await self._host.dial(to)
        except BackendError as error:
            raise asyncssh.ChannelOpenError(_CONNECT_FAILED, f"pitstop: {_name(to)}: {error}") from None
        return self._stream(fd)

    async def listen(self, at: Tcp | Unix, open_channel: Open, *, folder: bool = False) -> Remote | None:
        """A listener inside, whose connections go to the client; None, with a note, when it cannot be."""
        if len(self._listeners) >= MAX_LISTENERS:
            self._no(at, f"{MAX_LISTENERS} are open in this connection")
            return None
        self._host.used(self._person, Use("agent" if folder else "listen", _name(at)))
        remote = Remote()
        self._listeners.add(remote)
        try:
            remote.listener = await self._host.listen(at, folder=folder)
        except BackendError as error:
            self._listeners.discard(remote)
            self._no(at, str(error))
            return None
        except BaseException:
            self._listeners.discard(remote)
            raise
        remote.ended = self._listener_ended
        track(self._tasks, remote.serve(lambda came: self._came(came, open_channel)))
        if self.over:  # it ended meanwhile
            remote.close()
        return remote

    async def listen_for_agent(self, open_channel: Open) -> bool:
        """A socket for the client's agent, in a folder that only its user may enter. One a connection."""
        if fault := self.rules.fault("agent"):
            self.note(fault)
            return False
        if self._agent is None:
            path = f"/tmp/ssh-{secrets.token_hex(8)}/agent"
            self._agent = await self.listen(Unix(path), open_channel, folder=True)
            self.agent_path = path if self._agent is not None else ""
        return self._agent is not None

    def hold(self, why: str) -> None:
        """Send the client nothing more for now."""
        self._holds.add(why)
        for stream in self._streams:
            stream.hold(why)

    def release(self, why: str) -> None:
        """Take a hold back."""
        self._holds.discard(why)
        for stream in self._streams:
            stream.release(why)

    def note(self, text: str) -> None:
        """For a terminal, once."""
        line = f"pitstop: {text}"
        if line not in self.notes:
            self.notes.append(line)

    @property
    def working(self) -> bool:
        """Somebody is connected through it."""
        return bool(self._streams)

    def close(self) -> None:
        """End everything. Idempotent; what takes time is in `tasks`."""
        self.over = True
        for remote in list(self._listeners):
            remote.close()
        for stream in list(self._streams):
            stream.close()

    def _stream(self, fd: int) -> Stream:
        stream = Stream(fd, self._host.moved, self._streams.discard)
        for why in self._holds:
            stream.hold(why)
        self._streams.add(stream)
        if self.over:
            stream.close()
            raise asyncssh.ChannelOpenError(_CONNECT_FAILED, "pitstop: the connection is over")
        return stream

    async def _came(self, came: Accepted, open_channel: Open) -> None:
        try:
            stream = self._stream(came.fd)
        except asyncssh.ChannelOpenError:
            return
        try:
            await open_channel(lambda: stream, came)
        except (asyncssh.ChannelOpenError, OSError):
            stream.close()
        except BaseException:
            stream.close()
            raise

    def _no(self, at: Tcp | Unix, why: str) -> None:
        if isinstance(at, Tcp) and 0 < at.port < FIRST_FREE_PORT:
            why += f"; take a port of {FIRST_FREE_PORT} or more"
        self.note(f"cannot listen on {_name(at)}: {why}")

    def _listener_ended(self, remote: Remote) -> None:
        self._listeners.discard(remote)
        if remote is self._agent:
            self._agent, self.agent_path = None, ""


class Remote(asyncssh.SSHListener):
    """A listener inside, as asyncssh keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.listener: Listener
        self.ended: Callable[[Remote], None] = lambda _remote: None
        self._over = asyncio.Event()

    def get_port(self) -> int:
        """The port that was taken."""
        return self.listener.port

    def close(self) -> None:
        """Listen no more; what came in lives on."""
        self._over.set()

    async def wait_closed(self) -> None:
        """asyncssh's."""

    async def serve(self, came: Callable[[Accepted], Coroutine[Any, Any, None]]) -> None:
        """Until it is closed: each connection in its own task."""
        loop, pace = asyncio.get_running_loop(), Pace()
        over: asyncio.Task[Any] = asyncio.ensure_future(self._over.wait())
        opening: set[asyncio.Task[None]] = set()
        try:
            while not self._over.is_set():
                # Who connects inside may be hostile: the rest waits in the socket's queue.
                await passed(self._over, pace.wait(loop.time()))
                pace.take(loop.time())
                accepting = asyncio.ensure_future(self.listener.accept())
                try:
                    await asyncio.wait({accepting, over}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    accepting.cancel()  # unless it is done
                if over.done() and not accepting.done():
                    break
                task = asyncio.ensure_future(came(await accepting))
                opening.add(task)
                task.add_done_callback(opening.discard)
        except BackendError as error:
            log.info("a listener in a sandbox ended: %s", error)
        finally:
            self.ended(self)
            for task in (over, *opening):
                task.cancel()
            await asyncio.gather(over, *opening, return_exceptions=True)
            with contextlib.suppress(BackendError):
                await self.listener.aclose()


def _name(address: Tcp | Unix) -> str:
    return address.path if isinstance(address, Unix) else f"{address.host or 'localhost'}:{address.port}"
