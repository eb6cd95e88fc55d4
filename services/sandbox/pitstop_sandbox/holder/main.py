"""Where a holder starts: `command()` for the one who starts it, `main()` in the new process."""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys

from pitstop_sandbox.holder import kernel
from pitstop_sandbox.holder.server import Holder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

CONTROL_FD: Final = 3
"""Where a holder finds its socket to the one who started it."""


def main() -> None:
    """Run a holder. The arguments: the user id of the one who started it; where its packages are; `privileged` when its
    sandboxes decide themselves who gains privileges in them (a container whose image has sudo)."""
    os.umask(0o077)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    kernel.own_keyring()
    if "privileged" not in sys.argv[3:]:
        kernel.no_new_privileges()
    kernel.adopt_orphans()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.closerange(CONTROL_FD + 1, most)
    creator = socket.socket(fileno=CONTROL_FD)
    creator.set_inheritable(False)
    gc.freeze()
    Holder(creator, int(sys.argv[1])).run()
