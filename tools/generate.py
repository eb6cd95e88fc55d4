"""Generated files, all of them: `write` makes them, `check` fails on drift and says what to run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- generated: state diagram -->", "<!-- end of generated -->"


def main(mode: str) -> int:
    """0: all is as it should be."""
    modules = ["pitstop_common.schema", "tools.dashboards", "tools.nats_config"]
    targets = {"pitstop_common.schema": ["schemas"], "tools.dashboards": [], "tools.nats_config": []}
    failed = [
        module
        for module in modules
        if subprocess.run([sys.executable, "-m", module, mode, *targets[module]], cwd=ROOT).returncode
    ]
    drifted = [path for path, render in _diagrams().items() if not _diagram(ROOT / path, render, mode)]
    for name in [*failed, *drifted]:
        print(f"{name}: not as generated; run `make generate`", file=sys.stderr)
    return 1 if failed or drifted else 0


def _diagrams() -> dict[str, Callable[[], str]]:
    from pitstop_sandbox.transitions import diagram as sandbox
    from pitstop_scheduler.transitions import diagram as scheduler

    return {
        "services/scheduler/README.md": scheduler,
        "services/sandbox/README.md": sandbox,
        "ARCHITECTURE.md": lambda: scheduler() + "\n```\n\n```mermaid\n" + sandbox(),
    }


def _diagram(path: Path, render: Callable[[], str], mode: str) -> bool:
    text = path.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    wanted = f"{before}{BEGIN}\n```mermaid\n{render().strip()}\n```\n{END}{after}"
    if mode == "write":
        path.write_text(wanted)
        return True
    return text == wanted


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1] if len(sys.argv) > 1 else "check"))
