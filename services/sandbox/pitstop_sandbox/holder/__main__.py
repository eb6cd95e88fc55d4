"""`python -m pitstop_sandbox.holder sweep DIR`: end every holder and sandbox in the job folders of DIR."""

import sys
from pathlib import Path

from pitstop_sandbox.holder.sweep import sweep


def main(arguments: list[str]) -> int:
    """Prints the name of each job folder that had one."""
    if len(arguments) != 2 or arguments[0] != "sweep":
        sys.stderr.write("usage: python -m pitstop_sandbox.holder sweep DIR\n")
        return 2
    for name in sweep(Path(arguments[1])):
        sys.stdout.write(f"ended {name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
