"""The host's side of `pitstop-step`: requests, replies and shown output, by files that hostile code can write.

In the job folder: `open` exists while requests are looked for; `requests/<id>` holds `verb=…`, `session=…` lines
(`requests/.<id>.env` beside it the asker's environment, for `env`);
`replies/<id>` gets the exit code in its first line and then the text; `replies/<id>.out` the output being shown.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Final, cast, get_args

import msgspec

from pitstop_sandbox.events import Asked, Reply, Verb
from pitstop_sandbox.flow import refusal
from pitstop_sandbox.model import JobState
from pitstop_sandbox.notices import WILL_PAUSE, status
from pitstop_sandbox.steps.difference import changed, parsed
from pitstop_sandbox.steps.folder import Guarded, Tampered

POLL_SECONDS: Final = 0.1
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
_SESSION: Final = re.compile(r"[A-Za-z0-9._:-]{0,200}\Z")
_MAX_REQUEST: Final = 1024
_MAX_ENVIRONMENT: Final = 1024 * 1024
_VERBS: Final = frozenset(get_args(Verb))
_MAX_REQUESTS: Final = 16  # at one look
_MAX_NAMES: Final = 256
_MAX_SHOWN: Final = 64 * 1024 * 1024


class Request(msgspec.Struct, frozen=True):
    """What somebody inside asks for. Nothing of it is believed but its form."""

    id: str
    verb: str
    session: str = ""
    environment: bytes = b""
    """Of the shell that asks, as /proc/PID/environ shows it; for `env` only."""


def install(bin_folder: Path) -> None:
    """Put `pitstop-step`, an sftp server and the shells' rc file where sandboxes see them, read-only."""
    bin_folder.mkdir(parents=True, exist_ok=True)
    for name, mode, data in _tools():
        draft = f"{bin_folder}/.{name}"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            os.fchmod(fd, mode)
            _write(fd, data)
        finally:
            os.close(fd)
        os.rename(draft, f"{bin_folder}/{name}")  # noqa: PTH104
    bin_folder.chmod(0o755)


@functools.cache
def _tools() -> tuple[tuple[str, int, bytes], ...]:
    package = resources.files("pitstop_sandbox")
    return (
        ("pitstop-step", 0o755, package.joinpath("pitstop_step.sh").read_bytes()),
        ("pitstop-sftp", 0o755, package.joinpath("pitstop_sftp.py").read_bytes()),
        ("pitstop.bashrc", 0o644, package.joinpath("pitstop.bashrc").read_bytes()),
    )


class Control:
    """The mailbox of one job."""

    def __init__(self, job_folder: Path) -> None:
        self._folder = job_folder
        self._shown: dict[str, int] = {}

    def open(self) -> None:
        """Requests are looked for from now on."""
        with contextlib.suppress(Tampered, OSError), Guarded.open(self._folder) as job:
            for name in ("requests", "replies"):
                job.folder(name).close()
            job.write("open", b"")

    def close(self) -> None:
        """They are not any more."""
        with contextlib.suppress(Tampered, OSError), Guarded.open(self._folder) as job:
            job.discard("open")

    def requests(self) -> Iterator[Request]:
        """The requests that lie there. Each is removed when the caller asks for the next."""
        with (
            contextlib.suppress(Tampered, OSError),
            Guarded.open(self._folder) as job,
            job.folder("requests") as box,
        ):
            names = [name for name in box.names(_MAX_NAMES) if not name.startswith(".")]
            for name in names[:_MAX_REQUESTS]:
                request = _parse(box, name)
                if request is not None:
                    yield request
                box.discard(name)
                box.discard(f".{name}.env")

    def reply(self, id_: str, code: int, text: str) -> None:
        """Answer a request. What cannot be written is not: the asker has only harmed itself."""
        self.shown_to_the_end(id_)
        with (
            contextlib.suppress(Tampered, OSError),
            Guarded.open(self._folder) as job,
            job.folder("replies") as box,
        ):
            box.publish(id_, (f"{code}\n{text}\n" if text else f"{code}\n").encode("utf-8", "replace"))

    def show(self, id_: str, lines: tuple[str, ...]) -> None:
        """Lines of the output that the asker waits for."""
        with contextlib.suppress(Tampered, OSError):
            if id_ not in self._shown:
                with Guarded.open(self._folder) as job, job.folder("replies") as box:
                    self._shown[id_] = box.append(f"{id_}.out")
            fd = self._shown[id_]
            if os.fstat(fd).st_size < _MAX_SHOWN:
                _write(fd, "".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))

    def shown_to_the_end(self, id_: str) -> None:
        """No more lines for this asker."""
        fd = self._shown.pop(id_, None)
        if fd is not None:
            os.close(fd)

    def aclose(self) -> None:
        """Let go of all files."""
        for id_ in list(self._shown):
            self.shown_to_the_end(id_)


def answer(request: Request, state: JobState, now: float, env: Mapping[str, str]) -> Asked | Reply | None:
    """What becomes of a request: an answer at once, or an event for `decide`. None: it was heard before. `env`: the
    surroundings of the step."""
    if request.verb == "status":
        return Reply(request.id, 0, status(state, now))
    if request.verb == "env":
        return Reply(request.id, 0, "\n".join(changed(env, parsed(request.environment))))
    if request.verb not in _VERBS:
        return Reply(request.id, 2, f"no such verb: {request.verb[:40]}")
    verb = cast(Verb, request.verb)
    if request.id in state.asked:
        return None
    # Refusals are not journalled: code inside could fill the disk with them.
    if refused := refusal(state, verb):
        return Reply(request.id, 2, refused)
    if verb == "pause" and state.pausing is not None:
        return Reply(request.id, 0, WILL_PAUSE.format(step=state.pausing.step or state.current))
    return Asked(id=request.id, verb=verb, session=request.session)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _parse(box: Guarded, name: str) -> Request | None:
    try:
        data = box.read(name, _MAX_REQUEST) if _ID.match(name) else None
        if not data:
            return None
        fields = dict(line.split("=", 1) for line in data.decode("utf-8", "replace").splitlines() if "=" in line)
        verb, session = fields.get("verb", ""), fields.get("session", "")
        environment = box.read(f".{name}.env", _MAX_ENVIRONMENT) if verb == "env" else None
    except Tampered:
        return None
    return Request(name, verb, session if _SESSION.match(session) else "", environment or b"")
