"""The system calls that Python 3.11 has no function for, and who a process is (pid and start time)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

CLONE_NEWNS: Final = 0x00020000
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
NS_GET_USERNS: Final = 0xB701

RLIMIT_LOCKS: Final = 10
_PR_SET_DUMPABLE: Final = 4
_PR_CAPBSET_DROP: Final = 24
_PR_SET_SECUREBITS: Final = 28
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_SECUREBITS: Final = 0x2F
"""No privilege for uid 0, no fix-up on a change of uid, no keeping of capabilities; all locked."""
_KEYCTL: Final = {"x86_64": 250, "aarch64": 219}
_RT_SIGACTION: Final = {"x86_64": 13, "aarch64": 134}
_KEYCTL_JOIN_SESSION_KEYRING: Final = 1
_PF_EXITING: Final = 0x4
_CAPABILITY_VERSION_3: Final = 0x20080522
_TICKS: Final = os.sysconf("SC_CLK_TCK")

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _prctl(option: int, *arguments: int) -> int:
    padded = [*arguments, 0, 0, 0, 0][:4]
    return int(_libc.prctl(option, *(ctypes.c_ulong(each) for each in padded)))


def setns(fd: int) -> None:
    """Join the namespace behind `fd`."""
    _check(_libc.setns(fd, 0), "setns")


def unshare_mounts() -> None:
    """An own mount namespace, from which nothing goes back."""
    _check(_libc.unshare(CLONE_NEWNS), "unshare")
    mount("none", "/", MS_REC | MS_PRIVATE)


def mount(source: str, target: str, flags: int, *, kind: str | None = None, data: str | None = None) -> None:
    """mount(2)."""
    arguments = [None if text is None else text.encode() for text in (source, target, kind, data)]
    result = _libc.mount(arguments[0], arguments[1], arguments[2], ctypes.c_ulong(flags), arguments[3])
    _check(result, f"mount {target}")


def adopt_orphans() -> None:
    """Descendants whose parent ends become children of the caller."""
    _check(_prctl(_PR_SET_CHILD_SUBREAPER, 1), "prctl")


def no_new_privileges() -> None:
    """No program started from here gains a privilege by set-uid bits or file capabilities."""
    _check(_prctl(_PR_SET_NO_NEW_PRIVS, 1), "prctl")


def set_dumpable(dumpable: bool) -> None:
    """May processes of the same user look into this one, until its next exec?"""
    _check(_prctl(_PR_SET_DUMPABLE, int(dumpable)), "prctl")


def own_keyring() -> None:
    """Leave the session keyring of whoever started us: keys in it are possessed by every descendant."""
    number = _KEYCTL.get(os.uname().machine)
    if number is not None:
        _libc.syscall(ctypes.c_long(number), ctypes.c_long(_KEYCTL_JOIN_SESSION_KEYRING), None)


def drop_capabilities(become: Callable[[], None] | None = None) -> None:
    """No capability in any set, for good. The order matters: the bounding set and securebits need CAP_SETPCAP, and
    `become`, which changes the user, needs CAP_SETUID."""
    for capability in range(64):
        if _prctl(_PR_CAPBSET_DROP, capability) == -1:
            break
    _prctl(_PR_SET_SECUREBITS, _SECUREBITS)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    if become is not None:
        become()
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")
    no_new_privileges()


def default_signals() -> None:
    """Every signal as a program expects it at its start. The C library hides two of its own, which posix_spawn leaves
    ignored: hence the system call."""
    number = _RT_SIGACTION.get(os.uname().machine)
    default = bytes(64)
    for each in range(1, signal.NSIG):
        if number is not None:
            _libc.syscall(ctypes.c_long(number), ctypes.c_long(each), default, None, ctypes.c_long(8))
        elif each in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(each, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _stat(pid: int) -> list[str] | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 (pathlib costs the holder 1 MB)
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 when there is none. With the pid: who it is."""
    fields = _stat(pid) if pid > 0 else None
    return int(fields[19]) if fields else 0


def is_exiting(pid: int) -> bool:
    """Is the process gone, or on its way out?"""
    fields = _stat(pid) if pid > 0 else None
    return fields is None or fields[0] in "ZX" or bool(int(fields[6]) & _PF_EXITING)


def session_members(leader: int) -> list[int]:
    """The processes of a session, by the pid of its (perhaps ended) leader."""
    members = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        fields = _stat(int(name)) if name.isdigit() else None
        if fields and int(fields[3]) == leader and fields[0] not in "ZX":
            members.append(int(name))
    return members


def tree_members(leader: int, started: int, mark: int) -> list[int]:
    """The living processes that a leader (perhaps ended; `started` tells it from a later one of its pid) has started:
    those of its session, those with its `mark` (see `set_mark`), and what descends from these. A process that hides
    from all three ends with its sandbox."""
    found: dict[int, tuple[int, int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        fields = _stat(int(name)) if name.isdigit() else None
        if fields and fields[0] not in "ZX":
            found[int(name)] = (int(fields[1]), int(fields[3]))
    ours = start_time(leader) in (0, started)
    members = {pid for pid, (_, session) in found.items() if (ours and leader in (pid, session)) or _marked(pid, mark)}
    grown = True
    while grown:
        more = {pid for pid, (parent, _) in found.items() if parent in members} - members
        members |= more
        grown = bool(more)
    return sorted(members)


def set_mark(mark: int) -> None:
    """Mark this process and all that it will start, for good: as the limit of file locks, which Linux has not looked at
    since 2.4, but hands on through fork, exec and setsid. Without a mark, where it may not be set."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(RLIMIT_LOCKS, (mark, mark))


def _marked(pid: int, mark: int) -> bool:
    try:
        with open(f"/proc/{pid}/limits", "rb") as file:  # noqa: PTH123
            lines = file.read().splitlines()
    except OSError:
        return False
    return any(line.startswith(b"Max file locks") and line.split()[3] == b"%d" % mark for line in lines)


def cpu_seconds(leaders: list[int]) -> dict[int, float]:
    """The CPU time of each leader's processes so far: of itself, of all that descend from it, and of those of its
    session whose parents have ended. What has ended counts with the parent that waited for it."""
    found: dict[int, tuple[int, int, int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        fields = _stat(int(name)) if name.isdigit() else None
        if fields:
            found[int(name)] = (int(fields[1]), int(fields[3]), sum(int(field) for field in fields[11:15]))
    ticks = dict.fromkeys(leaders, 0)
    for pid, (_, session, used) in found.items():
        leader, passed = pid, set()
        while leader in found and leader not in ticks and leader not in passed:
            passed.add(leader)
            leader = found[leader][0]
        leader = leader if leader in ticks else session
        if leader in ticks:
            ticks[leader] += used
    return {leader: used / _TICKS for leader, used in ticks.items()}


def children() -> list[int]:
    """Of this process; ended ones too."""
    own = os.getpid()
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    return [pid for pid in pids if (fields := _stat(pid)) and int(fields[1]) == own]


def boot_id() -> str:
    """Changes with each boot: pids and start times of another boot say nothing."""
    with open("/proc/sys/kernel/random/boot_id") as file:  # noqa: PTH123
        return file.read().strip()


def kill_exactly(pid: int, started: int, number: int = signal.SIGKILL) -> bool:
    """Signal the process that has this pid AND this start time. False when it is gone or
    going (or the pid is another's)."""
    if pid <= 0 or not started:
        return False
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if start_time(pid) != started or is_exiting(pid):
            return False
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True
