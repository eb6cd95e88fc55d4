"""The host's git, held short: no configuration but ours, no hooks, no prompts, few protocols, limits."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import os
import resource
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from pitstop_sandbox.source.wish import CheckoutError, CheckoutLimits, Credential

_WATCH_SECONDS: Final = 0.5
_SLOW_BYTES, _SLOW_SECONDS = 1000, 60
"""A server that sends less than so much a second for so long is given up."""
_MAX_ANSWER: Final = 8 * 2**20
"""Of git's words to us, bytes."""
_SLACK: Final = 16 * 2**20
_MOST_MEMORY: Final = 2 * 2**30
"""Of a git that reads what a publisher wrote, bytes."""
_PDEATHSIG: Final = 1
_PROXIES: Final = ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY")
_libc = ctypes.CDLL(None, use_errno=True)


class TooLarge(CheckoutError):
    """A limit of size was met: another try would not help."""


class Git:
    """The host's git, for one checkout. Its words go to `log`, and so into the step's output."""

    def __init__(self, home: Path, log: IO[bytes], limits: CheckoutLimits, credential: Credential, local: str) -> None:
        """`home`: a folder of ours for what git wants to find in one. `local`: a repository of this host's disk."""
        self._log = log
        self._size = limits.size
        config = home / "gitconfig"
        config.write_text(_trusting(local), encoding="utf-8")
        key = home / "key"
        if credential.key:
            key.touch(mode=0o600)
            key.write_text(credential.key, encoding="utf-8")
        self._env = {
            "PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), "LANG": "C.UTF-8",
            "GIT_CONFIG_GLOBAL": str(config), "GIT_CONFIG_NOSYSTEM": "1", "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "SSH_ASKPASS": "true", "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_SSH_COMMAND": ssh_command(str(key) if credential.key else "", own_keys=limits.local),
            "GIT_NO_REPLACE_OBJECTS": "1", "GIT_OPTIONAL_LOCKS": "0",
            **_settings(credential, limits.ca), **{name: os.environ[name] for name in _PROXIES if name in os.environ},
        }  # fmt: skip
        self._remote = "https:ssh:git" + (":file" if local else "")

    def say(self, text: str) -> None:
        """A line in the step's output."""
        self._log.write(f"{text}\n".encode("utf-8", "replace"))

    async def run(self, repo: Path, *arguments: str, own: bool = False, stdin: IO[bytes] | None = None,
                  bounded: bool = False) -> None:  # fmt: skip
        """A command in a repository of ours. `own`: it may read another of ours, and go nowhere else. `stdin`: a
        file. `bounded`: in memory, too. Raises CheckoutError."""
        env = self._env | {"GIT_ALLOW_PROTOCOL": "file" if own else self._remote}
        process = await start(argv(*arguments), self._log, self._log, env, repo, stdin=stdin,
                              largest=self._size + _SLACK, memory=_MOST_MEMORY if bounded else 0)  # fmt: skip
        watch = asyncio.create_task(self._watch(process, repo))
        try:
            code = await wait(process)
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        await self._check(repo)
        if code:
            raise CheckoutError(f"git {arguments[0]} ended with exit code {code}; its words are above")

    async def ask(self, repo: Path, *arguments: str, most: int = _MAX_ANSWER) -> bytes | None:
        """What a command prints, up to `most` bytes; None when it fails."""
        env = self._env | {"GIT_ALLOW_PROTOCOL": self._remote}
        process = await start(argv(*arguments), asyncio.subprocess.PIPE, self._log, env, repo)
        assert process.stdout is not None
        answer = b""
        try:
            while len(answer) < most and (data := await process.stdout.read(1 << 16)):
                answer += data
            if len(answer) >= most:
                return answer[:most]
            return answer if not await wait(process) else None
        finally:
            await stop(process)

    async def check_tree(self, repo: Path, commit: str) -> None:
        """Would the tree of this commit be within the limit. Raises TooLarge."""
        listing = await start(argv("ls-tree", "-r", "-l", commit), asyncio.subprocess.PIPE, self._log, self._env, repo)
        assert listing.stdout is not None
        total = 0
        try:
            while line := await listing.stdout.readline():
                size = line.split(b"\t", 1)[0].split()[-1]
                total += 200 + (int(size) if size.isdigit() else 0)
                if total > self._size:
                    raise TooLarge(f"the tree is larger than this host's limit of {self._size >> 20} MiB")
        except ValueError as error:
            raise CheckoutError(f"the tree cannot be listed: {error}") from error
        finally:
            await stop(listing)

    async def _check(self, repo: Path) -> None:
        if await asyncio.to_thread(size_of, repo) > self._size:
            raise TooLarge(f"the repository is larger than this host's limit of {self._size >> 20} MiB")

    async def _watch(self, process: asyncio.subprocess.Process, repo: Path) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            if await asyncio.to_thread(size_of, repo) > self._size:
                signal_group(process, signal.SIGKILL)
                return


def argv(*arguments: str) -> tuple[str, ...]:
    """git with what no repository may change."""
    fixed = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0", "maintenance.auto=false",
             "credential.helper=", "advice.detachedHead=false", "submodule.recurse=false", "fetch.unpackLimit=1",
             "core.bigFileThreshold=32m", "protocol.version=2")  # fmt: skip
    return ("git", *(word for each in fixed for word in ("-c", each)), *arguments)


def ssh_command(key: str, *, own_keys: bool) -> str:
    """`key`: a file. `own_keys`: may the keys of this host's user be offered when there is none: on a system of one's
    own alone, or every org could read what they open. Servers must be in the known_hosts of this host."""
    words = ["ssh", "-o BatchMode=yes", "-o StrictHostKeyChecking=yes", "-o ClearAllForwardings=yes"]
    if key:
        words += [f'-F none -i "{key}"', "-o IdentitiesOnly=yes", "-o IdentityAgent=none"]
    elif not own_keys:
        words += ["-F none", "-o IdentityFile=none", "-o IdentityAgent=none", "-o PubkeyAuthentication=no"]
    return " ".join(words)


def _settings(credential: Credential, ca: str) -> dict[str, str]:
    """In the environment, not on the disk."""
    pairs = [("http.lowSpeedLimit", str(_SLOW_BYTES)), ("http.lowSpeedTime", str(_SLOW_SECONDS))]
    if credential.header:
        # After a redirect git asks the new server itself, with the same headers: whoever may redirect had the token.
        pairs += [(f"http.{credential.place}.extraHeader", credential.header), ("http.followRedirects", "false")]
    if ca:
        pairs.append(("http.sslCAInfo", ca))
    named = {f"GIT_CONFIG_KEY_{n}": key for n, (key, _) in enumerate(pairs)}
    values = {f"GIT_CONFIG_VALUE_{n}": value for n, (_, value) in enumerate(pairs)}
    return {"GIT_CONFIG_COUNT": str(len(pairs)), **named, **values}


def _trusting(local: str) -> str:
    # Git believes `safe.directory` only from a file or its own command line, and its helper for local repositories
    # does not inherit the latter.
    if not local:
        return ""
    places = {local, os.path.realpath(local)}
    both = sorted(places | {f"{place}/.git" for place in places})
    quoted = [path.replace("\\", "\\\\").replace('"', '\\"') for path in both]
    return "[safe]\n" + "".join(f'\tdirectory = "{path}"\n' for path in quoted)


def size_of(repo: Path) -> int:
    """Of a repository's objects, bytes."""
    here = repo / ".git" if (repo / ".git").is_dir() else repo
    total = 0
    for file in itertools.chain((here / "objects").glob("*/*"), (here / "lfs").glob("**/*")):
        with contextlib.suppress(OSError):  # git has removed it since
            total += file.stat().st_size
    return total


async def start(argv: Sequence[str], stdout: int | IO[bytes], stderr: int | IO[bytes], env: Mapping[str, str],
                cwd: Path | None = None, *, stdin: IO[bytes] | None = None, largest: int = 0,
                memory: int = 0) -> asyncio.subprocess.Process:  # fmt: skip
    """A process of the host in its own group that ends with this process. `largest`: file, `memory`: bytes."""

    def prepare() -> None:
        _libc.prctl(_PDEATHSIG, signal.SIGKILL)
        for kind, most in ((resource.RLIMIT_FSIZE, largest), (resource.RLIMIT_AS, memory)):
            if most:
                resource.setrlimit(kind, (most, most))

    return await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin, stdout=stdout, stderr=stderr, cwd=cwd,
        env=dict(env), start_new_session=True, preexec_fn=prepare, limit=1 << 20,
    )  # fmt: skip


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
