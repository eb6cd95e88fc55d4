"""The relay's own answers to people who name no job: `ssh relay whoami` and `ssh relay ls`."""

from __future__ import annotations

from typing import Final

import asyncssh

from pitstop_common.messages import OpenJob, WhoReply

WORDS: Final = ("whoami", "ls")
_USAGE: Final = "pitstop: the relay itself knows `whoami` and `ls`. Into a job: ssh JOB@RELAY   (its id: ls)\n"


class Desk(asyncssh.SSHServerSession[str]):
    """One channel: says what was asked for, and ends. Nothing is opened, read or started for it."""

    def __init__(self, known: WhoReply, fingerprint: str) -> None:
        self._known, self._fingerprint = known, fingerprint
        self._command = ""

    def connection_made(self, chan: asyncssh.SSHServerChannel[str]) -> None:
        """asyncssh has made the channel."""
        self._chan = chan

    def pty_requested(self, _term: str, _size: object, _modes: object) -> bool:
        """A terminal is welcome; asyncssh gives it the ends of lines that it wants."""
        return True

    def shell_requested(self) -> bool:
        """No command: all there is to say."""
        return True

    def exec_requested(self, command: str) -> bool:
        """One of WORDS."""
        self._command = command.strip()
        return True

    def session_started(self) -> None:
        """Answer."""
        if self._command and self._command not in WORDS:
            self._chan.write_stderr(_USAGE)
            self._chan.exit(2)
            return
        text = "" if self._command == "ls" else whoami(self._known, self._fingerprint)
        text += "" if self._command == "whoami" else listed(self._known.jobs)
        self._chan.write(text)
        self._chan.exit(0)


def whoami(known: WhoReply, fingerprint: str) -> str:
    """A line for each org that knows the key, and one for each job that somebody is inside of."""
    lines = [f"{person.user} of {person.org}, by the key {fingerprint}" for person in known.people]
    lines += [f"inside {job.job}: {job.sessions}" for job in known.jobs if job.sessions]
    return "".join(f"{line}\n" for line in lines)


def listed(jobs: tuple[OpenJob, ...]) -> str:
    """A line for each job that may be entered, with the command where there is a sandbox."""
    if not jobs:
        return "no job waits for you\n"
    return "".join(f"{job.job}  {job.org}/{job.project} {job.key}  {job.status}  {job.command}".rstrip() + "\n"
                   for job in jobs)  # fmt: skip
