"""The command line as people use it: a system in a folder of its own, a checkout, a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE
from tests.whole_system import wait_until

from pitstop_common.embedded import die_with_parent

PITSTOP = str(Path(sys.executable).parent / "pitstop")
SECONDS = 60.0

SOUND = """
name: ci
jobs:
  build:
    runs-on: default
    steps:
      - name: one
        run: echo one
      - name: two
        run: echo two
"""


class Home:
    """Where a person works: a home, a key pair, a checkout, and the folder of `pitstop up`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dir = folder / "state"
        self.repo = folder / "repo"
        self.key = folder / "id_ed25519"
        self.env = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder), "TERM": "xterm",
            "PITSTOP_DIR": str(self.dir), "PITSTOP_ACTOR": "ada", "LANG": "C.UTF-8",
        }  # fmt: skip
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)

    @property
    def public(self) -> str:
        """The file of the public key."""
        return f"{self.key}.pub"

    def checkout(self, workflow: str, **files: str) -> Path:
        """A repository with that workflow and those files, all committed. A second call commits again."""
        target = self.repo / ".pitstop" / "workflows" / "ci.yml"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(workflow)
        for name, text in files.items():
            (self.repo / name).write_text(text)
        if not (self.repo / ".git").exists():
            self.git("init", "-q", "-b", "main")
        self.git("add", ".")
        self.git("-c", "user.name=ada", "-c", "user.email=ada@example.org", "commit", "-qm", "work", "--allow-empty")
        return self.repo

    def git(self, *args: str) -> None:
        """git in the checkout."""
        subprocess.run(["git", "-C", self.repo, *args], check=True, env=self.env)

    def run(
        self, *args: str, cwd: Path | None = None, stdin: str = "", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command to its end, off a terminal. `env`: on top of the home's."""
        return subprocess.run(
            [PITSTOP, *args], cwd=cwd or self._cwd(), env=self.env | dict(env or {}), input=stdin,
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip

    def json(self, *args: str) -> Any:
        """What a command prints with -o json."""
        done = self.run(*args, "-o", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @contextlib.contextmanager
    def start(self, *args: str) -> Iterator[Running]:
        """A command that goes on, off a terminal; killed at the end of the block if it still runs."""
        with subprocess.Popen(
            [PITSTOP, *args], cwd=self._cwd(), env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent,
        ) as process:  # fmt: skip
            try:
                yield Running(process)
            finally:
                process.kill()

    def _cwd(self) -> Path:
        return self.repo if self.repo.exists() else self.folder

    def paused(self, run: str) -> dict[str, Any]:
        """The entry of the first job of a run, once it is paused."""
        found: dict[str, Any] = {}

        def is_paused() -> bool:
            found.update(self.json("status", run)["jobs"][0])
            assert found["job"]["status"] != "finished", found
            return bool(found["job"]["status"] == "paused")

        wait_until(is_paused, PATIENCE)
        return found

    def request(self, *args: str) -> str:
        """Request a run and do not wait: its id."""
        done = self.run("run", "--no-wait", *args)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


class Running:
    """A command that goes on."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self) -> str:
        """The next line of stdout; empty at its end."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def progress(self) -> str:
        """The next line of stderr."""
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    def end(self) -> tuple[int, str, str]:
        """Exit status, and what is left of stdout and stderr."""
        stdout, stderr = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, stdout, stderr


class Up:
    """A running `pitstop up --json`."""

    def __init__(self, process: subprocess.Popen[bytes], errors: Path) -> None:
        self.process = process
        self._errors = errors
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], SECONDS)[0], self.said()
        line = process.stdout.readline()
        assert line, self.said()
        self.facts: dict[str, Any] = json.loads(line)

    def said(self) -> str:
        """What it told people so far."""
        return self._errors.read_text()

    def wait_said(self, words: str) -> None:
        """AssertionError when it does not say it."""
        wait_until(lambda: words in self.said(), PATIENCE)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Ask it to stop; its exit status."""
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


@contextlib.contextmanager
def up(home: Home, *options: str, more: Mapping[str, str] | None = None) -> Iterator[Up]:
    """The system of a home, drained at the end of the block if it still runs."""
    errors = home.folder / "up.err"
    with errors.open("wb") as log:
        process = subprocess.Popen(
            [PITSTOP, "up", "--json", *options], env=home.env | dict(more or {}), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=log, preexec_fn=die_with_parent,
        )  # fmt: skip
    try:
        system = Up(process, errors)
        yield system
        if process.poll() is None:
            system.stop()
        assert "did not stop" not in system.said(), system.said()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class Terminal:
    """A command on a terminal of its own, as a person sees it."""

    def __init__(self, home: Home, *args: str) -> None:
        self._master, slave = pty.openpty()
        self.seen = ""

        def controlling() -> None:
            die_with_parent()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [PITSTOP, *args], cwd=home.repo, env=home.env, stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, preexec_fn=controlling,
        )  # fmt: skip
        os.close(slave)

    def wait_for(self, words: str, seconds: float = PATIENCE) -> None:
        """AssertionError with all that was seen when it does not appear."""
        self._read_until(lambda: words in self.seen, seconds)
        assert words in self.seen, self.seen

    def type(self, text: str) -> None:
        """As on a keyboard; `\\x03` is Ctrl-C."""
        os.write(self._master, text.encode())

    def end(self) -> int:
        """The exit status, after the rest was read."""
        self._read_until(lambda: False, SECONDS)
        try:
            return self.process.wait(PATIENCE)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            os.close(self._master)

    def _read_until(self, done: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not done() and time.monotonic() < deadline:
            if not select.select([self._master], [], [], 0.2)[0]:
                continue
            try:
                data = os.read(self._master, 65536)
            except OSError:
                return
            if not data:
                return
            self.seen += data.decode(errors="replace").replace("\r\n", "\n")


def _target(link: Path) -> str:
    """Of a link in /proc; empty: it has been closed meanwhile, which says nothing of its process."""
    try:
        return str(link.readlink())
    except OSError:
        return ""


def processes_of(folder: Path) -> dict[int, str]:
    """Every process that has to do with a folder: by its command line, environment, directory or open files."""
    needle = str(folder)
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                links = [_target(link) for link in (entry / "cwd", *(entry / "fd").iterdir())]
                environment = (entry / "environ").read_bytes().decode(errors="replace")
                if any(needle in text for text in (command, environment, *links)):
                    found[int(entry.name)] = command
    return found
