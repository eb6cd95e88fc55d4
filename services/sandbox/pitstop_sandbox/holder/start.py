"""Starting a sandbox: bubblewrap, as an unprivileged user of its own when the holder was started by root."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket

from pitstop_sandbox.holder import kernel
from pitstop_sandbox.holder.frames import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NoReturn

FIRST_PROCESS: Final = [
    "/bin/sh",
    "-c",
    "exec 3<&0 </dev/null; echo ready; exec >/dev/null 2>&1; while :; do cat <&3 & wait $! && exit; done",
]
"""Process 1 of a sandbox. It cannot be killed from inside and reaps every orphan. Its standard input is a socket to the
holder, the lifeline: `cat` ends well when the holder is gone, however it went, and then so does the sandbox. (Killed by
somebody inside, `cat` is started again.) A parent-death signal would not do: bubblewrap's two processes are without
one for moments of their start, and the inner one waits for ever when the outer is killed then. A pipe would not do:
code inside could open its other end in /proc."""
START_SECONDS: Final = 20.0
_STAGE: Final = "/tmp"
_MAX_TEXT: Final = 4000


class StartError(Exception):
    """The sandbox could not be made; the text says why."""


class Started:
    """A sandbox that is ready: bubblewrap's own pid (a child of the holder), and process 1 of the sandbox."""

    def __init__(self, outer: int, first: int, lifeline: socket.socket) -> None:
        self._lifeline = lifeline
        self.outer = outer
        self.first = first
        self.first_started = kernel.start_time(first)
        self.outer_started = kernel.start_time(outer)
        self.pidfd = os.pidfd_open(first)

    def pids(self) -> list[list[int]]:
        """See `Held`."""
        return [[self.first, self.first_started], [self.outer, self.outer_started]]

    def kill(self) -> None:
        """See `Held`."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)


class Owner:
    """The host user of a sandbox: one of a range that nobody else has now, or the holder's own."""

    def __init__(self, uid: int, lock: socket.socket | None, gid: int | None = None) -> None:
        self.uid = uid
        self.gid = uid if gid is None else gid
        self._lock = lock

    @property
    def is_own(self) -> bool:
        """Is there nothing to change to?"""
        return self._lock is None

    def drop(self) -> None:
        """Become this user, for good."""
        if not self.is_own:
            os.setgroups([])
            os.setresgid(self.uid, self.uid, self.uid)
            os.setresuid(self.uid, self.uid, self.uid)


def choose_owner(uids: list[int] | None, first: int) -> Owner:
    """`uids`: lowest and highest. A name in the abstract socket space is the lock: it is gone with its holder.
    `first` spreads the tries. Raises StartError when all are taken."""
    if uids is None:
        return Owner(os.geteuid(), None, os.getegid())
    low, high = uids
    count = high - low + 1
    for step in range(count):
        uid = low + (first + step) % count
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            lock.bind(f"\0pitstop-sandbox-uid-{uid}")
        except OSError:
            lock.close()
            continue
        return Owner(uid, lock)
    raise StartError(f"all {count} users of the range {low}-{high} are taken; give a larger PITSTOP_SANDBOX_UIDS")


def give(path: str, uid: int) -> None:
    """Make the user the owner of a tree. Follows no link: what is in it may be hostile."""
    os.chown(path, uid, uid, follow_symlinks=False)
    if not os.path.isdir(path) or os.path.islink(path):  # noqa: PTH112, PTH114
        return
    for _, folders, files, fd in os.fwalk(path, follow_symlinks=False):
        for name in (*folders, *files):
            os.chown(name, uid, uid, dir_fd=fd, follow_symlinks=False)


def start(plan: Message, owner: Owner) -> Started:
    """Run bubblewrap and wait until process 1 runs. Raises StartError, and then nothing is left."""
    lifeline, inner_end = socket.socketpair()
    ready, ready_end = os.pipe()
    # Files, not pipes: bubblewrap must not die of writing to a holder that was killed.
    errors, status = os.memfd_create("errors"), os.memfd_create("status")
    try:
        outer = os.fork()
        if outer == 0:
            _run(plan, owner, inner_end.fileno(), ready_end, errors, status)
        os.close(ready_end)
        inner_end.close()
        if _read(ready, START_SECONDS).startswith(b"ready"):
            return Started(outer, _child_pid(os.pread(status, _MAX_TEXT, 0)), lifeline)
        text = os.pread(errors, _MAX_TEXT, 0).decode(errors="replace").strip()
        raise StartError(text or f"bubblewrap was not ready after {START_SECONDS:g} s")
    except BaseException:
        lifeline.close()
        kill_children()
        raise
    finally:
        for fd in (ready, errors, status):
            os.close(fd)


def kill_children() -> None:
    """Kill and reap every child of this process, and the orphans that become its children by that."""
    while children := kernel.children():
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, 0)


def _read(fd: int, seconds: float) -> bytes:
    if not select.select([fd], [], [], seconds)[0]:
        return b""
    return os.read(fd, _MAX_TEXT)


def _child_pid(status: bytes) -> int:
    """From the first line of bubblewrap's JSON status."""
    for line in status.splitlines():
        message = json.loads(line)
        if "child-pid" in message:
            return int(message["child-pid"])
    return 0


def _run(plan: Message, owner: Owner, lifeline: int, ready: int, errors: int, status: int) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        os.setsid()
        os.umask(0o022)
        os.dup2(lifeline, 0)
        os.dup2(ready, 1)
        os.dup2(errors, 2)
        os.set_inheritable(status, True)
        program, binds = plan["bwrap"], plan["binds"]
        if not owner.is_own:
            program, binds = _stage(plan["bwrap"], plan["bwrap_root"], plan["binds"])
        argv = [program, *plan["head"], *_bind_arguments(binds), *_file_arguments(plan), *plan["tail"]]
        argv += ["--json-status-fd", str(status), "--", *FIRST_PROCESS]
        owner.drop()
        kernel.default_signals()
        os.execve(program, argv, {"PATH": os.defpath})
    except BaseException as error:
        os.write(2, str(error).encode(errors="replace"))
    os._exit(1)


def _stage(program: str, root: str, binds: list[list[str]]) -> tuple[str, list[list[str]]]:
    """In an own mount namespace, show the unprivileged user what it must reach, and only that, at open paths: the
    job's folder may well be under a folder that only root may enter."""
    kernel.unshare_mounts()
    sources = [root, *(source for source, _, _ in binds)]
    fds = [os.open(source, os.O_PATH | os.O_CLOEXEC) for source in sources]
    kernel.mount("tmpfs", _STAGE, kernel.MS_NOSUID | kernel.MS_NODEV, kind="tmpfs", data="mode=0755")
    staged = []
    for number, fd in enumerate(fds):
        place = f"{_STAGE}/{number}"
        if os.path.isdir(f"/proc/self/fd/{fd}"):  # noqa: PTH112
            os.mkdir(place, 0o755)  # noqa: PTH102
        else:
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))
        kernel.mount(f"/proc/self/fd/{fd}", place, kernel.MS_BIND | kernel.MS_REC)
        staged.append(place)
    moved = [[place, target, how] for place, (_, target, how) in zip(staged[1:], binds, strict=True)]
    return staged[0] + program.removeprefix(root), moved


def _bind_arguments(binds: list[list[str]]) -> list[str]:
    return [word for source, target, how in binds for word in (how, source, target)]


def _file_arguments(plan: Message) -> list[str]:
    """Small files of the host's as copies, and files with a content of our own: cheaper than a mount each."""
    arguments = []
    for path in plan["copies"]:
        fd = os.open(path, os.O_RDONLY)
        os.set_inheritable(fd, True)
        arguments += ["--perms", "0644", "--file", str(fd), path]
    for path, content in plan["data"].items():
        fd = os.memfd_create("pitstop", 0)
        os.write(fd, content.encode())
        os.lseek(fd, 0, os.SEEK_SET)
        arguments += ["--perms", "0644", "--file", str(fd), path]
    return arguments
