"""What the client of one session channel has asked for before its program starts."""

from __future__ import annotations

from collections.abc import Mapping

from pitstop_sandbox.channels import command, environment
from pitstop_sandbox.channels.rules import Rules
from pitstop_sandbox.ports import Use


class Request:
    """A shell, until the client asks for something else. What a login forces takes its place."""

    def __init__(self) -> None:
        self.new = False
        """A new shell, also where one was left."""
        self.sftp = False
        self.size = environment.size(0, 0)
        """Of the client's terminal, as it is taken: columns, rows."""
        self._command: str | None = None
        self._original = ""

    def execute(self, text: str, *, terminal: bool) -> bool:
        """A command, for the step's shell; whether it can be one."""
        self.new = text.strip() == command.NEW and terminal
        self._command = None if self.new else text
        return "\0" not in text

    def subsystem(self, name: str) -> bool:
        """A subsystem; whether there is one of that name."""
        self.sftp = name == command.SFTP
        return self.sftp

    def force(self, forced: str | None) -> None:
        """Have `forced` run in place of what was asked for (None: nothing is forced)."""
        if forced is not None:
            self._original = self._command or (command.NEW if self.new else command.SFTP if self.sftp else "")
            self._command, self.new, self.sftp = forced, False, False

    def resize(self, columns: int, rows: int) -> None:
        """The client's terminal has this size."""
        self.size = environment.size(columns, rows)

    @property
    def shell(self) -> bool:
        """The step's shell itself; sftp counts as one, and has no terminal."""
        return self._command is None

    @property
    def title(self) -> str:
        """Of a recording: the command as its client said it; empty: a shell."""
        return self._original or self._command or ""

    @property
    def use(self) -> Use:
        """What the channel is used for."""
        return command.use(self._command, sftp=self.sftp)

    def fault(self, rules: Rules) -> str:
        """Why a project's rules do not let it; empty: they do. Words that steer the job are always let."""
        return "" if command.steers(self._command) else rules.fault(command.SERVICES[self.use.kind])

    def argv(self, shell: str) -> list[str]:
        """What to start, where the step's shell is `shell`."""
        return command.argv(shell, self._command, sftp=self.sftp)

    def env(self, sent: Mapping[str, str], step: Mapping[str, str], terminal: str | None) -> dict[str, str]:
        """The variables beside those of the `step`: the client's (`sent`), its `terminal` (None: no pty), and what it
        asked for where something else is forced."""
        env = environment.added(sent, step, terminal)
        if self._original:
            env["SSH_ORIGINAL_COMMAND"] = self._original
        return env

    def hint(self, code: int) -> str:
        """What to say where the image has not the command's program; empty: nothing."""
        return command.hint(self._command, code)
