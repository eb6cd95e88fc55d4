"""What a service's process is given before it begins."""

from __future__ import annotations

import subprocess
import sys

_CODE = """
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
from pitstop_common.lifecycle import allow_descriptors
allow_descriptors()
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
"""


def test_a_thousand_shells_do_not_fail_for_the_soft_limit_of_open_files() -> None:
    subprocess.run([sys.executable, "-c", _CODE], check=True)
