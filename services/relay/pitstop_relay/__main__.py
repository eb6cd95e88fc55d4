"""`python -m pitstop_relay`: one relay worker, or several (PITSTOP_RELAY_WORKERS)."""

import os

from pitstop_common.lifecycle import run
from pitstop_relay.config import RelayConfig
from pitstop_relay.service import serve
from pitstop_relay.workers import supervise

if __name__ == "__main__":
    if os.environ.get("PITSTOP_RELAY_WORKERS", "1") in {"", "1"}:
        run("relay", RelayConfig, serve)
    else:
        supervise()
