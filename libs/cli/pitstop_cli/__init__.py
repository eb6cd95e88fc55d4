"""The `pitstop` command, and `pitstop up`."""

from typing import Final

VERSION: Final = "0.1.0"
