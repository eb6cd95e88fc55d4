"""Draws pictures of a terminal for the README from the output of a real `make demo` (see `make picture`).

CLICOLOR_FORCE=1 python examples/demo.py > demo.log && python tools/picture.py demo.log docs
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

PICTURES: Final = {"1": "demo.svg", "2": "idle.svg"}
"""Parts of the demo by the number in their heading, and the file of each."""
_HEADING: Final = re.compile(r"(\d)\. ")
_COLUMNS: Final = 116
_CELL: Final = 12.2
"""How wide rich draws a character."""
_LEADING: Final = re.compile(r'x="([\d.]+)"( y="[^"]*") textLength="([\d.]+)"([^>]*)>((?:&#160;)+)')
_WEB_FONTS: Final = re.compile(r"@font-face \{[^}]*\}\s*", re.DOTALL)


def parts(log: str) -> dict[str, list[Text]]:
    """The lines of each part, its heading first, by the number in the heading."""
    found: dict[str, list[Text]] = {}
    current: list[Text] = []
    for line in log.splitlines():
        text = Text.from_ansi(line)
        if heading := _HEADING.match(text.plain):
            current = found.setdefault(heading[1], [])
        elif text.plain == "Checks":
            current = []
        current.append(text)
    return found


def drawn(lines: list[Text], name: str) -> str:
    """An SVG that needs nothing from the web."""
    while not lines[-1].plain.strip():
        lines = lines[:-1]
    console = Console(record=True, file=io.StringIO(), width=_COLUMNS, color_system="standard", force_terminal=True,
                      legacy_windows=False)  # fmt: skip
    for line in lines:
        line.truncate(_COLUMNS - 1, overflow="ellipsis")
        console.print(line, soft_wrap=True)
    svg = console.export_svg(title="make demo", unique_id=name)
    return _LEADING.sub(_shifted, _WEB_FONTS.sub("", svg)).rstrip() + "\n"


def _shifted(found: re.Match[str]) -> str:
    """Not all that draw SVG keep spaces at the beginning of a text: it begins behind them."""
    x, y, length, more, spaces = found.groups()
    width = _CELL * len(spaces) / len("&#160;")
    return f'x="{float(x) + width:.1f}"{y} textLength="{float(length) - width:.1f}"{more}>'


def main() -> int:
    """Arguments: the log, the folder for the pictures."""
    log, folder = Path(sys.argv[1]), Path(sys.argv[2])
    found = parts(log.read_text())
    folder.mkdir(exist_ok=True)
    for number, file in PICTURES.items():
        if number not in found:
            print(f"{log} has no part {number}: was it made with CLICOLOR_FORCE=1 by the demo?", file=sys.stderr)
            return 1
        (folder / file).write_text(drawn(found[number], Path(file).stem))
        print(f"wrote {folder / file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
