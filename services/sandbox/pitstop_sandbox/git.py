"""The host's git, held short: no configuration but ours, no hooks, no prompts, few protocols, limits."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

import msgspec

SHA: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/@+-]{0,254}\Z")
_WATCH_SECONDS: Final = 0.5
_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None, use_errno=True)


class CheckoutError(Exception):
    """The tree cannot be had. The text says why, and what to do."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What to fetch, checked. `path`: where it goes inside. `local`: the folder, when it is one of this host."""

    url: str
    what: str
    depth: int
    path: str
    local: str = ""


class Git:
    """The host's git in one folder of ours."""

    def __init__(self, temp: Path, want: Wanted, log: IO[bytes], size: int) -> None:
        self.tree = temp / "tree"
        self._want = want
        self._log = log
        self._size = size
        config = temp / "gitconfig"
        config.write_text(_config(want), encoding="utf-8")
        self._env = {
            "PATH": os.environ.get("PATH", os.defpath), "HOME": str(temp), "LANG": "C.UTF-8",
            "GIT_CONFIG_GLOBAL": str(config), "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "true", "SSH_ASKPASS": "true", "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes",
            "GIT_ALLOW_PROTOCOL": "https:ssh:git" + (":file" if want.local else ""),
        }  # fmt: skip

    async def fetch(self) -> None:
        """Fetch, check the size, and write the tree. Raises CheckoutError."""
        want = self._want
        self._log.write(f"Fetching {want.what} of {want.url}\n".encode())
        self.tree.mkdir()
        await self._run("init", "-q", "--template=")
        await self._run("remote", "add", "origin", want.url)
        depth = [f"--depth={want.depth}"] if want.depth else []
        await self._run("fetch", "--progress", "--no-recurse-submodules", "--no-auto-gc", *depth, "origin", want.what)
        await self._check_size()
        await self._run("checkout", "--quiet", "--force", *self._as())
        self._log.write(b"HEAD is now at ")
        await self._run("log", "-1", "--format=%h %s", "--no-show-signature")

    def _as(self) -> Sequence[str]:
        head = (self.tree / ".git" / "FETCH_HEAD").read_text(encoding="utf-8", errors="replace")
        branch = re.match(r"[0-9a-f]+\t\tbranch '([^']+)' of ", head)
        if branch and NAME.match(branch[1]) and not SHA.match(branch[1]):
            return ("-B", branch[1], "FETCH_HEAD")
        return ("--detach", "FETCH_HEAD")

    async def _check_size(self) -> None:
        listing = await start(self._argv("ls-tree", "-r", "-l", "FETCH_HEAD"), asyncio.subprocess.PIPE, self._log,
                               self._env, self.tree)  # fmt: skip
        assert listing.stdout is not None
        total = 0
        try:
            while line := await listing.stdout.readline():
                size = line.split(b"\t", 1)[0].split()[-1]
                total += 200 + (int(size) if size.isdigit() else 0)
                if total > self._size:
                    raise CheckoutError(f"the tree is larger than this host's limit of {self._size >> 20} MiB")
        except ValueError as error:
            raise CheckoutError(f"the tree cannot be listed: {error}") from error
        finally:
            await stop(listing)

    async def _run(self, *arguments: str) -> None:
        process = await start(self._argv(*arguments), self._log, self._log, self._env, self.tree)
        watch = asyncio.create_task(self._watch(process))
        try:
            code = await wait(process)
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        if _size(self.tree) > self._size:
            raise CheckoutError(f"the repository is larger than this host's limit of {self._size >> 20} MiB")
        if code:
            raise CheckoutError(f"git {arguments[0]} ended with exit code {code}; its words are above")

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            if await asyncio.to_thread(_size, self.tree) > self._size:
                signal_group(process, signal.SIGKILL)
                return

    def _argv(self, *arguments: str) -> tuple[str, ...]:
        return ("git", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "gc.auto=0",
                "-c", "credential.helper=", "-c", "advice.detachedHead=false", *arguments)  # fmt: skip


def _config(want: Wanted) -> str:
    # Git believes `safe.directory` only from a file or its own command line, and its helper for local repositories
    # does not inherit the latter.
    if not want.local:
        return ""
    places = {want.local, os.path.realpath(want.local)}
    both = sorted(places | {f"{place}/.git" for place in places})
    quoted = [path.replace("\\", "\\\\").replace('"', '\\"') for path in both]
    return "[safe]\n" + "".join(f'\tdirectory = "{path}"\n' for path in quoted)


def _size(tree: Path) -> int:
    return sum(file.stat().st_size for file in (tree / ".git" / "objects").glob("*/*") if file.is_file())


async def start(argv: Sequence[str], stdout: int | IO[bytes], stderr: int | IO[bytes], env: Mapping[str, str],
                cwd: Path | None = None) -> asyncio.subprocess.Process:  # fmt: skip
    """A process of the host in its own group, without stdin, that ends with this process."""
    return await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=stdout, stderr=stderr, cwd=cwd, env=dict(env),
        start_new_session=True, preexec_fn=_die_with_parent, limit=1 << 20,
    )  # fmt: skip


def _die_with_parent() -> None:
    _libc.prctl(_PDEATHSIG, signal.SIGKILL)


async def wait(process: asyncio.subprocess.Process) -> int:
    """Its exit code. Cancelled, it kills the process first."""
    try:
        return await process.wait()
    except asyncio.CancelledError:
        await stop(process)
        raise


async def stop(process: asyncio.subprocess.Process) -> None:
    """Kill its group, if it runs, and wait for its end."""
    signal_group(process, signal.SIGKILL)
    await asyncio.shield(process.wait())


def signal_group(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """A signal for all of its group. No error when it has ended."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
