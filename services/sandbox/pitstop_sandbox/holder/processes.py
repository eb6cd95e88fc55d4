"""The processes of one sandbox: started by id, each once; how they ended; their spools and terminals."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable

from pitstop_sandbox.holder import inside, kernel, signals
from pitstop_sandbox.holder.frames import Message
from pitstop_sandbox.holder.meters import Meters
from pitstop_sandbox.holder.scrollback import Scrollback
from pitstop_sandbox.holder.spool import Spool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from pitstop_sandbox.holder.places import Place

MAX_PROCESSES: Final = 4096
"""Living ones started from outside; what they start themselves is bound by the limits of the sandbox."""
KEEP_ENDED: Final = 1024
"""Ended processes without a spool that are remembered; with a spool, all are."""

TERMINAL_CHUNK: Final = 64 * 1024

Answer = Callable[[Message, list[int]], None]


class Record:
    """One process. `pid` is 0 until it runs, and `exit` is set once its parent, the holder, has reaped it."""

    def __init__(self, request: Message, fds: list[int]) -> None:
        self.id: str = request["id"]
        self.mode: str = request["mode"]
        self.pid = 0
        self.started = 0
        self.mark = inside.new_mark() if request["mode"] == "spool" else 0
        """What all processes of a step bear: by it those are found that have left their parent and session."""
        self.exit: Message | None = None
        self.met: dict[str, int] = {}
        """What the meters said before it ran."""
        self.spool: Spool | None = None
        self.master = -1
        self.keep: bool = request["mode"] == "pty" and request["keep"]
        self.scrollback: Scrollback | None = None
        self.error = ""
        self.waiting: list[Answer] = []
        self.fds = fds
        """For the host process, until they are sent."""

    def describe(self) -> Message:
        """For `list` and for the answer to `spawn`."""
        size = self.spool.size if self.spool else 0
        return {"id": self.id, "mode": self.mode, "exit": self.exit, "size": size, "keep": self.keep}

    def make_scrollback(self) -> None:
        """For whoever reads the terminal first."""
        with contextlib.suppress(OSError):
            Scrollback(f"{self.id}.scrollback").close()

    def take_terminal(self) -> None:
        """Nobody else reads it from now on."""
        os.set_blocking(self.master, False)
        with contextlib.suppress(OSError):  # on a full disk the program goes on, and what it shows is lost
            self.scrollback = Scrollback(f"{self.id}.scrollback")

    def read_terminal(self) -> int:
        """Keep what the terminal shows now: how many bytes; -1 when there is no more to come."""
        try:
            data = os.read(self.master, TERMINAL_CHUNK)
        except BlockingIOError:
            return 0
        except OSError:  # EIO: no program has the terminal open
            return -1
        if self.scrollback is not None:
            self.scrollback.append(data)
        return len(data) or -1

    def leave_terminal(self) -> None:
        """Somebody else reads it from now on."""
        if self.scrollback is not None:
            self.scrollback.close()
            self.scrollback = None

    def take_fds(self) -> list[int]:
        """What the host process gets: pipe ends once, a new master of the terminal each time."""
        fds, self.fds = self.fds, []
        return [os.dup(self.master)] if self.master >= 0 else fds


class Processes:
    """`spawn` and what follows from it. The holder's loop says when something is readable or has ended."""

    def __init__(self, place: Place, limits: Message, spool_limit: int, meters: Meters) -> None:
        self._place = place
        self._meters = meters
        self._limits = limits
        self._spool_limit = spool_limit
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._by_pid: dict[int, Record] = {}
        self._early: dict[int, int] = {}
        self._starting = 0
        self.records: dict[str, Record] = {}

    def spawn(self, request: Message, answer: Answer) -> tuple[Record, socket.socket] | None:
        """Start a process; the answer comes when it runs. None: there is one of this id, or none can be started."""
        if record := self.records.get(request["id"]):
            if record.pid:
                answer({"ok": record.describe()}, record.take_fds())
            else:
                record.waiting.append(answer)
            return None
        if not _is_name(request["id"]):
            answer(_refusal(f"{request['id']!r} cannot name a process: use letters, digits, '.', '_' and '-'"), [])
            return None
        if len(self._by_pid) >= MAX_PROCESSES:
            answer(_refusal(f"{MAX_PROCESSES} processes were started from outside and still run; end some"), [])
            return None
        record, child_fds = self._prepare(request)
        request["mark"] = record.mark or self._mark_of_last_step()
        record.waiting.append(answer)
        self.records[record.id] = record
        try:
            tell = self._place.enter(request, self._limits, child_fds)
        except OSError as error:
            self._failed(record, f"no process could be started: {error}")
            return None
        finally:
            for fd in set(child_fds) - {self._null}:
                os.close(fd)
        self._starting += 1
        return record, tell

    def _mark_of_last_step(self) -> int:
        """For a shell, which is to have the limits of the step before it, and nothing ends that step's tree any more.
        While a step runs, what is started beside it stays out of its tree."""
        last = next((each for each in reversed(self.records.values()) if each.mark), None)
        return last.mark if last and last.exit else 0

    def _prepare(self, request: Message) -> tuple[Record, tuple[int, ...]]:
        if request["mode"] == "pipes":
            stdin, to_stdin = os.pipe()
            from_stdout, stdout = os.pipe()
            from_stderr, stderr = os.pipe()
            return Record(request, [to_stdin, from_stdout, from_stderr]), (stdin, stdout, stderr)
        record = Record(request, [])
        if request["mode"] == "pty":
            return record, ()
        from_output, output = os.pipe()
        record.spool = Spool(from_output, f"{record.id}.out", self._spool_limit)
        record.met = self._meters.read()
        return record, (self._null, output, output)

    def told(self, record: Record, tell: socket.socket) -> bool:
        """What a starting process says. False when it has said all."""
        try:
            data, fds = inside.receive_fds(tell, 8192, 1)
        except BlockingIOError:
            return True
        except OSError:
            data, fds = b"", []
        if data[:1] == b"p":
            record.pid = int(data[1:])
            record.started = kernel.start_time(record.pid)
            self._by_pid[record.pid] = record
            record.master = fds[0] if fds else -1
            if record.keep and fds:  # made by this one's user: it may have to go on with it
                record.make_scrollback()
        elif data[:1] == b"e":
            record.error = data[1:].decode(errors="replace")
        else:
            self._said_all(record)
            return False
        return True

    def _said_all(self, record: Record) -> None:
        self._starting -= 1
        if record.error or not record.pid:
            self._by_pid.pop(record.pid, None)
            self._early.pop(record.pid, None)
            self._failed(record, record.error or "the process was killed before it ran")
            return
        first, *others = record.waiting
        first({"ok": record.describe()}, record.take_fds())
        for answer in others:
            answer({"ok": record.describe()}, record.take_fds())
        record.waiting.clear()

    def _failed(self, record: Record, text: str) -> None:
        del self.records[record.id]
        if record.spool:
            record.spool.close()
        for fd in (*record.fds, *([record.master] if record.master >= 0 else [])):
            os.close(fd)
        for answer in record.waiting:
            answer(_refusal(text), [])

    def reaped(self, pid: int, status: int) -> None:
        """A child of the holder ended; `settle` says of which processes that was the end."""
        if pid in self._by_pid or self._starting:
            self._early[pid] = status

    def settle(self) -> list[Record]:
        """The processes that have run and ended since; their output is all in the spool."""
        ended = []
        for pid, status in list(self._early.items()):
            record = self._by_pid.get(pid)
            if record and not record.waiting:
                del self._early[pid], self._by_pid[pid]
                self._end(record, os.waitstatus_to_exitcode(status))
                ended.append(record)
        if not self._starting:
            self._early.clear()
        self._prune()
        return ended

    def _end(self, record: Record, code: int) -> None:
        record.exit = {"code": code, "signal": 0} if code >= 0 else {"code": 128 - code, "signal": -code}
        if record.spool:
            record.spool.drain()
            if hits := self._meters.hits(record.met, failed=code != 0):
                record.exit["hits"] = hits
        if record.master >= 0:
            while record.scrollback is not None and record.read_terminal() > 0:
                pass
            os.close(record.master)
            record.master = -1

    def _prune(self) -> None:
        ended = [each.id for each in self.records.values() if each.exit and not each.spool]
        for name in ended[:-KEEP_ENDED]:
            del self.records[name]

    def signal(self, name: str, number: int, tree: bool) -> int:
        """To a process, or to its process group (once it has ended: to what is left of its session). With a spool, a
        tree is all that it has started. Returns how many there are of that; 0 for what is not counted."""
        record = self.records.get(name)
        if record is None or record.pid <= 1:
            return 0
        if tree and record.mark:
            return signals.send_to_all(record.pid, record.started, record.mark, number)
        if record.pid in self._early:
            return 0
        if record.exit is None:
            signals.send(record.pid, number, group=tree)
        elif tree:
            signals.send_to_session(record.pid, number)
        return 0

    def resize(self, name: str, columns: int, rows: int) -> None:
        """The new size of a terminal, if it is there still."""
        record = self.records.get(name)
        if record and record.master >= 0:
            inside.set_size(record.master, columns, rows)

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time so far of each that runs, with all that it started."""
        running = {each.pid: each.id for each in self.records.values() if each.pid and not each.exit}
        return {running[pid]: used for pid, used in kernel.cpu_seconds(list(running)).items()}

    def kill_starting(self, record: Record) -> None:
        """It has not run after a long time: nobody waits for it any more."""
        if record.pid > 1:
            signals.send(record.pid, signal.SIGKILL, group=False)


def _is_name(text: str) -> bool:
    return 0 < len(text) <= 128 and text[0] != "." and all(each.isalnum() or each in "._-" for each in text)


def _refusal(text: str) -> dict[str, Any]:
    return {"error": {"code": "spawn_failed", "text": text}}
