"""What people who do not get in are told, and what nobody is told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncssh
import msgspec
import pytest
from tests.patience import PATIENCE
from tests.ssh_support import JOB, World, allowed, in_world, make_key

from pitstop_common.userauth import fingerprint

RUN = JOB[:12]


def change(ssh: World, **fields: object) -> None:
    ssh.access.replies[JOB] = msgspec.structs.replace(ssh.access.replies[JOB], **fields)


def mark(ssh: World, name: str) -> str:
    return fingerprint(asyncssh.read_public_key(ssh.folder / f"{name}.pub").public_data)


async def told(ssh: World, key: str = "ada", job: str = JOB, options: Sequence[str] = ()) -> str:
    """What a refused client shows, without its own last line."""
    status, out, err = await ssh.ssh("echo in", key=key, job=job, options=options)
    assert (status, out) == (255, b"")
    banner, last = err.decode().rsplit("\n", 2)[:2]
    assert last.strip().endswith("Permission denied (publickey).")
    return banner.replace("\r", "")


async def until_denied(ssh: World, count: int = 1) -> list[str]:
    async with asyncio.timeout(PATIENCE):
        while len(ssh.denied) < count:
            await asyncio.sleep(0.01)
    return [fact.reason for fact in ssh.denied]


@in_world()
async def test_an_unknown_key(ssh: World) -> None:
    assert await told(ssh, "stranger") == (
        f"pitstop: the key {mark(ssh, 'stranger')} is not registered.\n"
        "  Add it: pitstop keys add FILE.pub   (the keys your ssh offers: ssh-add -l)"
    )
    assert await until_denied(ssh) == ["key_unknown"]
    fact = ssh.denied[0]
    assert (fact.job, fact.org, fact.run, fact.fingerprint) == (JOB, "acme", RUN, mark(ssh, "stranger"))
    assert fact.client.startswith("127.0.0.1:")
    assert ssh.metric("pitstop_relay_auth_total", method="publickey", result="key_unknown") == 1
    assert ssh.dialled == []


@in_world()
async def test_somebody_elses_run(ssh: World) -> None:
    ssh.access.owners[mark(ssh, "stranger")] = "bob"
    assert await told(ssh, "stranger") == (
        f"pitstop: the key {mark(ssh, 'stranger')} is bob's; the job {JOB} is ada's.\n"
        "  Ask ada to name bob in ssh.users when the run is started"
    )
    assert await until_denied(ssh) == ["not_your_run"]


@in_world()
async def test_a_job_that_is_not(ssh: World) -> None:
    assert await told(ssh, job="abcdefghijkl-2") == (
        "pitstop: there is no job 'abcdefghijkl-2'.\n  List yours: pitstop ls"
    )
    assert await until_denied(ssh) == ["unknown_job"]


@pytest.mark.parametrize("job", ["root", "a b"])
@in_world()
async def test_a_name_that_is_no_jobs(ssh: World, job: str) -> None:
    assert await told(ssh, job=job) == (
        f"pitstop: '{job}' is no job, and the key {mark(ssh, 'ada')} is not registered.\n"
        "  The user name is a job's id (List yours: pitstop ls). Add the key: pitstop keys add FILE.pub"
    )
    assert await until_denied(ssh) == ["unknown_job"]
    assert (ssh.denied[0].job, ssh.denied[0].org) == ("", "")


ENDED = (
    f"pitstop: the job {JOB} has ended, and its session with it.\n"
    f"  What became of it: pitstop status {RUN}   Again: pitstop rerun {JOB} --ssh-on-failure"
)


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ({"status": "finished"}, "ended", ENDED),
        ({"status": "stopping"}, "ended", ENDED),
        (
            {"status": "queued", "host": ""},
            "queued",
            f"pitstop: the job {JOB} waits in the queue; it has no sandbox yet.\n  Wait for it: pitstop ssh {JOB}",
        ),
        (
            {"status": "starting", "host": ""},
            "starting",
            f"pitstop: the sandbox of job {JOB} is being made.\n"
            f"  Try again in a moment, or wait for it: pitstop ssh {JOB}",
        ),
        (
            {"offers": False},
            "no_ssh",
            f"pitstop: the job {JOB} was started without ssh.\n"
            "  Start it with ssh: pitstop run --ssh-on-failure (or --ssh-after-step N, --ssh-at-end, --ssh)",
        ),
        (
            {"host": "host-b"},
            "host_unreachable",
            f"pitstop: the host host-b of job {JOB} does not answer.\n"
            f"  Try again in a moment; if it stays so: pitstop status {RUN}, or pitstop doctor",
        ),
    ],
)
@in_world()
async def test_the_state_of_the_job(ssh: World, fields: dict[str, object], code: str, text: str) -> None:
    change(ssh, **fields)
    assert await told(ssh) == text
    assert await until_denied(ssh) == [code]


@in_world()
async def test_a_host_that_does_not_have_the_job_says_so(ssh: World) -> None:
    other = "abcdefghijkl-9"
    ssh.access.replies[other] = msgspec.structs.replace(ssh.access.replies[JOB], job=other)
    status, _out, err = await ssh.ssh("echo in", job=other)
    assert status == 255
    assert f"pitstop: the sandbox of job {other} is not ready; connect again in a moment" in err.decode()
    assert ssh.job.said == []


@in_world()
async def test_many_keys_and_the_right_one_last(ssh: World) -> None:
    options: list[str] = []
    for number in range(4):
        make_key(ssh.folder, f"wrong{number}")
        options += ["-i", str(ssh.folder / f"wrong{number}")]
    status, out, err = await ssh.ssh("echo in", key="wrong0", options=[*options, "-i", str(ssh.folder / "ada")])
    assert (status, out) == (0, b"in\n")
    lines = err.decode().replace("\r", "").splitlines()
    assert lines == [
        f"pitstop: the key {mark(ssh, 'wrong0')} is not registered.",
        "  Add it: pitstop keys add FILE.pub   (the keys your ssh offers: ssh-add -l)",
        *(f"pitstop: the key {mark(ssh, f'wrong{n}')} is not registered either." for n in (1, 2, 3)),
        f"pitstop: let in as ada by the key {mark(ssh, 'ada')}.",
        "  To offer this one only: ssh -i FILE -o IdentitiesOnly=yes",
    ]
    assert ssh.denied == []


@in_world(ssh_max_tries=3)
async def test_too_many_keys(ssh: World) -> None:
    options: list[str] = []
    for number in range(5):
        make_key(ssh.folder, f"wrong{number}")
        options += ["-i", str(ssh.folder / f"wrong{number}")]
    status, _out, err = await ssh.ssh("echo in", key="wrong0", options=options)
    assert status == 255
    assert "too many keys were tried; choose one" in err.decode()


@pytest.mark.parametrize("kind", ["ecdsa-sha2-nistp256", "ecdsa-sha2-nistp521", "ssh-rsa"])
@in_world()
async def test_other_kinds_of_keys(ssh: World, kind: str) -> None:
    other = make_key(ssh.folder, "other", kind)
    change(ssh, allowed=(allowed("bob", other),))
    assert await ssh.ssh("echo in", key="other") == (0, b"in\n", b"")
    assert ssh.job.said[0] == ("opened", "bob", fingerprint(other.public_data))


class _Sha1Client(asyncssh.SSHClient):
    """An old client: it knows no list of the server's algorithms, and signs with SHA-1."""

    def __init__(self) -> None:
        self.banners: list[str] = []

    def auth_banner_received(self, msg: str, lang: str) -> None:
        self.banners.append(msg)


@in_world()
async def test_a_client_that_can_only_sign_with_sha1(ssh: World) -> None:
    old = make_key(ssh.folder, "old", "ssh-rsa")
    change(ssh, allowed=(allowed("ada", old),))
    client = _Sha1Client()

    class Connection(asyncssh.SSHClientConnection):
        @property
        def _server_sig_algs(self) -> set[bytes]:
            return set()

        @_server_sig_algs.setter
        def _server_sig_algs(self, _algorithms: set[bytes]) -> None:
            pass

    options = asyncssh.SSHClientConnectionOptions(
        username=JOB, client_keys=[old], known_hosts=None, config=None, agent_path=None, signature_algs=["ssh-rsa"],
        client_factory=lambda: client,
    )  # fmt: skip
    loop = asyncio.get_running_loop()
    waiter = options.waiter = loop.create_future()
    await loop.create_connection(lambda: Connection(loop, options, None, None, "auth"), "127.0.0.1", ssh.at.port)
    with pytest.raises(asyncssh.PermissionDenied):
        await waiter
    assert client.banners == [
        "pitstop: your ssh signs with ssh-rsa (SHA-1), which is not accepted.\n"
        "  Use a newer client, or another key: ssh-keygen -t ed25519, then pitstop keys add\n"
    ]


@in_world()
async def test_before_a_signature_every_key_and_every_name_look_the_same(ssh: World) -> None:
    """What a client without the private keys sees of the relay: nothing that differs."""
    seen = set()
    for job in (JOB, "abcdefghijkl-2", "nobody"):
        for key in ("ada", "stranger"):
            (ssh.folder / "only.pub").write_bytes((ssh.folder / f"{key}.pub").read_bytes())
            client = await asyncio.create_subprocess_exec(
                *ssh.ssh_args("-v", "-o", f"IdentityFile={ssh.folder}/only.pub", job=job, key="absent"), "true",
                stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            _out, err = await client.communicate()
            lines = [line for line in err.decode().splitlines() if "Server accepts key" in line or "pitstop" in line]
            seen.add(tuple(line.replace(mark(ssh, key), "KEY") for line in lines))
    assert len(seen) == 1
    assert "Server accepts key" in next(iter(seen))[0]
    assert ssh.denied == []
    assert ssh.access.asked == []


@in_world()
async def test_a_password_is_asked_for_only_where_no_key_was_refused(ssh: World) -> None:
    _status, _out, err = await ssh.ssh("true", options=["-o", "PreferredAuthentications=password"])
    assert err.decode().strip().endswith("Permission denied (publickey,password).")
    _status, _out, err = await ssh.ssh("true", key="stranger")
    assert err.decode().strip().endswith("Permission denied (publickey).")


@in_world()
async def test_nobody_is_let_in_while_the_scheduler_is_away(ssh: World) -> None:
    ssh.access.away = True
    assert await told(ssh) == (
        "pitstop: the scheduler does not answer, so nobody can be let in.\n"
        "  Try again in a moment; if it stays so: pitstop doctor"
    )
    ssh.access.away = False
    assert (await ssh.ssh("echo in"))[0] == 0


@in_world(ssh_max_logins_per_address=2)
async def test_too_many_at_the_door(ssh: World) -> None:
    waiting = [await asyncio.open_connection("127.0.0.1", ssh.at.port) for _ in range(2)]
    for reader, _writer in waiting:
        assert (await reader.readline()).startswith(b"SSH-2.0-Pitstop")
    reader, writer = await asyncio.open_connection("127.0.0.1", ssh.at.port)
    assert await reader.read() == b"pitstop: too many connections; try again in a moment\r\n"
    for _reader, other in waiting:
        other.close()
    writer.close()
    async with asyncio.timeout(PATIENCE):
        while (await ssh.ssh("true"))[0]:
            pass
    assert ssh.metric("pitstop_relay_connections_refused_total", limit="logins_per_address") >= 1


@in_world(ssh_login_grace=0.2)
async def test_who_does_not_log_in_is_let_go(ssh: World) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", ssh.at.port)
    async with asyncio.timeout(PATIENCE):
        await reader.read()
    writer.close()
    assert ssh.metric("pitstop_relay_connections") == 0
