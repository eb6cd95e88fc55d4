"""What a person who stepped in reaches from a container: by forwards, files and the agent, nothing of the host."""

from __future__ import annotations

from pathlib import Path

from tests.docker_engine import DockerEngine
from tests.integration.test_ssh_forwards import agent, nobody, nothing_is_reached
from tests.integration.test_ssh_sftp import nothing_is_there
from tests.ssh_support import World, in_world

ASK = """exec perl -MIO::Socket::UNIX -e '
my $s = IO::Socket::UNIX->new(Peer => $ENV{SSH_AUTH_SOCK}) or die "$!\\n"; syswrite $s, "\\0\\0\\0\\1\\x0b";
sysread $s, my $head, 9; printf "%d %d\\n", unpack "x4 C N", $head'"""
"""Of the agent: the kind of its answer (12: keys), and how many it has."""


def test_forwards_files_and_the_agent_reach_nothing_of_the_host(docker_engine: DockerEngine, tmp_path: Path) -> None:
    @in_world("docker", engine=docker_engine)
    async def go(ssh: World) -> None:
        await nothing_is_reached(ssh)
        await nothing_is_there(ssh)
        async with agent(ssh) as path:
            options = ["-A", "-o", f"IdentityAgent={path}"]
            look = 'stat -c "%U %a" "$SSH_AUTH_SOCK" "${SSH_AUTH_SOCK%/*}"; echo $SSH_AUTH_SOCK; '
            status, out, err = await ssh.ssh(look + ASK, options=options)
            assert (status, err) == (0, b"")
            mode, folder, where, answer = out.decode().splitlines()
            assert (mode, folder, answer) == ("runner 600", "runner 700", "12 1")
            assert not Path(where).exists(), "it is not on the host"
            await nobody(ssh)
        assert (await ssh.ssh("ls -A /tmp; echo ${SSH_AUTH_SOCK-none}"))[1] == b"none\n"

    go(tmp_path)
