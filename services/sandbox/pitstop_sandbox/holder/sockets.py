"""Sockets made inside a running sandbox, for the host process: it holds them, and nothing of them is outside.

A child visits the sandbox, but stays out of its pid namespace: nobody inside ever sees it. It has no capability and
the user of the job when it connects, listens, looks up a name or touches a file, and runs no code of the image.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from collections.abc import Callable

from pitstop_sandbox.holder import kernel, names
from pitstop_sandbox.holder.frames import Message
from pitstop_sandbox.holder.inside import forked, receive_fds, send_fds
from pitstop_sandbox.holder.loop import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NoReturn

    from pitstop_sandbox.holder.places import Place

CONNECT_SECONDS: Final = 10.0
"""For each address of a name."""
LIVE_SECONDS: Final = 30
"""For all of it; then the child is killed by its own alarm."""
MAX_AT_ONCE: Final = 64
BACKLOG: Final = 128
LOOPBACK: Final = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
MAX_PATH: Final = 107
"""Bytes in the path of a unix socket."""
_MAX_TEXT: Final = 4000

Answer = Callable[[Message, list[int]], None]


class Sockets:
    """Answers each request with descriptors, or with an error of code `unreachable`."""

    def __init__(self, loop: Loop, place: Place) -> None:
        self._loop = loop
        self._place = place
        self._open = 0

    def serve(self, request: Message, answer: Answer) -> None:
        """`way`: dial, listen or remove; `host` and `port`, or `path`; `folder` as in the port."""
        if self._open >= MAX_AT_ONCE:
            answer(_refusal(f"{MAX_AT_ONCE} connections are being made already"), [])
            return
        try:
            tell = forked(lambda tell: _child(tell, self._place, request))
        except OSError as error:
            answer(_refusal(str(error)), [])
            return
        self._open += 1
        said: list[tuple[bytes, list[int]]] = []
        self._loop.watch(tell.fileno(), lambda: self._told(tell, said, answer))

    def _told(self, tell: socket.socket, said: list[tuple[bytes, list[int]]], answer: Answer) -> None:
        try:
            data, fds = receive_fds(tell, 2 * _MAX_TEXT, len(LOOPBACK))
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        if data and not said:
            # Answered when the child has ended: until then it has the sockets, too, and a port closed at once is taken.
            said.append((data, fds))
            return
        data, fds = said[0] if said else (b"", [])
        self._open -= 1
        self._loop.forget(tell.fileno())
        tell.close()
        if data[:1] == b"s":
            answer({"ok": json.loads(data[1:])}, fds)
        else:
            answer(_refusal(data[1:].decode(errors="replace") or "it timed out"), [])


def _refusal(text: str) -> Message:
    return {"error": {"code": "unreachable", "text": text}}


def _child(tell: socket.socket, place: Place, request: Message) -> NoReturn:
    try:
        place.visit()
        kernel.default_signals()
        signal.alarm(LIVE_SECONDS)
        os.umask(0o177)
        about, sockets = _WAYS[request["way"]](request)
        send_fds(tell, b"s" + json.dumps(about).encode(), [each.fileno() for each in sockets])
    except OSError as error:
        text = error.strerror or str(error)
        tell.send(b"e" + text.encode(errors="replace")[:_MAX_TEXT])
    finally:
        os._exit(0)


Made = tuple[Message, list[socket.socket]]


def _dial(request: Message) -> Made:
    if "path" in request:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(CONNECT_SECONDS)
        sock.connect(_path(request))
        return {}, [sock]
    fault: OSError | None = None
    for family, address in names.look_up(request["host"]):
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(CONNECT_SECONDS)
        try:
            sock.connect((address, request["port"]))
        except OSError as error:
            sock.close()
            fault = fault or error
            continue
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return {}, [sock]
    raise fault or OSError("the name has no address")


def _listen(request: Message) -> Made:
    if "path" in request:
        path = _path(request)
        if request["folder"]:
            os.mkdir(os.path.dirname(path), 0o700)  # noqa: PTH102, PTH120
            os.chmod(os.path.dirname(path), 0o700)  # noqa: PTH101, PTH120
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(path)
        sock.listen(BACKLOG)
        return {"port": 0}, [sock]
    first = _loopback(*LOOPBACK[0], request["port"])
    port = first.getsockname()[1]
    try:
        return {"port": port}, [first, _loopback(*LOOPBACK[1], port)]
    except OSError:  # no IPv6 here
        return {"port": port}, [first]


def _loopback(family: int, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((host, port))
    sock.listen(BACKLOG)
    return sock


def _remove(request: Message) -> Made:
    path = _path(request)
    if stat.S_ISSOCK(os.lstat(path).st_mode):
        os.unlink(path)  # noqa: PTH108
    if request["folder"]:
        os.rmdir(os.path.dirname(path))  # noqa: PTH106, PTH120
    return {}, []


_WAYS: Final = {"dial": _dial, "listen": _listen, "remove": _remove}


def _path(request: Message) -> str:
    path: str = request["path"]
    if not path.startswith("/"):
        raise OSError(f"{path!r} is not an absolute path")
    if len(path.encode()) > MAX_PATH:
        raise OSError(f"the path of a socket has at most {MAX_PATH} bytes")
    if "\0" in path:
        raise OSError("a path has no NUL in it")
    return path
