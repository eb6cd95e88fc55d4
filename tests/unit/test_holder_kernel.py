"""Who a process is: its pid and the time it started. No other is ever killed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from pitstop_sandbox.holder import kernel


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_it_is_killed_by_its_pid_and_start_time(sleeper: subprocess.Popen[bytes]) -> None:
    assert not kernel.is_exiting(sleeper.pid)
    assert kernel.kill_exactly(sleeper.pid, kernel.start_time(sleeper.pid))
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert kernel.is_exiting(sleeper.pid)
    assert not kernel.kill_exactly(sleeper.pid, kernel.start_time(sleeper.pid))
    assert sleeper.wait() == -signal.SIGKILL
    assert kernel.start_time(sleeper.pid) == 0


@pytest.mark.parametrize("wrong", [-1, 0, 1])
def test_a_process_with_another_start_time_is_left_alone(sleeper: subprocess.Popen[bytes], wrong: int) -> None:
    started = kernel.start_time(sleeper.pid) + wrong if wrong else 0
    assert not kernel.kill_exactly(sleeper.pid, started)
    assert sleeper.poll() is None


@pytest.mark.parametrize("pid", [0, -1])
def test_no_group_and_not_everybody_is_killed(pid: int) -> None:
    assert not kernel.kill_exactly(pid, 1)


def test_the_members_of_a_session_are_found(sleeper: subprocess.Popen[bytes]) -> None:
    assert kernel.session_members(sleeper.pid) == [sleeper.pid]
    assert os.getpid() not in kernel.session_members(sleeper.pid)
