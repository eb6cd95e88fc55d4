"""A container that runs, taken up by its holder: processes are started in it by `runc exec --detach`, as the engine
itself would, but as children of the holder. So their pipes, terminals and exit codes are ours, whatever becomes of the
engine, and their seccomp filter, capabilities and cgroup are those of the container.

What runc starts is a shell with a few lines of ours that waits for us, finds the folder and the program, and becomes
it. All that it can say is why it could not: it runs among hostile processes of its own user.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import socket

from pitstop_sandbox.holder import inside, kernel
from pitstop_sandbox.holder.frames import Message
from pitstop_sandbox.holder.inside import fail, forked, send_fds
from pitstop_sandbox.holder.start import StartError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NoReturn

LIVE_SECONDS: Final = 60
"""For a start, all in all; the holder gives up on the process before."""
_GATE: Final = 3
"""Where the waiting shell finds its socket: the first descriptor that runc passes on."""
_ABOVE: Final = 16
_MAX_TEXT: Final = 4000
_MAX_PID: Final = 32
_MAX_ARGUMENT: Final = 32 * 4096 - 1
"""The kernel's own bound on one argument or variable, bytes."""
TOO_LARGE: Final = "the arguments and the environment of {} are too large together"
_SHELL: Final = """
read -r _pitstop_go <&3 || exit 127
_pitstop_say() { printf %s "$1" >&3; exit 127; }
umask "$2"
cd -- "$1" 2>/dev/null || {
    [ -e "$1" ] || _pitstop_say "cannot start in the folder $1: No such file or directory"
    [ -d "$1" ] || _pitstop_say "cannot start in the folder $1: Not a directory"
    _pitstop_say "cannot start in the folder $1: Permission denied"
}
shift 2
case "$1" in
*/*) _pitstop_file=$1 _pitstop_near= ;;
*)
    _pitstop_file= _pitstop_near=" (PATH is $PATH)" _pitstop_ifs=$IFS
    set -f; IFS=:
    for _pitstop_at in $PATH; do
        _pitstop_at=${_pitstop_at:-.}/$1
        [ -f "$_pitstop_at" ] || continue
        _pitstop_file=$_pitstop_at
        [ ! -x "$_pitstop_at" ] || break
    done
    IFS=$_pitstop_ifs; set +f ;;
esac
[ -e "$_pitstop_file" ] || _pitstop_say "there is no program $1 here$_pitstop_near"
[ -f "$_pitstop_file" ] && [ -x "$_pitstop_file" ] || _pitstop_say "cannot start $1: it may not be executed"
"""
"""Arguments: folder, umask, then the program and its own. For any POSIX shell; the names are its own, so that none is
one of the program's variables."""
_BECOME: Final = 'exec "$@" 3>&-'


class Container:
    """A `Place` and a `Held` (places.py). The plan: `runc` {binary, root, id, process}, `pid` and `started` of process
    1, `lifeline`: the fifo whose end is the container's, `user` {uid, gid, groups}. Raises StartError."""

    def __init__(self, plan: Message) -> None:
        self._runc: Message = plan["runc"]
        self._user: Message = plan["user"]
        self.first: int = plan["pid"]
        self.first_started: int = plan["started"]
        try:
            self.pidfd = os.pidfd_open(self.first)
            self._namespaces = [os.open(f"/proc/{self.first}/ns/{name}", os.O_RDONLY) for name in ("net", "mnt")]
            # With both ends open, opening it waits for nobody; the container hears of it when all ours are closed.
            self._lifeline = os.open(plan["lifeline"], os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError as error:
            raise StartError(f"the container has ended: {error}") from None
        if kernel.start_time(self.first) != self.first_started:
            raise StartError("the container has ended")

    def pids(self) -> list[list[int]]:
        """See `Held`."""
        return [[self.first, self.first_started]]

    def kill(self) -> None:
        """See `Held`."""
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return

    def visit(self) -> None:
        """See `Place`."""
        os.close(self._lifeline)
        for fd in self._namespaces:
            kernel.setns(fd)
        kernel.drop_capabilities(self._become)
        kernel.set_dumpable(False)

    def _become(self) -> None:
        uid, gid = self._user["uid"], self._user["gid"]
        os.setgroups(self._user["groups"])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)

    def enter(self, request: Message, limits: Message, fds: tuple[int, ...]) -> socket.socket:
        """See `Place`."""
        return forked(lambda tell: self._start(tell, request, limits, fds))

    def _start(self, tell: socket.socket, request: Message, limits: Message, fds: tuple[int, ...]) -> NoReturn:
        try:
            os.close(self._lifeline)
            kernel.default_signals()
            signal.alarm(LIVE_SECONDS)
            gate, inner = socket.socketpair()
            pid, master = self._run(request, self._process(request, limits), fds, inner)
            inner.close()
            if master:
                inside.set_up(master[0], request)
            send_fds(tell, b"p%d" % pid, master)
            if said := _through(gate):
                fail(tell, said)
            os._exit(0)
        except BaseException as error:
            fail(tell, str(error))

    def _run(
        self, request: Message, process: Message, fds: tuple[int, ...], inner: socket.socket
    ) -> tuple[int, list[int]]:
        """Have runc start the shell: its pid, and the master of its terminal."""
        name = f"start-{os.getpid()}"
        errors = os.memfd_create("errors")
        arguments = ["--detach", "--preserve-fds", "1", "--pid-file", f"{name}.pid"]
        listener = None
        if request["mode"] == "pty":
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(f"{name}.tty")
            listener.listen(1)
            arguments += ["--console-socket", f"{name}.tty"]
        try:
            runc = os.fork()
            if runc == 0:
                self._exec(arguments, process, fds, inner.fileno(), errors)
            if os.waitpid(runc, 0)[1]:
                raise OSError(_reason(os.pread(errors, 65536, 0), request["argv"][0]))
            with open(f"{name}.pid") as file:  # noqa: PTH123
                pid = int(file.read(_MAX_PID))
            return pid, [_receive(listener)] if listener else []
        finally:
            for path in (f"{name}.pid", *([f"{name}.tty"] if listener else [])):
                _remove(path)

    def _exec(self, arguments: list[str], process: Message, fds: tuple[int, ...], gate: int, errors: int) -> NoReturn:
        try:
            described = os.memfd_create("process")
            os.write(described, json.dumps(process).encode())
            null = os.open(os.devnull, os.O_RDWR)
            above = [fcntl.fcntl(fd, fcntl.F_DUPFD, _ABOVE)
                     for fd in (*(fds or (null, null, null)), gate, described, errors)]  # fmt: skip
            for number, fd in enumerate(above[: _GATE + 1]):
                os.dup2(fd, number)
            os.set_inheritable(above[4], True)
            argv = [self._runc["binary"], "--root", self._runc["root"], "--log", f"/proc/self/fd/{above[5]}",
                    "--log-format", "json", "exec", *arguments, "--process", f"/proc/self/fd/{above[4]}",
                    self._runc["id"]]  # fmt: skip
            os.closerange(_GATE + 1, _ABOVE)
            for fd in above[:4]:
                os.close(fd)
            os.execve(argv[0], argv, {"PATH": os.defpath})
        except BaseException as error:
            os.write(errors, json.dumps({"level": "error", "msg": str(error)}).encode())
        os._exit(1)

    def _process(self, request: Message, limits: Message) -> Message:
        """The container's own first process, as runc describes it, but for what it runs, who it is, and its bounds."""
        argv, env = request["argv"], request["env"]
        if any("\0" in each for each in (*argv, *env, *env.values(), request["cwd"])):
            raise ValueError("an argument, a variable or the folder has a null byte in it")
        if odd := [name for name in env if not name or "=" in name]:
            raise ValueError(f"{odd[0]!r} cannot be the name of a variable of the environment")
        if max(map(_size, (*argv, *(f"{name}={value}" for name, value in env.items())))) > _MAX_ARGUMENT:
            raise ValueError(TOO_LARGE.format(argv[0]))
        own = self._runc["process"]
        # runc sets HOME where there is none, and cd notes where it came from.
        unset = [name for name in ("HOME", "OLDPWD") if name not in env]
        script = _SHELL + (f"unset {' '.join(unset)}\n" if unset else "") + _BECOME
        return {
            **own,
            "terminal": request["mode"] == "pty",
            "user": {"uid": self._user["uid"], "gid": self._user["gid"], "additionalGids": self._user["groups"]},
            "args": ["/bin/sh", "-c", script, "pitstop", request["cwd"], f"{request['umask']:04o}", *argv],
            "env": [f"{name}={value}" for name, value in {"PATH": os.defpath, **env}.items()],
            "cwd": "/",
            "capabilities": {"bounding": own.get("capabilities", {}).get("bounding", [])},
            "rlimits": _rlimits(own.get("rlimits", []), limits, request["mark"]),
        }


def _size(text: str) -> int:
    return len(text.encode(errors="surrogateescape"))


def _through(gate: socket.socket) -> str:
    """Let the shell go on. Empty when it has become the program, else why not."""
    try:
        gate.sendall(b"\n")
        return gate.recv(_MAX_TEXT).decode(errors="replace")
    except ConnectionError:
        return "it ended before it ran; its arguments and its environment may be too large together"


def _rlimits(own: list[Message], limits: Message, mark: int) -> list[Message]:
    """Processes and memory are bound by the container's cgroup: RLIMIT_NPROC would count those of other containers.
    None is above this process's own: not every root may raise them."""
    wanted = {"RLIMIT_CORE": 0}
    for name, most in (("RLIMIT_NOFILE", limits["open_files"]), ("RLIMIT_FSIZE", limits["file_size"])):
        hard = resource.getrlimit(getattr(resource, name))[1]
        if most > 0:
            wanted[name] = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if mark and resource.getrlimit(kernel.RLIMIT_LOCKS)[1] == resource.RLIM_INFINITY:
        wanted["RLIMIT_LOCKS"] = mark  # see kernel.set_mark
    kept = [each for each in own if each["type"] not in wanted]
    return kept + [{"type": name, "hard": most, "soft": most} for name, most in wanted.items()]


def _receive(listener: socket.socket) -> int:
    """The master of the terminal: runc has sent it and gone."""
    listener.setblocking(False)
    connection, _ = listener.accept()
    with connection:
        _, fds = inside.receive_fds(connection, 4096, 1)
    listener.close()
    if not fds:
        raise OSError("runc made no terminal")
    return fds[0]


def _reason(log: bytes, program: str) -> str:
    """From runc's log: its last error."""
    text = "runc says nothing of why"
    for line in log.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry.get("level") in ("error", "fatal", "panic"):
            text = str(entry.get("msg"))[:_MAX_TEXT]
    if "argument list too long" in text:
        return TOO_LARGE.format(program)
    return f"the container could not be entered: {text}"


def _remove(path: str) -> None:
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        return
