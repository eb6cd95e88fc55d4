"""`make demo` as its reader runs it: all as told, or a clear line and an exit code; nothing is left of it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from tests.cli_system import processes_of

from pitstop_common.embedded import die_with_parent

ROOT = Path(__file__).parent.parent.parent
SECONDS = 100.0
CLEAN = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "CLICOLOR_FORCE"}}
KEY_LINES = (
    r" first +step\.finished +step 3 \(Test the clock\): failure, exit code 1",
    r" first +job\.paused +on failure, at step 3",
    r" first +ssh\.connected +ada is in",
    r"\| pitstop:~/work/examples/clock\$ pwd\n +\| /home/runner/work/examples/clock\n",
    r"\| CASES=/home/runner/work/examples/clock/cases\.txt\n",
    r"pitstop-step retry\n(.*\n)+? +\| ok    3725 is 1:02:05\n",
    r" first +step\.finished +step 3 \(Test the clock\): success",
    r" first +run\.finished +success",
    r" third +run\.queued +run [a-z2-7]{12}, position 1",
    r" second +session\.expired +idle",
    r" third +run\.started ",
    r" second +run\.finished +cancellation \(idle\)",
    r" third +run\.finished +success",
    r"  ok  its record: step 3 success, attempts 2, retry, by ada",
    r"  ok  its slot went to third 0\.\d\d s after the deadline",
    r"  ok  pitstop verify: \d+ records, 3 runs, 3 grants, nothing wrong",
    r"  ok  nothing is left: no process, no mount, no folder",
    r"\nAll as told, in \d",
)


def tree(folder: Path) -> Path:
    """A copy of the examples, with a commit of its own to be made."""
    copy = folder / "tree"
    shutil.copytree(ROOT / "examples", copy / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def commit(copy: Path) -> None:
    """All that is there."""
    git = ["git", "-C", str(copy), "-c", "user.name=ada", "-c", "user.email=ada@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "work"]):
        subprocess.run([*git, *words], check=True)


def demo(root: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run it to its end, off a terminal, with its temporary folder in a known place, which must be empty again."""
    temporary = folder / "tmp"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, root / "examples" / "demo.py"], env=CLEAN | {"TMPDIR": str(temporary)}, timeout=SECONDS,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, preexec_fn=die_with_parent,
    )  # fmt: skip
    assert list(temporary.iterdir()) == []
    assert processes_of(temporary) == {}
    return done


def test_the_main_job_is_told_and_all_is_as_told(tmp_path: Path) -> None:
    done = demo(ROOT, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    position = 0
    for line in KEY_LINES:
        found = re.compile(line).search(done.stdout, position)
        assert found, f"no {line!r} after {done.stdout[position:]}"
        position = found.start()
    assert "  NO  " not in done.stdout
    assert "\x1b" not in done.stdout


def test_a_test_step_that_does_not_fail_fails_the_demo(tmp_path: Path) -> None:
    copy = tree(tmp_path)
    clock = copy / "examples" / "clock" / "clock.sh"
    clock.write_text(clock.read_text().replace("/ 60))", "/ 60 % 60))"))
    commit(copy)
    done = demo(copy, tmp_path)
    assert done.returncode == 1
    assert "The demo FAILED: step 3 (Test the clock) did not fail" in done.stderr


@pytest.mark.parametrize("with_git", [False, True])
def test_a_tree_without_a_commit_is_told_what_to_do(tmp_path: Path, with_git: bool) -> None:
    copy = tree(tmp_path)
    if with_git:
        subprocess.run(["git", "init", "-q", copy], check=True)
    done = demo(copy, tmp_path)
    assert done.returncode == 1
    assert f"{copy} is not a git checkout with a commit" in done.stderr
    assert "git init && git add -A && git commit -m start" in done.stderr


def test_ctrl_c_on_a_terminal_leaves_nothing(tmp_path: Path) -> None:
    copy = tree(tmp_path)
    commit(copy)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    ours, theirs = pty.openpty()

    def controlling() -> None:
        die_with_parent()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, copy / "examples" / "demo.py"], env=CLEAN | {"TMPDIR": str(temporary), "TERM": "xterm"},
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=controlling,
    )  # fmt: skip
    os.close(theirs)
    try:
        seen = read_until(ours, "ssh.connected")
        assert "\x1b[36mjob.paused" in seen
        os.write(ours, b"\x03")
        assert "The demo was stopped; nothing of it is left." in read_until(ours, "nothing of it is left.")
        assert process.wait(SECONDS) == 130
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours)
    assert list(temporary.iterdir()) == []
    assert processes_of(temporary) == {}


def read_until(terminal: int, words: str) -> str:
    """What a terminal shows up to some words, or to its end."""
    seen = ""
    while words not in seen:
        try:
            data = os.read(terminal, 65536)
        except OSError:
            return seen
        seen += data.decode(errors="replace")
    return seen
