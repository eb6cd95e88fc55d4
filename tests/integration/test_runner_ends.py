"""How steps end in real sandboxes: signals, time limits and all that a step started, floods of output."""

from __future__ import annotations

import asyncio
import os
import re
import time
from pathlib import Path

from tests.jobs import driven, run_of, step

from pitstop_common.messages import LogChunk
from pitstop_sandbox.holder import kernel
from pitstop_sandbox.settings import Settings

MEGABYTES = 100


async def test_signals_codes_and_shells_of_ones_own(tmp_path: Path) -> None:
    run = run_of(
        step("kill -SEGV $$", continue_on_error=True),
        step("sh -c 'kill -KILL $$'", continue_on_error=True),
        step("exit 77", continue_on_error=True),
        step("print join('-', 1..3), qq{\\n}", shell="perl -w {0}"),
        step("printf 'a\\0b\\377\\033[2Jc\\n'; exec cat $0", shell="sh -c 'sh {0} tail'"),
        step("x", shell="/no/such {0}"),
    )
    async with driven(run, tmp_path / "job") as job:
        await job.end()
        assert job.store.log(1) == ["::error::The step was killed by SIGSEGV (139)"]
        (told,) = [line for line in job.store.log(2) if line.startswith("::error::")]
        assert told.startswith("::error::Exit code 137: a program of the step was killed by SIGKILL; nobody asked")
        assert job.store.log(3) == []
        assert job.store.log(4) == ["1-2-3"]
        assert job.store.log(5)[0] == "a\0b\ufffd\x1b[2Jc"
        report = job.store.report()
        assert [one.exit_code for one in report.steps[:4]] == [139, 137, 77, 0]
        assert any("no program /no/such here" in line for line in job.store.log(0))


async def test_a_time_limit_ends_all_that_the_step_started_and_nothing_else(tmp_path: Path) -> None:
    stubborn = "trap '' TERM; exec sleep 7001"
    run = run_of(
        "setsid sleep 7000 >/dev/null 2>&1 &",
        step(f"setsid sh -c \"{stubborn}\" & (setsid setsid sh -c '(sleep 7002 &)' &) ; sleep 0.2; "
             "trap 'echo cleaned; exit 9' TERM; echo ready; sleep 7003 & wait", timeout=2),
        step("ps -eo args=", condition="always"),
    )  # fmt: skip
    async with driven(run, tmp_path / "job", settings=Settings(grace=1.5)) as job:
        await job.end()
        report = job.store.report()
        assert (report.steps[1].result, report.steps[1].exit_code) == ("timeout", 9)
        assert job.store.log(2) == ["ready", "cleaned"]
        left = [line for line in job.store.log(3) if re.search(r"sleep 700\d", line)]
        assert left == ["sleep 7000"]


def resident(pid: int | str) -> int:
    """Of a process, bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) * 1024


class Counting:
    """A LogSink that keeps what it can prove the log whole by, and not the log."""

    def __init__(self) -> None:
        self.lines = 0
        self.bytes = 0
        self.most = 0

    async def publish(self, _org: str, _run: str, chunk: LogChunk) -> None:
        """As the port says."""
        if chunk.step != 1:
            return
        assert chunk.first == self.lines
        self.lines += len(chunk.lines)
        self.bytes += sum(len(line) + 1 for line in chunk.lines)
        self.most = max(self.most, resident(os.getpid()))


async def test_a_flood_of_output_grows_neither_the_host_nor_the_holder(tmp_path: Path) -> None:
    """Also one line of 1 MB in it, and a program that writes faster than anybody reads."""
    line = "0123456789" * 10 + "abcdefghijklmnopqrstuvwxyz"  # 127 bytes with its end
    count = MEGABYTES * 10**6 // 127
    script = f"yes {line} | head -n {count}; head -c 1000000 /dev/zero | tr '\\0' x; echo"
    sink = Counting()
    async with driven(run_of(script), tmp_path / "job") as job:
        job.runner._outbox._logs = sink
        before, began = resident(os.getpid()), time.monotonic()
        holder = 0
        while not job.task.done():
            await asyncio.wait({job.task}, timeout=0.2)
            holder = max([holder, *(resident(pid) for pid in kernel.children() if is_holder(pid))])
        await job.end()
        took = time.monotonic() - began
        note = "[pitstop: this line is 1000000 bytes long; what follows 262144 is not shown]"
        assert job.runner.finished == "success"
        assert (sink.lines, sink.bytes) == (count + 17, count * 127 + 262144 + 16 + len(note) + 1)
        grown = sink.most - before
        print(f"{sink.lines / took:,.0f} lines/s, {sink.bytes / took / 1e6:.1f} MB/s; "
              f"the host grew by {grown / 1e6:.1f} MB, its holder has {holder / 1e6:.1f} MB")  # fmt: skip
        assert grown < 24e6
        assert 0 < holder < 24e6


def is_holder(pid: int) -> bool:
    """Is this the holder of a sandbox."""
    try:
        return b"holder" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


async def test_outputs_with_hostile_delimiters(tmp_path: Path) -> None:
    delimiters = ["EOF", "a=b", "<<", "$(id)", "'", "::", "\r\t"]
    script = 'printf "BODY<<%s\\nx\\nBODY<<%s\\nEO\\n%s\\nNEXT=1\\n" "$D" "no$D" "$D" >>$GITHUB_OUTPUT'
    run = run_of(*(step(script, id=f"a{n}", env={"D": each}) for n, each in enumerate(delimiters)))
    async with driven(run, tmp_path / "job") as job:
        await job.end()
        for each, left in zip(delimiters, job.store.report().steps, strict=True):
            assert left.outputs == {"BODY": f"x\nBODY<<no{each}\nEO", "NEXT": "1"}
