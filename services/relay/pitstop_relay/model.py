"""The nouns of the relay: a login that was signed for, and what became of it."""

from __future__ import annotations

from typing import Literal

import msgspec

from pitstop_common import credentials
from pitstop_common.certificates import Certificate

Code = credentials.Code | Literal[
    "sha1", "bad_signature", "unknown_job", "ended", "no_ssh", "queued", "starting", "host_unreachable",
    "scheduler_unreachable", "draining",
]  # fmt: skip
"""Why a login was refused: stable, for `ssh.denied`, metrics and scripts."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A login by a key whose signature is good, by its `certificate`, or (`password` is not empty) by what should be an
    access token. `key` is `<type> <base64>`; `fingerprint` as `ssh-keygen -l` prints it, or the id of a token that is
    known. `client`: `host:port`."""

    job: str
    key: str = ""
    fingerprint: str = ""
    certificate: Certificate | None = None
    signature: bytes = b""
    password: str = ""
    client: str = ""


class Admit(msgspec.Struct, frozen=True, kw_only=True):
    """Let in, as `user`, to the job on `host`."""

    user: str
    host: str


class Denial(msgspec.Struct, frozen=True, kw_only=True):
    """Refused. `text` is what the person reads: what failed, why, the next thing to do. Lines end with a newline."""

    code: Code
    text: str


Verdict = Admit | Denial
