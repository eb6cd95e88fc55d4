"""`python -m pitstop_janitor`: settings from the environment, then the loop."""

from __future__ import annotations

from pitstop_common.lifecycle import run
from pitstop_janitor.config import JanitorConfig
from pitstop_janitor.service import serve

if __name__ == "__main__":
    run("janitor", JanitorConfig, serve)
