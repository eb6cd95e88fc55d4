#!/usr/bin/env python3
"""An SFTP server (version 3) on stdin and stdout, for images without OpenSSH's. Runs inside the sandbox as its user.

One file, nothing but Python 3.8 and its library: it is copied into the sandbox and started there by an sftp channel.
It opens what its user may open, from the folder it was started in; the sandbox is what keeps it in.
https://datatracker.ietf.org/doc/html/draft-ietf-secsh-filexfer-02, with the extensions that OpenSSH clients use.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INIT, EXTENDED = 1, 200
OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT, OPENDIR, READDIR, REMOVE, MKDIR = range(3, 15)
RMDIR, REALPATH, STAT, RENAME, READLINK, SYMLINK = range(15, 21)
VERSION, STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED_REPLY = 2, 101, 102, 103, 104, 105, 201
OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, BAD_MESSAGE, UNSUPPORTED = 0, 1, 2, 3, 4, 5, 8
HAS_SIZE, HAS_OWNER, HAS_MODE, HAS_TIMES, HAS_EXTENDED = 1, 2, 4, 8, 0x80000000
WANTS_READ, WANTS_WRITE, WANTS_APPEND, WANTS_CREATE, WANTS_TRUNCATE, WANTS_NEW = 1, 2, 4, 8, 16, 32

MAX_MESSAGE = 256 * 1024
"""Bytes. OpenSSH's bound too; its clients ask for 32 KiB at a time, or for what `limits@openssh.com` says."""
MAX_DATA = MAX_MESSAGE - 1024
MAX_HANDLES = 256
MAX_NAMES = 100
"""In one answer to READDIR."""
LIMITS = struct.pack(">QQQQ", MAX_MESSAGE, MAX_DATA, MAX_DATA, MAX_HANDLES)
TEXTS = {
    OK: "Success", EOF: "End of file", NO_SUCH_FILE: "No such file", PERMISSION_DENIED: "Permission denied",
    FAILURE: "Failure", BAD_MESSAGE: "Bad message", UNSUPPORTED: "Operation unsupported",
}  # fmt: skip


class Refused(Exception):
    """A status that is not an error of the system's."""

    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(text or TEXTS[code])
        self.code = code


class Reader:
    """Takes a message apart. Raises Refused BAD_MESSAGE when it is too short."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def _take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) < size:
            raise Refused(BAD_MESSAGE)
        self._at += size
        return taken

    def uint32(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def uint64(self) -> int:
        return int.from_bytes(self._take(8), "big")

    def string(self) -> bytes:
        return self._take(self.uint32())

    def path(self) -> bytes:
        return self.string() or b"."

    def attributes(self) -> dict[int, tuple[int, ...]]:
        """What is to be set: the flag of each, and its values."""
        flags = self.uint32()
        found: dict[int, tuple[int, ...]] = {}
        if flags & HAS_SIZE:
            found[HAS_SIZE] = (self.uint64(),)
        if flags & HAS_OWNER:
            found[HAS_OWNER] = (self.uint32(), self.uint32())
        if flags & HAS_MODE:
            found[HAS_MODE] = (stat.S_IMODE(self.uint32()),)
        if flags & HAS_TIMES:
            found[HAS_TIMES] = (self.uint32(), self.uint32())
        return found


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def attributes(found: os.stat_result) -> bytes:
    flags = HAS_SIZE | HAS_OWNER | HAS_MODE | HAS_TIMES
    times = (max(0, int(found.st_atime)) & 0xFFFFFFFF, max(0, int(found.st_mtime)) & 0xFFFFFFFF)
    return struct.pack(">IQIIIII", flags, found.st_size, found.st_uid, found.st_gid, found.st_mode, *times)


def long_name(name: bytes, found: os.stat_result) -> bytes:
    """As `ls -l` shows it: the client prints it as it is."""
    recent = abs(time.time() - found.st_mtime) < 182 * 86400
    when = time.strftime("%b %e %H:%M" if recent else "%b %e  %Y", time.localtime(found.st_mtime))
    owner = f"{found.st_uid:<8} {found.st_gid:<8}"
    head = f"{stat.filemode(found.st_mode)} {found.st_nlink:4} {owner} {found.st_size:8} {when} "
    return head.encode() + name


def change(target: bytes | int, wanted: dict[int, tuple[int, ...]]) -> None:
    """Of a file by path or descriptor. The size first: it needs the right to write."""
    if HAS_SIZE in wanted:
        os.truncate(target, *wanted[HAS_SIZE])
    if HAS_MODE in wanted:
        os.chmod(target, *wanted[HAS_MODE])
    if HAS_TIMES in wanted:
        os.utime(target, (wanted[HAS_TIMES][0], wanted[HAS_TIMES][1]))
    if HAS_OWNER in wanted:
        os.chown(target, *wanted[HAS_OWNER])


def names(entries: list[tuple[bytes, bytes, bytes]]) -> bytes:
    return struct.pack(">I", len(entries)) + b"".join(string(n) + string(long) + at for n, long, at in entries)


def one_name(path: bytes) -> tuple[int, bytes]:
    return NAME, names([(path, path, struct.pack(">I", 0))])


class Server:
    """Handles of one client. Each request is a method that returns the kind of its answer and the rest of it."""

    def __init__(self) -> None:
        self._files: dict[bytes, int] = {}
        self._folders: dict[bytes, Iterator[bytes]] = {}
        self._paths: dict[bytes, bytes] = {}
        self._last = 0
        self._kinds: dict[int, Callable[[Reader], tuple[int, bytes] | None]] = {
            OPEN: self.open, CLOSE: self.close, READ: self.read, WRITE: self.write, OPENDIR: self.opendir,
            READDIR: self.readdir, MKDIR: self.mkdir, RENAME: self.rename, EXTENDED: self.extended,
            LSTAT: lambda body: (ATTRS, attributes(os.lstat(body.path()))),
            STAT: lambda body: (ATTRS, attributes(os.stat(body.path()))),
            FSTAT: lambda body: (ATTRS, attributes(os.fstat(self._file(body)))),
            SETSTAT: lambda body: change(body.path(), body.attributes()),
            FSETSTAT: lambda body: change(self._file(body), body.attributes()),
            REMOVE: lambda body: os.unlink(body.path()),
            RMDIR: lambda body: os.rmdir(body.path()),
            REALPATH: lambda body: one_name(os.path.realpath(body.path())),
            READLINK: lambda body: one_name(os.readlink(body.path())),
            # OpenSSH's order, which every client has: the target first.
            SYMLINK: lambda body: os.symlink(body.path(), body.path()),
        }  # fmt: skip
        self._extended: dict[bytes, Callable[[Reader], tuple[int, bytes] | None]] = {
            b"posix-rename@openssh.com": lambda body: os.replace(body.path(), body.path()),
            b"hardlink@openssh.com": lambda body: os.link(body.path(), body.path()),
            b"fsync@openssh.com": lambda body: os.fsync(self._file(body)),
            b"expand-path@openssh.com": lambda body: one_name(os.path.realpath(os.path.expanduser(body.path()))),
            b"limits@openssh.com": lambda _body: (EXTENDED_REPLY, LIMITS),
        }

    def answer(self, message: bytes) -> bytes:
        """To one message: its own. Never raises for what a client may send."""
        body = Reader(message[1:])
        if message[:1] == bytes((INIT,)):
            return struct.pack(">BI", VERSION, 3) + b"".join(string(name) + string(b"1") for name in self._extended)
        number = 0
        try:
            number = body.uint32()
            handler = self._kinds.get(message[0])
            if handler is None:
                raise Refused(UNSUPPORTED)
            kind, rest = handler(body) or _status(OK)
        except Refused as refusal:
            kind, rest = _status(refusal.code, str(refusal))
        except FileNotFoundError as error:
            kind, rest = _status(NO_SUCH_FILE, error.strerror)
        except PermissionError as error:
            kind, rest = _status(PERMISSION_DENIED, error.strerror)
        except (OSError, ValueError, OverflowError) as error:
            kind, rest = _status(FAILURE, getattr(error, "strerror", None) or str(error))
        return struct.pack(">BI", kind, number) + rest

    def open(self, body: Reader) -> tuple[int, bytes]:
        path, wants, wanted = body.path(), body.uint32(), body.attributes()
        self._room()
        both = wants & WANTS_READ and wants & WANTS_WRITE
        flags = os.O_RDWR if both else os.O_WRONLY if wants & WANTS_WRITE else os.O_RDONLY
        for bit, flag in ((WANTS_APPEND, os.O_APPEND), (WANTS_CREATE, os.O_CREAT), (WANTS_TRUNCATE, os.O_TRUNC),
                          (WANTS_NEW, os.O_EXCL)):  # fmt: skip
            flags |= flag if wants & bit else 0
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY, wanted.get(HAS_MODE, (0o666,))[0])
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.close(fd)
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        handle = self._new()
        self._files[handle] = fd
        return HANDLE, string(handle)

    def close(self, body: Reader) -> None:
        handle = body.string()
        self._paths.pop(handle, None)
        if self._folders.pop(handle, None) is None:
            fd = self._files.pop(handle, -1)
            if fd < 0:
                raise Refused(FAILURE, "No such handle")
            os.close(fd)

    def read(self, body: Reader) -> tuple[int, bytes]:
        fd, at, size = self._file(body), body.uint64(), body.uint32()
        data = os.pread(fd, min(size, MAX_DATA), at)
        if not data and size:
            raise Refused(EOF)
        return DATA, string(data)

    def write(self, body: Reader) -> None:
        fd, at, data = self._file(body), body.uint64(), memoryview(body.string())
        while data:
            written = os.pwrite(fd, data, at)
            data, at = data[written:], at + written

    def opendir(self, body: Reader) -> tuple[int, bytes]:
        path = body.path()
        self._room()
        found = [b".", b"..", *os.listdir(path)]
        handle = self._new()
        self._folders[handle], self._paths[handle] = iter(found), path
        return HANDLE, string(handle)

    def readdir(self, body: Reader) -> tuple[int, bytes]:
        handle = body.string()
        if handle not in self._folders:
            raise Refused(FAILURE, "No such handle")
        entries = []
        for name in self._folders[handle]:
            try:
                found = os.lstat(os.path.join(self._paths[handle], name))
            except OSError:  # gone since
                continue
            entries.append((name, long_name(name, found), attributes(found)))
            if len(entries) >= MAX_NAMES:
                break
        if not entries:
            raise Refused(EOF)
        return NAME, names(entries)

    def mkdir(self, body: Reader) -> None:
        os.mkdir(body.path(), body.attributes().get(HAS_MODE, (0o777,))[0])

    def rename(self, body: Reader) -> None:
        """Version 3: what is there already is not replaced."""
        old, new = body.path(), body.path()
        if os.path.lexists(new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        os.rename(old, new)

    def extended(self, body: Reader) -> tuple[int, bytes] | None:
        handler = self._extended.get(body.string())
        if handler is None:
            raise Refused(UNSUPPORTED)
        return handler(body)

    def _file(self, body: Reader) -> int:
        fd = self._files.get(body.string())
        if fd is None:
            raise Refused(FAILURE, "No such handle")
        return fd

    def _room(self) -> None:
        if len(self._files) + len(self._folders) >= MAX_HANDLES:
            raise Refused(FAILURE, "Too many open files")

    def _new(self) -> bytes:
        self._last += 1
        return struct.pack(">I", self._last & 0xFFFFFFFF)


def _status(code: int, text: str | None = None) -> tuple[int, bytes]:
    return STATUS, struct.pack(">I", code) + string((text or TEXTS[code]).encode(errors="replace")) + string(b"")


def main() -> int:
    """Until the client ends its side. 1: it broke the protocol."""
    server, source, sink = Server(), sys.stdin.buffer, sys.stdout.buffer
    while len(head := source.read(4)) == 4:
        length = int.from_bytes(head, "big")
        if not 1 <= length <= MAX_MESSAGE:
            return 1
        message = source.read(length)
        if len(message) < length:
            return 1
        sink.write(string(server.answer(message)))
        sink.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
