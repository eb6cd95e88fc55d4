"""`python -m pitstop_relay`: one relay worker."""

from pitstop_common.lifecycle import run
from pitstop_relay.config import RelayConfig
from pitstop_relay.service import serve

if __name__ == "__main__":
    run("relay", RelayConfig, serve)
