"""What the relay needs of the outside."""

from __future__ import annotations

from typing import Protocol

from pitstop_common.messages import AccessReply, DialReply, DialRequest, SshDenied, WhoReply, WhoRequest


class AccessPort(Protocol):
    """The questions `svc.access` and `svc.who`."""

    async def access(self, job: str, fingerprint: str, *, token: str = "") -> AccessReply:
        """Who may enter a job, whose key asks, and what is known of a token (by its id). Raises PitstopError when
        nobody answers."""

    async def who(self, request: WhoRequest) -> WhoReply:
        """Whose a key, or a certificate, is, and what they may enter. Raises PitstopError when nobody answers."""


class Dialer(Protocol):
    """Asks a sandbox host to dial this worker."""

    async def dial(self, host: str, request: DialRequest) -> DialReply:
        """The host's answer. Raises PitstopError when it does not answer."""


class Events(Protocol):
    """Where `ssh.denied` goes."""

    async def publish(self, fact: SshDenied) -> None:
        """Store a fact. Best effort: a refusal stands without its record."""
