"""Much data: whole, in bounds, and never at the cost of others."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import resource
from collections.abc import Callable
from typing import cast

import asyncssh
import pytest
from asyncssh.packet import String, UInt32
from tests.patience import PATIENCE
from tests.ssh_support import JOB, World, in_world

from pitstop_common import limits
from pitstop_sandbox.channels import pump

MIB = 1024 * 1024


def sample(ssh: World, size: int) -> tuple[str, str]:
    data = os.urandom(MIB) * (size // MIB)
    path = ssh.folder / "data"
    path.write_bytes(data)
    return str(path), hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("cipher", ["aes128-gcm@openssh.com", "aes256-ctr"])
@in_world()
async def test_a_big_download_is_whole(ssh: World, cipher: str) -> None:
    path, digest = sample(ssh, 40 * MIB)
    status, out, err = await ssh.ssh(f"cat {path}", options=["-c", cipher])
    assert (status, err) == (0, b"")
    assert hashlib.sha256(out).hexdigest() == digest


@in_world()
async def test_keys_change_in_the_middle_of_a_transfer(ssh: World) -> None:
    data = os.urandom(30 * MIB)
    status, out, err = await ssh.ssh("cat", stdin=data, options=["-o", "RekeyLimit=2M"])
    assert (status, err) == (0, b"")
    assert out == data


@in_world()
async def test_who_reads_slowly_costs_no_memory_and_stops_nobody(ssh: World) -> None:
    async with asyncssh.connect(
        "127.0.0.1", ssh.at.port, username=JOB, client_keys=[str(ssh.folder / "ada")], known_hosts=None, config=None
    ) as client:
        # A huge window: nothing but the pause frames holds the sandbox up.
        slow = await client.create_process("cat /dev/zero", encoding=None, window=2**31)
        transport = cast(asyncio.Transport, client._transport)
        transport.pause_reading()
        visitor = next(iter(next(iter(ssh.host._links)).visitors.values()))
        async with asyncio.timeout(20):
            while not visitor._holds:
                await asyncio.sleep(0.01)
        peak = max([guest._transport.waiting for guest in ssh.relay._guests])
        assert peak < limits.PAUSE_ABOVE + 8 * MIB
        shown = ssh.metric("pitstop_relay_bytes_total", direction="down")
        assert await ssh.ssh("echo others") == (0, b"others\n", b"")
        assert ssh.metric("pitstop_relay_bytes_total", direction="down") - shown < 100_000
        transport.resume_reading()
        async with asyncio.timeout(20):
            while visitor._holds:
                await asyncio.sleep(0.01)
        slow.kill()
        slow.close()


@in_world()
async def test_forwards_that_nobody_reads_cost_no_memory_and_stop_nobody(ssh: World) -> None:
    async def pour(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(bytes(MIB))
                await writer.drain()

    async with (
        await asyncio.start_server(pour, "127.0.0.1", 0) as server,
        asyncssh.connect("127.0.0.1", ssh.at.port, username=JOB, client_keys=[str(ssh.folder / "ada")],
                         known_hosts=None, config=None) as client,
    ):  # fmt: skip
        port = server.sockets[0].getsockname()[1]
        transport = cast(asyncio.Transport, client._transport)
        opened = [await client.open_connection("127.0.0.1", port, window=2**31) for _ in range(4)]
        transport.pause_reading()
        visitor = next(iter(next(iter(ssh.host._links)).visitors.values()))
        async with asyncio.timeout(30):
            while not visitor._holds:
                await asyncio.sleep(0.01)
        assert max(guest._transport.waiting for guest in ssh.relay._guests) < limits.PAUSE_ABOVE + 8 * MIB
        assert await ssh.ssh("echo others") == (0, b"others\n", b"")
        for _reader, writer in opened:
            writer.close()
        transport.resume_reading()
        async with asyncio.timeout(30):
            while visitor._holds:
                await asyncio.sleep(0.01)


@in_world()
async def test_who_reads_nothing_and_asks_on_is_dropped(ssh: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pitstop_relay.guest.DROP_ABOVE", MIB // 4)
    client = await asyncssh.connect(
        "127.0.0.1", ssh.at.port, username=JOB, client_keys=[str(ssh.folder / "ada")], known_hosts=None, config=None
    )
    process = await client.create_process("cat", encoding=None)
    transport = cast(asyncio.Transport, client._transport)
    transport.pause_reading()
    unheard = String("no-such-channel") + UInt32(1) * 3
    async with asyncio.timeout(60):
        while ssh.metric("pitstop_relay_sessions_closed_total", reason="too_slow") == 0:
            for _ in range(2000):
                client.send_packet(90, unheard)
            await asyncio.sleep(0)
    await ssh.job.until("closed", "ada", "disconnect")
    process.close()
    client.abort()
    await client.wait_closed()


@in_world()
async def test_a_command_that_reads_slowly_holds_its_client_up(ssh: World) -> None:
    async with asyncssh.connect(
        "127.0.0.1", ssh.at.port, username=JOB, client_keys=[str(ssh.folder / "ada")], known_hosts=None, config=None
    ) as client:
        waiting = "while [ ! -e go ]; do sleep 0.02; done; wc -c"
        process = await client.create_process(waiting, encoding=None)
        for _ in range(32):
            process.stdin.write(bytes(MIB))
        await asyncio.wait_for(_settled(process.channel.get_write_buffer_size), PATIENCE)
        taken = 32 * MIB - process.channel.get_write_buffer_size()
        assert taken <= 2 * MIB + 2 * pump.STDIN_HIGH + pump.CHUNK
        process.stdin.write_eof()
        (ssh.folder / "go").touch()
        async with asyncio.timeout(30):
            assert (await process.stdout.read()).strip() == str(32 * MIB).encode()


async def _settled(measure: Callable[[], int]) -> None:
    last, same = -1, 0
    while same < 20:
        await asyncio.sleep(0.01)
        now = measure()
        last, same = now, same + 1 if now == last else 0


@in_world()
async def test_memory_stays_flat_over_a_long_download(ssh: World) -> None:
    await ssh.ssh("head -c 20000000 /dev/zero | wc -c; head -c 20000000 /dev/zero")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    client = await asyncio.create_subprocess_exec(
        *ssh.ssh_args(), "head -c 200000000 /dev/zero", stdout=asyncio.subprocess.DEVNULL
    )
    assert await asyncio.wait_for(client.wait(), 60) == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60 * 1024


@in_world()
async def test_a_key_exchange_that_never_ends_is_no_way_to_fill_memory(
    ssh: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pitstop_relay.guest.DROP_ABOVE", 4 * MIB)
    client = await asyncssh.connect(
        "127.0.0.1", ssh.at.port, username=JOB, client_keys=[str(ssh.folder / "ada")], known_hosts=None, config=None
    )
    client._packet_handlers = {**client._packet_handlers, 20: lambda *_args: None}
    next(iter(ssh.relay._guests))._transport._rekey_bytes = MIB
    process = await client.create_process("cat /dev/zero", encoding=None, window=2**31)
    async with asyncio.timeout(20):
        while ssh.metric("pitstop_relay_sessions_closed_total", reason="too_slow") == 0:
            await asyncio.sleep(0.01)
    await ssh.job.until("closed", "ada", "disconnect")
    process.close()
    client.abort()
    await client.wait_closed()
