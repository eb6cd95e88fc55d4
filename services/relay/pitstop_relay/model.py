"""The nouns of the relay: a login that was signed for, and what became of it."""

from __future__ import annotations

from typing import Literal

import msgspec

Code = Literal[
    "malformed", "sha1", "bad_signature", "unknown_job", "key_unknown", "not_your_run", "ended", "no_ssh", "queued",
    "starting", "ssh_disabled", "ssh_role", "ssh_context", "host_unreachable", "scheduler_unreachable", "draining",
]  # fmt: skip
"""Why a login was refused: stable, for `ssh.denied`, metrics and scripts."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A login whose signature is good. `key` is `<type> <base64>`; `fingerprint` as `ssh-keygen -l` prints it."""

    job: str
    key: str
    fingerprint: str


class Admit(msgspec.Struct, frozen=True, kw_only=True):
    """Let in, as `user`, to the job on `host`."""

    user: str
    host: str


class Denial(msgspec.Struct, frozen=True, kw_only=True):
    """Refused. `text` is what the person reads: what failed, why, the next thing to do. Lines end with a newline."""

    code: Code
    text: str


Verdict = Admit | Denial
