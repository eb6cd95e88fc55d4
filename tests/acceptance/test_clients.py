"""Every ssh client we could get, for real, into one paused job. What each was seen to do is in docs/clients.md."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import asyncssh
import pytest
from tests.acceptance.support.outside import Outside, Place, Run, outside, running
from tests.screens import Screen

SECONDS = 60.0
DATA = bytes(range(256)) * 4000
WORK = "/home/runner/work"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(tmp_path_factory.mktemp("clients"), "--slots", "2") as made:
        (made.home.folder / "data").write_bytes(DATA)
        yield made


@pytest.fixture
async def anybody(place: Place) -> AsyncIterator[Outside]:
    async with outside(place) as someone:
        yield someone


@pytest.fixture
async def run(anybody: Outside) -> AsyncIterator[Run]:
    """A run that waits at its end, until the test is over."""
    made = await anybody.request("echo done", ssh={"pause": "at_end"})
    await made.paused()
    yield made
    await made.cancel()
    await made.finished()


class Said(NamedTuple):
    """A client that ended."""

    status: int
    out: bytes
    err: bytes


class Client:
    """Where to go, and with what."""

    def __init__(self, run: Run) -> None:
        self.run = run
        place = run.outside.place
        self.folder = place.home.folder
        self.key = place.person().key
        self.host, self.port = str(place.facts["ssh"]["host"]), str(place.facts["ssh"]["port"])
        self.options = place.ssh_args(run.job)[1:-1]
        self.ssh = " ".join(["ssh", *self.options])
        self.known_hosts = place.known_hosts
        self.to = f"{run.job}@{self.host}"

    async def __call__(
        self, program: str, *args: str, stdin: bytes = b"", env: Mapping[str, str] | None = None
    ) -> Said:
        """Run a program of this machine to its end."""
        path = shutil.which(program)
        if path is None:
            pytest.skip(f"{program} is not installed: `make test` installs it")
        made = await asyncio.create_subprocess_exec(
            path, *args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "HOME": str(self.folder), **(env or {})}, cwd=self.folder,
        )  # fmt: skip
        try:
            async with asyncio.timeout(SECONDS):
                out, err = await made.communicate(stdin)
        finally:
            if made.returncode is None:
                made.kill()
                await made.wait()
        assert made.returncode is not None
        return Said(made.returncode, out, err)

    async def inside(self, command: str) -> str:
        """What a command in the job prints."""
        done = await self.run.ssh(command)
        assert done.status == 0, done.err
        return done.out

    async def has_data(self, name: str) -> None:
        """Is the whole of DATA in this file of the job."""
        told = await self.inside(f"sha256sum <{name}")
        assert told.split()[0] == hashlib.sha256(DATA).hexdigest()

    def got_data(self, name: str) -> None:
        """Is it in this file here."""
        assert (self.folder / name).read_bytes() == DATA


@pytest.fixture
def client(run: Run) -> Client:
    return Client(run)


async def web_server(client: Client) -> int:
    """A server on the sandbox's loopback; its port."""
    serve = "nohup python3 -u -m http.server 8123 --bind 127.0.0.1 >web.log 2>&1 </dev/null & "
    await client.inside(serve + "until grep -q Serving web.log; do sleep 0.05; done")
    return 8123


GET = b"GET /web.log HTTP/1.0\r\n\r\n"


async def test_openssh_sftp_and_scp(client: Client) -> None:
    copy = [*client.options, "-o", f"Port={client.port}"]
    del copy[copy.index("-p") : copy.index("-p") + 2]
    batch = (
        f"put {client.folder}/data d\nln -s d link\nls -l\nmkdir m\nrename d m/d\nget m/d {client.folder}/sftp\nbye\n"
    )
    said = await client("sftp", *copy, "-b", "-", client.to, stdin=batch.encode())
    assert said.status == 0, said.err
    assert b"link" in said.out
    client.got_data("sftp")
    for protocol in ("-s", "-O"):
        name = f"scp{protocol}"
        said = await client("scp", "-q", protocol, *copy, "data", f"{client.to}:{name}")
        assert said == (0, b"", b"")
        await client.has_data(name)
        said = await client("scp", "-q", protocol, *copy, f"{client.to}:{WORK}/{name}", f"back{protocol}")
        assert said == (0, b"", b"")
        client.got_data(f"back{protocol}")


async def test_rsync(client: Client) -> None:
    tree = client.folder / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "data").write_bytes(DATA)
    (tree / "link").symlink_to("deep/data")
    said = await client("rsync", "-a", "-z", "-e", client.ssh, "tree/", f"{client.to}:tree")
    assert said == (0, b"", b"")
    await client.has_data("tree/deep/data")
    again = await client("rsync", "-a", "-i", "-e", client.ssh, "tree/", f"{client.to}:tree")
    assert again == (0, b"", b""), "there was nothing to send"
    said = await client("rsync", "-a", "-e", client.ssh, f"{client.to}:{WORK}/tree/", "tree2")
    assert said.status == 0, said.err
    client.got_data("tree2/link")


async def test_git(client: Client) -> None:
    author = "-c user.name=a -c user.email=a@example.com"
    await client.inside(f"git init -q -b main repo && cd repo && git {author} commit -q --allow-empty -m inside")
    url = f"ssh://{client.to}:{client.port}{WORK}/repo"
    env = {"GIT_SSH_COMMAND": client.ssh, "GIT_CONFIG_NOSYSTEM": "1"}
    said = await client("git", "clone", "-q", url, "clone", env=env)
    assert said.status == 0, said.err
    commit = "cd clone && cp ../data . && git add data && git {} commit -q -m outside && git push -q origin main:other"
    said = await client("sh", "-ec", commit.format(author), env=env)
    assert said.status == 0, said.err
    assert (await client.inside("cd repo && git log --format=%s other")).split() == ["outside", "inside"]


async def test_putty(client: Client) -> None:
    ppk = client.folder / "key.ppk"
    made = await client("puttygen", str(client.key), "-O", "private", "-o", str(ppk))
    assert made.status == 0, made.err
    told = client.known_hosts.read_text().split()
    fingerprint = asyncssh.import_public_key(" ".join(told[1:3])).get_fingerprint()
    common = ["-batch", "-P", client.port, "-i", str(ppk), "-hostkey", fingerprint]
    said = await client("plink", "-ssh", *common, client.to, "cat; echo err >&2; exit 7", stdin=DATA)
    assert (said.status, said.out) == (7, DATA), said.err
    assert said.err.replace(b"\r", b"").endswith(b"err\n")
    said = await client("plink", "-ssh", "-t", *common, client.to, "tty")
    assert (said.status, said.out[:9]) == (0, b"/dev/pts/"), said
    said = await client("plink", "-ssh", *common, "-nc", f"localhost:{await web_server(client)}", client.to, stdin=GET)
    assert b"Serving HTTP" in said.out, said
    batch = f"put data putty\nls\nget putty {client.folder}/psftp\nquit\n"
    said = await client("psftp", *common, "-b", "/dev/stdin", client.to, stdin=batch.encode())
    assert said.status == 0, (said.out, said.err)
    await client.has_data("putty")
    client.got_data("psftp")
    said = await client("pscp", "-q", *common, "data", f"{client.to}:pscp")
    assert said.status == 0, said.err
    await client.has_data("pscp")


async def test_access_tokens_by_password(client: Client) -> None:
    """For a machine without keys: what `pitstop token create --job` prints is the password of each of these."""
    place = client.run.outside.place
    mine = {"PITSTOP_DIR": str(place.home.dir), "PITSTOP_ACTOR": "ada"}
    pitstop = str(Path(sys.executable).parent / "pitstop")
    made = await client(pitstop, "token", "create", "--org", "acme", "--job", client.run.job, env=mine)
    assert made.status == 0, made.err
    token = made.out.decode().strip()
    assert f"ssh -o PubkeyAuthentication=no -p {client.port} {client.to}".encode() in made.err
    ssh = ["sshpass", "-e", "ssh", "-F", "none", "-o", "PubkeyAuthentication=no", "-o", "StrictHostKeyChecking=yes",
           "-o", f"UserKnownHostsFile={client.known_hosts}", "-p", client.port, client.to]  # fmt: skip
    said = await client(*ssh, "cat; exit 7", stdin=DATA, env={"SSHPASS": token})
    assert (said.status, said.out) == (7, DATA), said.err
    told = client.known_hosts.read_text().split()
    mark = asyncssh.import_public_key(" ".join(told[1:3])).get_fingerprint()
    said = await client(
        "plink", "-ssh", "-batch", "-P", client.port, "-hostkey", mark, "-pw", token, client.to, "exit 7"
    )
    assert said.status == 7, said.err
    gone = await client(pitstop, "token", "revoke", "--org", "acme", token.partition(".")[0], env=mine)
    assert gone.status == 0, gone.err
    said = await client(*ssh, "echo in", env={"SSHPASS": token})
    assert (said.out, b"this password is no access token" in said.err) == (b"", True)


async def test_dropbear(client: Client) -> None:
    key = client.folder / "dropbear-key"
    made = await client("dropbearconvert", "openssh", "dropbear", str(client.key), str(key))
    assert made.status == 0, made.err
    hosts = client.folder / ".ssh" / "known_hosts"
    hosts.parent.mkdir(mode=0o700, exist_ok=True)
    _, *host_key = client.known_hosts.read_text().split()
    hosts.write_text(" ".join([client.host, *host_key]) + "\n")
    said = await client(
        "dbclient", "-i", str(key), "-p", client.port, client.to, "cat; echo err >&2; exit 7", stdin=DATA
    )
    assert (said.status, said.out) == (7, DATA), said.err
    assert said.err.endswith(b"err\n")
    told = ["-i", str(key), "-p", client.port]
    with contextlib.closing(
        Screen(["env", f"HOME={client.folder}", "dbclient", *told, "-t", client.to, "tty; stty size; exit 3"], 101, 33)
    ) as screen:
        await screen.until("/dev/pts/")
        await screen.until("33 101")
        assert await screen.ended() == 3
    said = await client("dbclient", *told, "-B", f"localhost:{await web_server(client)}", client.to, stdin=GET)
    assert b"Serving HTTP" in said.out, said
    said = await client(
        "scp", "-q", "-S", "dbclient", "-O", "-i", str(key), "-P", client.port, "data", f"{client.to}:drop"
    )
    assert said.status == 0, said.err
    await client.has_data("drop")


async def test_libssh2_as_curl_has_it(client: Client) -> None:
    told = await client("curl", "--version")
    if b" sftp" not in told.out:
        pytest.skip("this curl has no sftp")
    keys = ["--key", str(client.key), "--pubkey", f"{client.key}.pub", "--user", f"{client.run.job}:", "-sS"]
    hosts = client.folder / ".ssh" / "known_hosts"
    hosts.parent.mkdir(mode=0o700, exist_ok=True)
    hosts.write_text(client.known_hosts.read_text())
    for scheme in ("sftp", "scp"):
        url = f"{scheme}://{client.host}:{client.port}{WORK}/curl-{scheme}"
        said = await client("curl", *keys, "-T", "data", url)
        assert said == (0, b"", b"")
        await client.has_data(f"curl-{scheme}")
        said = await client("curl", *keys, url)
        assert (said.status, said.out) == (0, DATA), said.err


async def test_paramiko(client: Client) -> None:
    await asyncio.to_thread(_paramiko, client)
    await client.has_data("paramiko")


def _paramiko(client: Client) -> None:
    import paramiko  # type: ignore[import-untyped]

    with paramiko.SSHClient() as ssh:
        ssh.load_host_keys(str(client.known_hosts))
        ssh.connect(client.host, int(client.port), client.run.job, key_filename=str(client.key), allow_agent=False,
                    look_for_keys=False, timeout=SECONDS)  # fmt: skip
        stdin, stdout, stderr = ssh.exec_command("cat; echo err >&2; exit 7", timeout=SECONDS)
        stdin.write(DATA)
        stdin.channel.shutdown_write()
        assert stdout.read() == DATA
        assert stderr.read() == b"err\n"
        assert stdout.channel.recv_exit_status() == 7
        shell = ssh.invoke_shell(width=101, height=33)
        shell.settimeout(SECONDS)
        shell.send(b"stty size\n")
        seen = b""
        while b"33 101" not in seen:
            seen += shell.recv(4096)
        sftp = ssh.open_sftp()
        sftp.put(str(client.folder / "data"), "paramiko")
        with sftp.file("paramiko") as file:
            assert file.read() == DATA
        sftp.symlink("paramiko", "plink")
        assert sftp.readlink("plink") == "paramiko"
        sftp.close()


async def test_asyncssh(client: Client) -> None:
    async with asyncssh.connect(
        client.host, int(client.port), username=client.run.job, client_keys=[str(client.key)], config=None,
        known_hosts=str(client.known_hosts), agent_path=None,
    ) as ssh:  # fmt: skip
        done = await ssh.run("cat; echo err >&2; exit 7", input=DATA, encoding=None)
        assert (done.exit_status, done.stdout, done.stderr) == (7, DATA, b"err\n")
        done = await ssh.run("stty size", term_type="xterm", term_size=(101, 33))
        assert done.stdout == "33 101\r\n"
        process = await ssh.create_process("trap 'echo caught; exit 5' TERM; echo up; while :; do sleep 0.05; done")
        assert await process.stdout.readline() == "up\n"
        process.send_signal("TERM")
        ended = await process.wait()
        assert (ended.exit_status, ended.stdout) == (5, "caught\n")
        process = await ssh.create_process("exec sleep 600")
        process.send_signal("KILL")
        killed = await process.wait()
        assert killed.exit_signal is not None and killed.exit_signal[0] == "KILL"
        async with ssh.start_sftp_client() as sftp:
            await sftp.put(str(client.folder / "data"), "asyncssh")
            await sftp.get("asyncssh", str(client.folder / "asyncssh"))
    client.got_data("asyncssh")


async def test_moshs_first_step(client: Client) -> None:
    """mosh starts its server by ssh and reads a port and a key from it. Its UDP then does not reach a sandbox."""
    if not shutil.which("mosh-server"):
        pytest.skip("mosh-server is not installed: `make test` installs it")
    server = "mosh-server new -c 8 -s -l LC_ALL=C.UTF-8"
    said = await client("ssh", "-tt", *client.options, client.to, "--", server)
    assert b"MOSH CONNECT " in said.out, said
    await client.inside("pkill -x mosh-server")


async def test_what_a_project_switches_off_is_told_and_comes_back(client: Client) -> None:
    file = client.folder / "org.toml"
    file.write_text('org = "acme"\n[projects.web]\nsftp = false\nforwarding = false\n')
    applied = client.run.outside.place.home.run("apply", "-f", str(file))
    assert "projects.web.forwarding  true -> false" in applied.stdout, applied
    line = "switched off for the project web. Its admins switch it on with `{} = true` in [projects.web]"
    said = await client("ssh", *client.options, "-s", client.to, "sftp")
    assert (said.status, said.out) == (126, b"") and line.format("sftp") in said.err.decode()
    said = await client("ssh", *client.options, "-W", "127.0.0.1:80", client.to)
    assert said.status == 255 and line.format("forwarding") in said.err.decode()
    assert await client.inside("echo commands stay") == "commands stay\n"
    file.write_text('org = "acme"\n')
    client.run.outside.place.home.run("apply", "-f", str(file))
    said = await client("ssh", *client.options, "-W", f"127.0.0.1:{await web_server(client)}", client.to, stdin=GET)
    assert b"Serving HTTP" in said.out
