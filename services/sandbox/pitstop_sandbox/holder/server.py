"""The holder of one sandbox: makes it, serves its socket, and ends with it.

Requests: create (once, from the one who started the holder), hello, spawn, signal, resize, socket, list, cpu, remove,
alive (has no answer). Events: exit, grew (throttled), lost. One thread; nothing here blocks for longer than a start of
the sandbox.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time

from pitstop_sandbox.holder import frames, kernel, places, start
from pitstop_sandbox.holder.files import Taken, log_to, take_lock, write_json
from pitstop_sandbox.holder.frames import Message
from pitstop_sandbox.holder.loop import Loop, reap
from pitstop_sandbox.holder.meters import Meters
from pitstop_sandbox.holder.peer import Peer
from pitstop_sandbox.holder.peers import Peers
from pitstop_sandbox.holder.processes import Processes, Record
from pitstop_sandbox.holder.sockets import Sockets
from pitstop_sandbox.holder.spool import Spool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from pitstop_sandbox.holder.places import Held

GREW_SECONDS: Final = 0.02
"""At most one `grew` event a process in this time."""
SPAWN_SECONDS: Final = 30.0
END_SECONDS: Final = 5.0
TICK_SECONDS: Final = 1.0


class Holder:
    """Before `create` it is a spare: it ends when the one who started it goes away."""

    def __init__(self, creator: socket.socket, starter_uid: int) -> None:
        self._loop = Loop()
        self._peers = Peers(self._loop, starter_uid, self._handle)
        self._starting: dict[int, tuple[Record, socket.socket, float]] = {}
        self._sandbox: Held | None = None
        self._plan: Message = {}
        self._owner = start.Owner(os.geteuid(), None, os.getegid())
        self._grew_at = 0.0
        self._grown: set[str] = set()
        self._read: dict[int, Record] = {}
        """Terminals that nobody reads but this holder, by descriptor."""
        self._over = False
        self._wanted = False
        self._processes: Processes
        self._sockets: Sockets
        self._peers.add(creator)

    def run(self) -> None:
        """Until the sandbox is removed, lost, or nobody's."""
        while not self._over:
            self._loop.turn(min(TICK_SECONDS, self._next_grew()))
            self._reap()
            self._mind_terminals()
            self._tell_grown()
            self._check_time()
        self._peers.last_words()

    # -- requests ------------------------------------------------------------------------------------------------

    def _handle(self, peer: Peer, request: Message) -> None:
        handler = getattr(self, f"_on_{request['op']}", None)
        if handler is None or (self._sandbox is None) != (request["op"] == "create"):
            raise ValueError(f"unexpected request {request['op']}")
        handler(peer, request)

    def _answer(self, peer: Peer, request: Message, body: Any) -> None:
        self._peers.send(peer, {"seq": request["seq"], "ok": body})

    def _on_create(self, peer: Peer, request: Message) -> None:
        try:
            self._create(request["plan"])
        except (start.StartError, Taken, OSError) as error:
            code = "sandbox_exists" if isinstance(error, Taken) else "create_failed"
            self._peers.send(peer, {"seq": request["seq"], "error": {"code": code, "text": str(error)}})
            self._over = True
            return
        self._answer(peer, request, None)

    def _on_hello(self, peer: Peer, request: Message) -> None:
        self._wanted = True
        self._answer(peer, request, self._describe())

    def _on_spawn(self, peer: Peer, request: Message) -> None:
        def answer(body: Message, fds: list[int]) -> None:
            self._peers.send(peer, {"seq": request["seq"], **body}, fds)

        if starting := self._processes.spawn(request, answer):
            record, tell = starting
            self._starting[tell.fileno()] = (record, tell, time.monotonic() + SPAWN_SECONDS)
            self._loop.watch(tell.fileno(), lambda: self._told(record, tell))

    def _on_signal(self, peer: Peer, request: Message) -> None:
        self._answer(peer, request, self._processes.signal(request["id"], request["number"], request["tree"]))

    def _on_resize(self, peer: Peer, request: Message) -> None:
        self._processes.resize(request["id"], request["columns"], request["rows"])
        self._answer(peer, request, None)

    def _on_socket(self, peer: Peer, request: Message) -> None:
        self._sockets.serve(request, lambda body, fds: self._peers.send(peer, {"seq": request["seq"], **body}, fds))

    def _on_list(self, peer: Peer, request: Message) -> None:
        records = self._processes.records.values()
        self._answer(peer, request, [each.describe() for each in records if each.pid])

    def _on_cpu(self, peer: Peer, request: Message) -> None:
        self._answer(peer, request, self._processes.cpu_seconds())

    def _on_alive(self, _peer: Peer, _request: Message) -> None:
        self._peers.beat()

    def _on_remove(self, peer: Peer, request: Message) -> None:
        self._end("removed")
        self._answer(peer, request, None)

    # -- the sandbox ---------------------------------------------------------------------------------------------

    def _create(self, plan: Message) -> None:
        os.chdir(plan["folder"])
        self._lock = take_lock()
        log_to("holder.log")
        self._owner = places.owner(plan, os.getpid())
        self._plan = plan
        write_json(frames.STATE, self._state([]))
        sandbox, place = places.take(plan, self._owner)
        try:
            self._processes = Processes(place, plan["limits"], plan["spool_limit"], Meters(plan["meters"]))
            self._sockets = Sockets(self._loop, place)
            write_json(frames.STATE, self._state(sandbox.pids()))
            self._peers.listen()
        except BaseException:
            start.kill_children()
            raise
        self._sandbox = sandbox
        self._loop.watch(sandbox.pidfd, self._lost)

    def _state(self, pids: list[list[int]]) -> Message:
        own = [os.getpid(), kernel.start_time(os.getpid())]
        return {"id": self._plan["id"], "boot": kernel.boot_id(), "pids": [*pids, own]}

    def _describe(self) -> Message:
        pid = os.getpid()
        return {"id": self._plan["id"], "uid": self._owner.uid, "gid": self._owner.gid, "pid": pid,
                "started": kernel.start_time(pid), "notes": self._plan["notes"],
                "image": self._plan["image"]}  # fmt: skip

    def _lost(self) -> None:
        self._end("the first process of the sandbox was killed", lost=True)

    def _check_time(self) -> None:
        now = time.monotonic()
        alone = self._peers.alone()
        if self._sandbox is None:
            self._over = self._over or alone > 0
        elif alone > 0 and not self._wanted:
            self._end("the host process went away while this was made")
        elif alone > self._plan["orphan_grace"]:
            self._end(f"no host process came back for {self._plan['orphan_grace']:g} s")
        elif self._peers.silent() > self._plan["silence"]:
            self._end(f"the host process has not been seen for {self._plan['silence']:g} s")
        for record, _, deadline in self._starting.values():
            if now > deadline:
                self._processes.kill_starting(record)

    def _end(self, reason: str, *, lost: bool = False) -> None:
        """Everything inside is killed and reaped before this returns."""
        if self._over or self._sandbox is None:
            return
        self._over = True
        self._sandbox.kill()
        deadline = time.monotonic() + END_SECONDS
        if not _reap_all(deadline):
            start.kill_children()
        select.select([self._sandbox.pidfd], [], [], max(0.0, deadline - time.monotonic()))
        for record in self._processes.records.values():
            if record.spool:
                record.spool.drain()
        # The folder may be gone before its holder: then there is nobody to tell.
        with contextlib.suppress(OSError):
            write_json(frames.ENDED, {"reason": reason, "time": time.time()})
            os.unlink(frames.SOCKET)  # noqa: PTH108
        if lost:
            self._peers.tell({"event": "lost", "reason": reason})

    # -- processes -----------------------------------------------------------------------------------------------

    def _told(self, record: Record, tell: socket.socket) -> None:
        if not self._processes.told(record, tell):
            del self._starting[tell.fileno()]
            self._loop.forget(tell.fileno())
            tell.close()
            if record.spool and record.spool.is_open:
                self._watch_spool(record, record.spool)

    def _reap(self) -> None:
        if self._over or self._sandbox is None:
            return
        for pid, status in reap():
            self._processes.reaped(pid, status)
        for record in self._processes.settle():
            assert record.exit
            if record.exit["signal"] == signal.SIGKILL and kernel.is_exiting(self._sandbox.first):
                # Killed by the end of the sandbox: that is not how the process itself would have ended.
                self._lost()
                return
            if record.spool:
                self._grown.discard(record.id)
            self._peers.tell({"event": "exit", **record.describe()})

    def _watch_spool(self, record: Record, spool: Spool) -> None:
        def pump() -> None:
            more = spool.pump()
            self._grown.add(record.id)
            if not more:
                self._loop.forget(spool.pipe)
                spool.close()

        self._loop.watch(spool.pipe, pump)

    def _mind_terminals(self) -> None:
        """While no host process is there, programs must be able to write to their terminals."""
        alone = self._sandbox is not None and self._peers.alone() > 0
        kept = [each for each in self._processes.records.values() if each.keep and each.master >= 0] if alone else []
        wanted = {each.master: each for each in kept}
        for fd, record in list(self._read.items()):
            if wanted.get(fd) is not record:
                self._loop.forget(fd)
                record.leave_terminal()
                del self._read[fd]
        for fd, record in wanted.items():
            if fd not in self._read:
                self._take_terminal(record)

    def _take_terminal(self, record: Record) -> None:
        def read() -> None:
            if record.read_terminal() < 0:
                self._loop.forget(record.master)

        record.take_terminal()
        self._read[record.master] = record
        self._loop.watch(record.master, read)

    def _next_grew(self) -> float:
        return self._grew_at + GREW_SECONDS - time.monotonic() if self._grown else TICK_SECONDS

    def _tell_grown(self) -> None:
        now = time.monotonic()
        if not self._grown or now - self._grew_at < GREW_SECONDS:
            return
        self._grew_at = now
        if self._peers.behind:
            return
        for name in self._grown:
            record = self._processes.records.get(name)
            if record and record.spool:
                self._peers.tell({"event": "grew", "id": name, "size": record.spool.size})
        self._grown.clear()


def _reap_all(deadline: float) -> bool:
    while time.monotonic() < deadline:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if pid == 0:
            time.sleep(0.001)
    return False
