"""The parts of a channel: variables, terminal modes, logins seen, copying with backpressure; and the link's frames."""

from __future__ import annotations

import asyncio
import os
import pty
import termios
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.patience import PATIENCE

from pitstop_common.limits import MAX_FRAME
from pitstop_common.link import Frame, Kind, LinkError, Reader, pack
from pitstop_sandbox.channels import environment
from pitstop_sandbox.channels.pump import STDIN_HIGH, Input, Output
from pitstop_sandbox.channels.seen import Seen
from pitstop_sandbox.holder import modes


@given(
    st.dictionaries(st.text(max_size=12), st.text(max_size=12)),
    st.dictionaries(st.text(max_size=8), st.text(max_size=8)),
)
def test_no_variable_of_the_step_is_changed(sent: dict[str, str], step: dict[str, str]) -> None:
    assert not set(environment.added({**sent, **step}, step, None)) & set(step)


@pytest.mark.parametrize(
    "name", ["PATH", "LD_PRELOAD", "BASH_ENV", "ENV", "IFS", "HOME", "GITHUB_ENV", "lc_all", "LC_\n"]
)
def test_harmful_variables_are_left_out(name: str) -> None:
    assert environment.added({name: "x"}, {}, None) == {}


def test_the_clients_terminal_is_taken_and_checked() -> None:
    assert environment.added({"TERM": "a"}, {"TERM": "dumb"}, "xterm") == {"TERM": "xterm"}
    assert environment.added({}, {}, "x; rm -rf /") == {"TERM": "dumb"}
    assert environment.added({"LANG": "x" * 2000}, {}, None) == {}


def test_modes_are_put_on_a_terminal() -> None:
    master, slave = pty.openpty()
    try:
        modes.apply(master, [(53, 0), (1, 7), (72, 0), (42, 1), (4, 255), (200, 9)])
        input_, output, _control, local, _i, _o, characters = termios.tcgetattr(slave)
        assert not local & termios.ECHO
        assert not output & termios.ONLCR
        assert input_ & 0o40000
        assert characters[termios.VINTR] == b"\x07"
        assert characters[termios.VKILL] == b"\0"
        assert local & termios.ICANON
    finally:
        os.close(master)
        os.close(slave)


def test_a_login_is_new_once_over_restarts_too(tmp_path: Path) -> None:
    path = tmp_path / "seen"
    seen = Seen(path)
    assert seen.first_time(b"a" * 32)
    assert not seen.first_time(b"a" * 32)
    with path.open("a") as file:
        file.write("6162")  # a kill in the middle of a line
    again = Seen(path)
    assert not again.first_time(b"a" * 32)
    assert again.first_time(b"b" * 32)
    assert not Seen(path).first_time(b"b" * 32)


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 3_000_000])
async def test_everything_is_copied_and_descriptors_are_closed(size: int) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    data = os.urandom(size)
    read, write = os.pipe()
    got = bytearray()
    output = Output(read, got.extend)
    input_ = Input(write, lambda: None, lambda: None)
    for start in range(0, size, 10_000):
        input_.write(data[start : start + 10_000])
    input_.end()
    await asyncio.wait_for(asyncio.shield(output.done), PATIENCE)
    assert bytes(got) == data
    output.close()
    input_.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_a_full_pipe_holds_its_giver_up_and_lets_go() -> None:
    read, write = os.pipe()
    said: list[str] = []
    input_ = Input(write, lambda: said.append("choke"), lambda: said.append("free"))
    input_.write(bytes(300_000))
    input_.write(bytes(STDIN_HIGH))
    assert said == ["choke"]
    got = bytearray()
    output = Output(read, got.extend)
    async with asyncio.timeout(PATIENCE):
        while "free" not in said:
            await asyncio.sleep(0)
    input_.end()
    await output.done
    assert len(got) == 300_000 + STDIN_HIGH


async def test_a_process_that_stops_reading_is_no_error() -> None:
    read, write = os.pipe()
    said: list[str] = []
    input_ = Input(write, lambda: said.append("choke"), lambda: said.append("free"))
    input_.write(bytes(200_000))
    os.close(read)
    async with asyncio.timeout(PATIENCE):
        while "free" not in said:
            await asyncio.sleep(0)
    input_.write(b"more")
    input_.end()


async def test_a_held_output_reads_nothing() -> None:
    read, write = os.pipe()
    got = bytearray()
    output = Output(read, got.extend)
    output.hold("a")
    output.hold("b")
    os.write(write, b"x")
    output.release("a")
    for _ in range(5):
        await asyncio.sleep(0)
    assert got == b""
    output.release("b")
    os.close(write)
    await asyncio.wait_for(asyncio.shield(output.done), PATIENCE)
    assert got == b"x"


frames = st.builds(Frame, st.sampled_from(Kind), st.integers(0, 2**32 - 1), st.binary(max_size=100))


@given(st.lists(frames, max_size=10), st.integers(1, 50))
def test_frames_come_out_as_they_went_in_however_they_are_cut(sent: list[Frame], step: int) -> None:
    stream = b"".join(pack(frame.kind, frame.connection, frame.payload) for frame in sent)
    reader = Reader()
    got = [frame for start in range(0, len(stream), step) for frame in reader.feed(stream[start : start + step])]
    assert got == sent


@given(st.lists(st.binary(max_size=64), max_size=20))
def test_any_bytes_are_frames_or_an_error(pieces: list[bytes]) -> None:
    reader = Reader()
    try:
        for piece in pieces:
            for frame in reader.feed(piece):
                assert len(frame.payload) <= MAX_FRAME
    except LinkError:
        pass


def test_a_frame_that_is_too_long_is_seen_by_its_head() -> None:
    with pytest.raises(LinkError, match="the limit is"):
        list(Reader().feed((MAX_FRAME + 1).to_bytes(4, "big") + b"\x02" + bytes(4)))
