"""What VS Code's Remote-SSH does, step by step, with stock OpenSSH: a long script on stdin, a server that it leaves
running on 127.0.0.1, -D and direct-tcpip to it, and all of that again after the connection was lost."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator

from tests.integration.test_ssh_forwards import connected, nobody
from tests.ssh_support import World, in_world
from tests.whole_system import free_port

SERVER = """\
import asyncio, os, sys
async def serve(reader, writer):
    name = await reader.readline()
    writer.write(b"HTTP/1.1 101 Switching Protocols " + str(os.getpid()).encode() + b" " + name)
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    open("port", "w").write(str(server.sockets[0].getsockname()[1]))
    await asyncio.sleep(600)
asyncio.run(main())
"""
INSTALL = """\
echo "c5e0: running"
# {padding}
uname -m; uname -s; echo "home==$HOME=="; echo "term==$TERM_PROGRAM=="
mkdir -p .vscode-server && cd .vscode-server
if [ ! -f port ]; then
cat >server.py <<'END'
{server}END
nohup python3 server.py >log 2>&1 </dev/null &
fi
while [ ! -s port ]; do sleep 0.05; done
echo "c5e0: start"
echo "listeningOn==$(cat port)=="
echo "exitCode==0=="
echo "c5e0: end"
"""


@contextlib.asynccontextmanager
async def remote(ssh: World) -> AsyncIterator[tuple[int, int]]:
    """The local server of VS Code: one ssh that runs `bash` with a script on stdin, and stays for its forwards. The
    port of its SOCKS proxy, and that of the server inside."""
    socks = free_port()
    script = INSTALL.format(padding="x" * 200_000, server=SERVER) + "cat\n"
    client = await asyncio.create_subprocess_exec(
        *ssh.ssh_args("-T", "-D", str(socks), "-o", "ConnectTimeout=15", "-o", "SetEnv=TERM_PROGRAM=vscode"), "bash",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert client.stdin is not None and client.stdout is not None
    try:
        client.stdin.write(script.encode())
        async with asyncio.timeout(60):
            told = (await client.stdout.readuntil(b"c5e0: end\n")).decode()
        assert told.startswith("c5e0: running\n"), "nothing is on stdout before the script's own words"
        assert "home==/home/runner==" in told and "term==vscode==" in told and "exitCode==0==" in told
        yield socks, int(told.partition("listeningOn==")[2].partition("==")[0])
    finally:
        client.kill()
        await client.wait()


async def through(socks: int, port: int, name: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """A connection by SOCKS 5 to the server inside; and the pid it says."""
    reader, writer = await asyncio.open_connection("127.0.0.1", socks)
    writer.write(b"\x05\x01\x00")
    assert await reader.readexactly(2) == b"\x05\x00"
    writer.write(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big"))
    assert (await reader.readexactly(10))[1] == 0
    writer.write(name + b"\n")
    line = await reader.readline()
    assert line.startswith(b"HTTP/1.1 101 Switching Protocols ") and line.endswith(b" " + name + b"\n")
    return reader, writer, line.split()[4]


@in_world("namespaces")
async def test_remote_ssh_of_vs_code(ssh: World) -> None:
    async with asyncio.timeout(100):
        async with remote(ssh) as (socks, port):
            # The management connection and the extension host's, both open all the time, both ways, with much to say.
            management = await through(socks, port, b"management")
            extension = await through(socks, port, b"extension-host")
            data = os.urandom(2_000_000)
            for reader, writer, _ in (management, extension):
                writer.write(data)
                got = hashlib.sha256(await reader.readexactly(len(data)))
                assert got.digest() == hashlib.sha256(data).digest()
            # A port that a program of the workspace opens, forwarded later, by the same connection.
            forwarded = await through(socks, port, b"forwarded")
            assert forwarded[2] == management[2]
        for connection in (management, extension, forwarded):
            connection[1].close()
        await ssh.job.until("closed", "ada", "disconnect")
        await nobody(ssh)
        # The network was away: the same server is found, by a new connection.
        async with remote(ssh) as (socks, again):
            assert again == port
            back = await through(socks, port, b"management")
            assert back[2] == management[2], "it is the same process"
            back[1].close()
        # Without -D (`remote.SSH.useLocalServer` off), and other clients of its kind: direct-tcpip, many at once.
        async with connected(ssh) as person:
            made = await asyncio.gather(*(person.open_connection("127.0.0.1", port) for _ in range(20)))
            for source, sink in made:
                sink.write(b"direct\n")
                assert (await source.readline()).endswith(b" direct\n")
                sink.close()
        assert (await ssh.ssh(f"kill {back[2].decode()}"))[0] == 0
