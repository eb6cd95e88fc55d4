"""`python -m pitstop_scheduler` runs the service; `python -m pitstop_scheduler verify` checks its log."""

from __future__ import annotations

import sys

from pitstop_common.lifecycle import run
from pitstop_scheduler.config import Config
from pitstop_scheduler.service import main
from pitstop_scheduler.verify import command

if __name__ == "__main__":
    if sys.argv[1:2] == ["verify"]:
        raise SystemExit(command(sys.argv[2:]))
    run("scheduler", Config, main)
