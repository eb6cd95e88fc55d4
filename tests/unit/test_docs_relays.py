"""docs/relays.md says what the code does."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pitstop_relay.config import RelayConfig
from pitstop_relay.transport import MAX_EARLY_PACKET
from pitstop_sandbox.channels import gate
from pitstop_sandbox.holder import scrollback

PAGE = (Path(__file__).parents[2] / "docs" / "relays.md").read_text()


def test_the_limits_are_those_of_the_code() -> None:
    defaults = {field.name: field.default for field in msgspec.structs.fields(RelayConfig)}
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if "`PITSTOP_SSH_" in line]
    told = {row[2].split("`")[1].removeprefix("PITSTOP_").lower(): float(row[1].split()[0])
            for row in rows if len(row) == 3}  # fmt: skip
    assert told == {name: float(defaults[name]) for name in told}
    assert len(told) == 5
    assert f"| bytes of one packet | {MAX_EARLY_PACKET} |" in PAGE
    assert f"{gate.MAX_ENV} variables of {gate.MAX_ENV_BYTES // 1024} KiB together" in PAGE
    assert "1 MiB of scrollback a shell" in PAGE and scrollback.SIZE == 1024 * 1024
