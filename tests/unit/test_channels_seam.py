"""The sandbox end uses private names of asyncssh: this fails when a new version changes one of them."""

from __future__ import annotations

import asyncio
import inspect
import re
from importlib.metadata import version
from pathlib import Path

import asyncssh
import pytest
from asyncssh.channel import SSHServerChannel
from asyncssh.connection import SSHConnection, SSHServerConnection
from asyncssh.misc import map_handler_name
from asyncssh.packet import Boolean, Byte, SSHPacket, String, UInt32
from hypothesis import given
from hypothesis import strategies as st
from tests.entered_jobs import LocalJob

from pitstop_common.roles import Services
from pitstop_sandbox.channels import gate, pace
from pitstop_sandbox.channels.forwards import Forwards
from pitstop_sandbox.channels.gate import Answer, Broken, Gate, Pass
from pitstop_sandbox.channels.rules import Rules
from pitstop_sandbox.channels.seam import Connection
from pitstop_sandbox.ports import Session


def test_the_version_is_the_one_that_was_read() -> None:
    assert version("asyncssh") == "2.24.1"


def test_the_names_that_are_set_and_called() -> None:
    made = inspect.getsource(SSHConnection.__init__)
    for name in ("_channels", "_transport", "_auth_complete", "_kex_complete", "_owner"):
        assert f"self.{name}" in made
    assert list(inspect.signature(SSHServerConnection._cleanup).parameters) == ["self", "exc"]
    assert list(inspect.signature(SSHServerConnection.send_packet).parameters) == ["self", "pkttype", "args", "handler"]
    assert "handler: Optional[SSHPacketLogger] = None" in inspect.getsource(SSHServerConnection.send_packet)
    for name in ("create_agent_listener", "attach_x11_listener", "create_server_channel", "create_tcp_channel",
                 "create_unix_channel", "create_agent_channel", "create_connection", "create_unix_connection",
                 "_report_global_response"):  # fmt: skip
        assert callable(getattr(SSHServerConnection, name))
    opened = inspect.getsource(SSHServerConnection._process_direct_tcpip_open)
    assert "isinstance(result, tuple)" in opened and "self._owner.connection_requested(" in opened


def test_every_handler_that_a_client_can_name_is_known() -> None:
    """asyncssh finds handlers by the client's words. A new one must be judged before it is served."""
    names = set(dir(SSHServerConnection))
    opens = {name for name in names if re.fullmatch(r"_process_.+_open", name)}
    assert opens == {
        "_process_session_open",
        "_process_direct_tcpip_open",
        "_process_direct_streamlocal_at_openssh_dot_com_open",
        "_process_tun_at_openssh_dot_com_open",
    } | {name for name in opens if name == "_process_channel_open"}
    requests = {name for name in names if re.fullmatch(r"_process_.+_global_request", name)}
    assert requests == {
        "_process_keepalive_at_openssh_dot_com_global_request",
        "_process_tcpip_forward_global_request",
        "_process_cancel_tcpip_forward_global_request",
        "_process_streamlocal_forward_at_openssh_dot_com_global_request",
        "_process_cancel_streamlocal_forward_at_openssh_dot_com_global_request",
        "_process_hostkeys_prove_00_at_openssh_dot_com_global_request",
    }
    on_channels = {name for name in dir(SSHServerChannel) if re.fullmatch(r"_process_.+_request", name)}
    assert on_channels == {
        f"_process_{name}_request"
        for name in (
            "pty_req", "x11_req", "auth_agent_req_at_openssh_dot_com", "env", "shell", "exec", "subsystem",
            "window_change", "signal", "break", "keepalive_at_openssh_dot_com",
        )
    }  # fmt: skip


words = st.sampled_from(
    ["session", "direct-tcpip", "direct-streamlocal@openssh.com", "tun@openssh.com", "x11", "channel", "", "_", "é",
     "forwarded-tcpip", "auth-agent@openssh.com"]
)  # fmt: skip
OPENED = {"session", "direct-tcpip", "direct-streamlocal@openssh.com"}
NONE = Rules("web", Services(terminal=False, exec=False, sftp=False, forwarding=False, agent=False))


@given(words, st.integers(0, 2**32 - 1))
def test_only_sessions_and_forwards_are_opened(kind: str, sender: int) -> None:
    message = Byte(90) + String(kind) + UInt32(sender) + UInt32(1) + UInt32(1)
    for rules, opened in ((Rules(), OPENED), (NONE, {"session"})):
        verdict = Gate(rules).judge(message, 0, 0)
        if kind in opened:
            assert verdict == Pass()
        else:
            assert isinstance(verdict, Answer)
            assert verdict.message.startswith(Byte(92) + UInt32(sender) + UInt32(1))
            assert b"pitstop: " in verdict.message


LISTEN = ("tcpip-forward", "streamlocal-forward@openssh.com")
UNLISTEN = ("cancel-tcpip-forward", "cancel-streamlocal-forward@openssh.com", "keepalive@openssh.com")


@given(st.sampled_from([*LISTEN, *UNLISTEN, "hostkeys-prove-00@openssh.com", "x", "channel", ""]), st.booleans())
def test_other_global_requests_are_answered_in_their_turn_and_do_nothing(name: str, wants_reply: bool) -> None:
    message = Byte(80) + String(name) + Boolean(wants_reply)
    nobody = Pass(Byte(80) + String(gate.NOBODY) + Boolean(wants_reply))
    assert Gate(Rules()).judge(message, 0, 0) == (Pass() if name in (*LISTEN, *UNLISTEN) else nobody)
    closed = Gate(NONE)
    assert closed.judge(message, 0, 0) == (Pass() if name in UNLISTEN else nobody)
    assert [("is switched off for the project web" in text) for text in closed.refused] == [True] * (name in LISTEN)


def test_nobody_handles_the_name_of_the_refused() -> None:
    name = map_handler_name(gate.NOBODY)
    assert not hasattr(Connection, f"_process_{name}_global_request")


@given(st.lists(st.floats(0, 0.2), max_size=400))
def test_opens_are_bounded_over_any_time(pauses: list[float]) -> None:
    judge, now, taken = Gate(Rules()), 1000.0, 0
    for pause in pauses:
        now += pause
        verdict = judge.judge(Byte(90) + String("session") + UInt32(0) + UInt32(1) + UInt32(1), 0, now)
        taken += verdict == Pass()
    assert taken <= pace.OPENS_AT_ONCE + pace.OPENS_A_SECOND * sum(pauses) + 1
    if len(pauses) <= pace.OPENS_AT_ONCE:
        assert taken == len(pauses)


def test_a_flood_of_requests_ends_the_connection() -> None:
    judge = Gate(Rules())
    with pytest.raises(Broken, match="requests a second"):
        for _ in range(pace.OPENS_AT_ONCE + 1):
            judge.judge(Byte(80) + String("tcpip-forward") + Boolean(True), 0, 0)


def test_variables_are_bounded() -> None:
    judge = Gate(Rules())
    small = Byte(98) + UInt32(0) + String("env") + Boolean(False) + String("A") + String("B")
    for _ in range(gate.MAX_ENV):
        judge.judge(small, 1, 0)
    try:
        judge.judge(small, 1, 0)
    except Broken as error:
        assert str(error) == "too many environment variables"
    else:
        raise AssertionError("no bound")


def forwards() -> Forwards:
    person = Session(id="s", user="ada", fingerprint="SHA256:x", client="")
    return Forwards(LocalJob("abcdefghijkl-1", Path("/nowhere")), person, Rules(), set())


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_whatever_is_fed_never_raises_and_ends_at_most_once(messages: list[bytes]) -> None:
    async def main() -> None:
        sent: list[bytes] = []
        ended: list[str] = []
        connection = Connection(
            asyncssh.SSHServerSession, forwards(), lambda *messages: sent.extend(messages), ended.append
        )
        for message in messages:
            connection.feed(message)
            await asyncio.sleep(0)
        connection.lost()
        connection.lost()
        await asyncio.sleep(0)
        assert len(ended) <= 1
        assert connection.channels == 0

    asyncio.run(main())


@given(
    st.lists(
        st.tuples(
            st.integers(80, 127),
            st.integers(0, 2),
            st.sampled_from(["session", "direct-tcpip", "exec", "pty-req", "shell", "x", "tcpip-forward"]),
            st.binary(max_size=40),
        ),
        max_size=20,
    )
)
def test_messages_that_look_right_never_raise(parts: list[tuple[int, int, str, bytes]]) -> None:
    messages = [Byte(90) + String("session") + UInt32(0) + UInt32(1000) + UInt32(1000)]
    for kind, channel, name, rest in parts:
        head = String(name) + UInt32(channel) if kind == 90 else UInt32(channel) + String(name)
        messages.append(Byte(kind) + head + rest)

    async def main() -> None:
        ended: list[str] = []
        connection = Connection(asyncssh.SSHServerSession, forwards(), lambda _message: None, ended.append)
        for message in messages:
            connection.feed(message)
            await asyncio.sleep(0)
        connection.lost()
        await asyncio.sleep(0)
        assert len(ended) <= 1

    asyncio.run(main())


def test_what_a_client_may_send_unread_is_bounded() -> None:
    async def main() -> None:
        sent: list[bytes] = []
        connection = Connection(
            asyncssh.SSHServerSession, forwards(), lambda *messages: sent.extend(messages), lambda _reason: None
        )
        for number in range(gate.MAX_CHANNELS + 3):
            connection.feed(Byte(90) + String("session") + UInt32(number) + UInt32(1000) + UInt32(1000))
            await asyncio.sleep(0)
        async with asyncio.timeout(30):
            while len(sent) < gate.MAX_CHANNELS + 3:
                await asyncio.sleep(0)
        opened = [SSHPacket(message[9:]).get_uint32() for message in sent if message[0] == 91]
        assert len(opened) == gate.MAX_CHANNELS
        assert opened[0] == 2 * 2**20
        assert sum(opened) <= 30 * 2**20
        connection.lost()

    asyncio.run(main())
