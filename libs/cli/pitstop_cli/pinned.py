"""The host key that a relay shows, held against those that are pinned: why ssh refused it, and what to do."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from pitstop_cli.exits import TRANSPORT, Failure
from pitstop_common.public_keys import BadKey, parse_public_key

_SECONDS: Final = 5
_AUTHORITY: Final = "@cert-authority"


async def refuse_another(address: dict[str, Any]) -> None:
    """After ssh has failed: raises Failure when somebody with another key answers there."""
    pinned = str(address.get("known_hosts") or "")
    if _AUTHORITY in pinned and await _scan(address, "-c"):
        return  # it shows a certificate, which ssh has judged
    shown = await _scan(address)
    fault = another(shown, pinned, f"{address['host']}:{address['port']}")
    if fault is not None:
        raise fault


def another(shown: str, pinned: str, where: str) -> Failure | None:
    """What to say of the lines that a scan has `shown`, given the pinned ones; None: nothing. Pure."""
    seen, known = _keys(shown), _keys(pinned)
    if not seen or seen & known:
        return None
    told = ", ".join(_fingerprint(key) for key in sorted(seen))
    wanted = " or ".join(_fingerprint(key) for key in sorted(known)) or "one signed by the pinned authority"
    return Failure(
        f"the relay at {where} shows the host key {told}; pinned is {wanted}. Nothing was sent to it",
        next="Somebody else may answer there: do not go on before whoever runs the relay has confirmed that key "
        "(pitstop relay-key show). Jobs that pause from now on bring it: pitstop rerun",
        code=TRANSPORT,
    )


def fingerprint_of(known_hosts: str) -> str:
    """Of the key in use: `[host]:port ssh-ed25519 AAAA…` -> `SHA256:…`; empty when there is none."""
    lines = [line for line in known_hosts.splitlines() if line and line[0] not in "@#"]
    try:
        return parse_public_key(" ".join(lines[0].split()[1:3])).fingerprint if lines else ""
    except BadKey:
        return ""


def _keys(lines: str) -> set[str]:
    rows = [line.split() for line in lines.splitlines() if line and line[0] not in "@#"]
    return {f"{row[1]} {row[2]}" for row in rows if len(row) >= 3}


def _fingerprint(key: str) -> str:
    try:
        return parse_public_key(key).fingerprint
    except BadKey:
        return "?"


async def _scan(address: dict[str, Any], *options: str) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            "ssh-keyscan", "-T", str(_SECONDS), "-t", "ed25519", *options, "-p", str(address["port"]), "--",
            str(address["host"]), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
    except OSError:
        return ""
    out, _ = await process.communicate()
    return out.decode(errors="replace")
