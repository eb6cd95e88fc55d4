"""Our sftp server: whatever a client sends is answered, and breaks nothing."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pitstop_sandbox import pitstop_sftp as sftp
from pitstop_sandbox.pitstop_sftp import Server, string

KINDS = [*range(1, 22), 200, 255]
bodies = st.lists(
    st.one_of(
        st.integers(0, 2**32 - 1).map(lambda number: struct.pack(">I", number)),
        st.sampled_from([b"", b"f", b"missing", b"d", b"d/x", b"\0", b"\xff", b"x" * 300, b"\0\0\0\1"]).map(string),
        st.binary(max_size=12),
    ),
    max_size=6,
).map(b"".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(KINDS), bodies), max_size=30))
def test_every_request_is_answered_under_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requests: list[tuple[int, bytes]]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").write_bytes(b"content")
    server, files = Server(), len(list(Path("/proc/self/fd").iterdir()))
    for number, (kind, body) in enumerate(requests):
        answer = server.answer(bytes((kind,)) + struct.pack(">I", number) + body)
        if kind == sftp.INIT:
            assert answer[:5] == b"\2\0\0\0\3"
        else:
            assert answer[0] in (sftp.STATUS, sftp.HANDLE, sftp.DATA, sftp.NAME, sftp.ATTRS, sftp.EXTENDED_REPLY)
            assert struct.unpack(">I", answer[1:5]) == (number,)
    for handle in list(server._files):
        server.answer(bytes((sftp.CLOSE,)) + struct.pack(">I", 0) + string(handle))
    assert len(list(Path("/proc/self/fd").iterdir())) == files


def test_handles_and_answers_are_bounded(tmp_path: Path) -> None:
    server = Server()
    path = os.fsencode(tmp_path / "big")
    Path(os.fsdecode(path)).write_bytes(bytes(2 * sftp.MAX_MESSAGE))
    head = bytes((sftp.OPEN,)) + struct.pack(">I", 1) + string(path) + struct.pack(">II", sftp.WANTS_READ, 0)
    answers = [server.answer(head) for _ in range(sftp.MAX_HANDLES + 1)]
    assert [answer[0] for answer in answers] == [sftp.HANDLE] * sftp.MAX_HANDLES + [sftp.STATUS]
    assert b"Too many open files" in answers[-1]
    read = bytes((sftp.READ,)) + struct.pack(">I", 1) + answers[0][5:] + struct.pack(">QI", 0, 2**32 - 1)
    assert len(server.answer(read)) < sftp.MAX_MESSAGE
    for fd in server._files.values():
        os.close(fd)


@pytest.mark.parametrize("data", [b"", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\5\1", b"\0\0"])
def test_a_stream_that_breaks_off_ends_the_server(data: bytes) -> None:
    done = subprocess.run([sys.executable, "-I", "-S", sftp.__file__], input=data, capture_output=True, timeout=60)
    assert done.returncode == (0 if len(data) < 4 else 1)
    assert (done.stdout, done.stderr) == (b"", b"")
