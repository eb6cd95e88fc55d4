"""The program of a session channel, from what its client asked for. Pure."""

from __future__ import annotations

import re
from typing import Final

from pitstop_sandbox.channels.rules import Service
from pitstop_sandbox.ports import Use
from pitstop_sandbox.steps.environment import RESERVED

NEW: Final = "new"
"""Alone as a command on a terminal: a new shell, also where one was left."""
SERVICES: Final[dict[str, Service]] = {"shell": "terminal", "exec": "exec", "sftp": "sftp"}
"""By the kind of a use, what of a project's rules it falls under."""
SFTP: Final = "sftp"
"""The only subsystem."""

_SERVER: Final = """\
for server in /usr/lib/openssh /usr/libexec/openssh /usr/libexec /usr/lib/ssh /usr/local/libexec; do
  [ -x "$server/sftp-server" ] && exec "$server/sftp-server"
done
own=/opt/pitstop/bin/pitstop-sftp
[ -r "$own" ] && python=$(command -v python3 || PATH=/usr/bin:/usr/local/bin:/bin command -v python3) &&
  exec "$python" -I -S "$own"
echo "pitstop: this sandbox's image has neither an sftp-server nor python3, so sftp and scp do not work here. Add
  the package openssh-sftp-server to the image, or use a shell:
  ssh JOB@HOST 'cat >FILE' <FILE     ssh JOB@HOST 'cat FILE' >FILE" >&2
exit 127
"""
"""The image's own server when it has one (quicker, and its maintainers'), else ours, which needs Python."""

NOT_FOUND: Final = 127
"""What a shell says of a program that there is not."""
_HINTS: Final = {
    "scp": "this sandbox's image has no scp. Leave out -O: scp then goes by sftp",
    "rsync": "this sandbox's image has no rsync, which is needed at both ends. Add it to the image, or use scp -r",
    "mosh-server": "this sandbox's image has no mosh; and its UDP would not reach a sandbox. Use ssh",
    **dict.fromkeys(
        ("git-upload-pack", "git-receive-pack", "git-upload-archive"),
        "this sandbox's image has no git. Add it to the image, or copy with scp -r",
    ),
}
_POWERSHELL: Final = re.compile(r"\s*((?:powershell|pwsh)(?:\.exe)?)(?=\s|\Z)(.*)", re.DOTALL)
_PWSH: Final = """\
if command -v {word} >/dev/null 2>&1; then {word}{rest}
elif command -v pwsh >/dev/null 2>&1; then pwsh{rest}
else
  echo "pitstop: {word}: this sandbox's image has no PowerShell (pwsh). Its shell is {shell}." >&2
  exit 127
fi
"""


def argv(shell: str, command: str | None, *, sftp: bool) -> list[str]:
    """What to start: an sftp server, a command of the step's shell, or (None) that shell itself."""
    if sftp:
        return ["/bin/sh", "-c", _SERVER]
    if command is None:
        return [shell]
    return [shell, "-c", _powershell(shell, command)]


def hint(command: str | None, code: int) -> str:
    """What to say of a command whose program the image has not, beside what its shell said; empty: nothing."""
    program = command.split(maxsplit=1)[0] if command and command.strip() else ""
    return _HINTS.get(program, "") if code == NOT_FOUND else ""


def use(command: str | None, *, sftp: bool) -> Use:
    """What a session channel is used for."""
    if sftp:
        return Use("sftp")
    return Use("shell") if command is None else Use("exec", command)


def steers(command: str | None) -> bool:
    """Is it one of the words that steer the job? Whoever may enter may say them."""
    return command is not None and command.strip() in RESERVED


def _powershell(shell: str, command: str) -> str:
    """Whoever asks for PowerShell by any of its names gets it, or is told that there is none."""
    found = _POWERSHELL.match(command)
    if found is None:
        return command
    return _PWSH.format(word=found[1], rest=found[2], shell=shell)
