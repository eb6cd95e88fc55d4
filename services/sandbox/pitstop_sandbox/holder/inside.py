"""Starting a process inside a running sandbox, without privilege on the host.

bubblewrap nests two user namespaces: the outer owns all other namespaces, the inner maps the user. So: join the outer
first, then the others, then the inner. The first child joins and gives up every capability; only then does it fork
into the sandbox's pid namespace, so nothing that has a privilege is ever seen from inside. It is not dumpable until
it execs, so nobody inside can look into it or trace it. The first child ends at once, and the process becomes the
holder's own child (the holder adopts orphans): its exit status is exact.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import resource
import signal
import socket
import struct
import termios

from pitstop_sandbox.holder import kernel, modes
from pitstop_sandbox.holder.frames import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, NoReturn

_TIOCSPTLCK: Final = 0x40045431
_TIOCGPTN: Final = 0x80045430
_ALL_SIGNALS: Final = signal.valid_signals()
_MAX_TEXT: Final = 4000


class Namespaces:
    """A sandbox's namespaces, held open: entering needs no look into /proc, and no pid that might be another's.
    A `Place` (`places.py`)."""

    def __init__(self, pid: int) -> None:
        self._fds = {name: _open_namespace(pid, name) for name in ("ipc", "uts", "net", "cgroup", "pid", "mnt", "user")}
        self._outer = fcntl.ioctl(self._fds["pid"], kernel.NS_GET_USERNS)
        os.set_inheritable(self._outer, False)

    def join(self) -> None:
        """Of the calling process; its children are in the pid namespace too."""
        kernel.setns(self._outer)
        for fd in self._fds.values():
            kernel.setns(fd)

    def visit(self) -> None:
        """See `Place`."""
        self.join()
        kernel.drop_capabilities()

    def enter(self, request: Message, limits: Message, fds: tuple[int, ...]) -> socket.socket:
        """See `Place`."""
        return forked(lambda tell: _first_child(tell, self, request, limits, fds))


def _open_namespace(pid: int, name: str) -> int:
    return os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)


def forked(child: Callable[[socket.socket], NoReturn]) -> socket.socket:
    """Run `child` in a child of this process, with a socket on which it tells what became of it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # No handler of the holder may run in the children.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ALL_SIGNALS)
    try:
        if os.fork() == 0:
            signal.set_wakeup_fd(-1)
            child(theirs)
    except OSError:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
    ours.setblocking(False)
    return ours


def _first_child(
    tell: socket.socket, namespaces: Namespaces, request: Message, limits: Message, fds: tuple[int, ...]
) -> NoReturn:
    try:
        namespaces.join()
        kernel.drop_capabilities()
        master: list[int] = []
        if request["mode"] == "pty":
            master, fds = _open_pty(request)
        pid = os.fork()
        if pid == 0:
            _become(tell, request, limits, fds)
        send_fds(tell, b"p%d" % pid, master)
        os._exit(0)
    except BaseException as error:
        fail(tell, f"the sandbox could not be entered: {error}")


def _open_pty(request: Message) -> tuple[list[int], tuple[int, ...]]:
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    (number,) = struct.unpack("i", fcntl.ioctl(master, _TIOCGPTN, bytes(4)))
    slave = os.open(f"/dev/pts/{number}", os.O_RDWR | os.O_NOCTTY)
    set_up(master, request)
    return [master], (slave, slave, slave)


def set_up(master: int, request: Message) -> None:
    """The modes and the size of a new pty. Before the program runs: a shell that edits its line has modes of its own,
    which must not be undone."""
    attributes = termios.tcgetattr(master)
    attributes[0] |= modes.IUTF8
    termios.tcsetattr(master, termios.TCSANOW, attributes)
    modes.apply(master, request["modes"])
    set_size(master, request["columns"], request["rows"])


def set_size(master: int, columns: int, rows: int) -> None:
    """Of a pty; its foreground processes are told by the kernel."""
    size = struct.pack("HHHH", max(0, min(rows, 65535)), max(0, min(columns, 65535)), 0, 0)
    fcntl.ioctl(master, termios.TIOCSWINSZ, size)


def _become(tell: socket.socket, request: Message, limits: Message, fds: tuple[int, ...]) -> NoReturn:
    try:
        os.setsid()
        if request["mode"] == "pty":
            fcntl.ioctl(fds[0], termios.TIOCSCTTY, 0)
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
        os.dup2(tell.fileno(), 3, inheritable=False)
        os.closerange(4, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        tell = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=3)
        os.umask(request["umask"])
        _chdir(request["cwd"])
        _limit(limits)
        if request["mark"]:
            kernel.set_mark(request["mark"])
        kernel.default_signals()
        _exec(request["argv"], request["env"])
    except BaseException as error:
        fail(tell, str(error))


def new_mark() -> int:
    """One that nobody has or guesses."""
    return int.from_bytes(os.urandom(7)) | 1 << 56


def _chdir(path: str) -> None:
    try:
        os.chdir(path)
    except OSError as error:
        raise OSError(f"cannot start in the folder {path}: {os.strerror(error.errno or 0)}") from None


def _limit(limits: Message) -> None:
    wanted = (
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_NOFILE, limits["open_files"]),
        (resource.RLIMIT_FSIZE, limits["file_size"]),
        (resource.RLIMIT_AS, limits["memory"]),
    )
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for kind, most in wanted:
        if most > 0:
            hard = resource.getrlimit(kind)[1]
            bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (bound, bound))


def _exec(argv: list[str], env: dict[str, str]) -> NoReturn:
    program = argv[0]
    path = env.get("PATH", os.defpath)
    places = [program] if "/" in program else [os.path.join(each or ".", program) for each in path.split(":")]  # noqa: PTH118
    denied = False
    for place in places:
        try:
            os.execve(place, argv, env)
        except OSError as error:
            if error.errno == errno.ENOEXEC:
                os.execve("/bin/sh", ["sh", place, *argv[1:]], env)
            if error.errno == errno.E2BIG:
                raise OSError(f"the arguments and the environment of {program} are too large together") from None
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                raise OSError(f"cannot start {place}: {os.strerror(error.errno or 0)}") from None
            denied = denied or error.errno == errno.EACCES
    if denied:
        raise OSError(f"cannot start {program}: it may not be executed")
    raise OSError(f"there is no program {program} here" + ("" if "/" in program else f" (PATH is {path})"))


def fail(tell: socket.socket, text: str) -> NoReturn:
    """Say why, and end."""
    try:
        tell.send(b"e" + text.encode(errors="replace")[:_MAX_TEXT])
    finally:
        os._exit(127)


def send_fds(sock: socket.socket, data: bytes, fds: list[int]) -> int:
    """One sendmsg with descriptors; how many bytes went. The descriptors go with the first."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    return sock.sendmsg([data], rights)


def receive_fds(sock: socket.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """One recvmsg with its descriptors (close-on-exec)."""
    fds = array.array("i")
    data, rights, _, _ = sock.recvmsg(size, socket.CMSG_SPACE(most * fds.itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in rights:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, list(fds)
