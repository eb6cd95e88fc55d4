"""`python -m pitstop_sandbox`: settings from the environment, then the loop."""

from __future__ import annotations

from pitstop_common.lifecycle import run
from pitstop_sandbox.config import SandboxConfig
from pitstop_sandbox.service import serve

if __name__ == "__main__":
    run("sandbox", SandboxConfig, serve)
