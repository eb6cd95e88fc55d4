"""Certificates of ssh-keygen and access tokens, with real clients, into one job."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable

import asyncssh
import msgspec
import pytest
from tests.patience import PATIENCE
from tests.proofs import security_key, signed
from tests.screens import screen
from tests.ssh_support import JOB, World, in_world, make_key

from pitstop_common.certificates import parse
from pitstop_common.link import Kind, Open
from pitstop_common.messages import AllowedKey, Entrant, KnownToken, Person, WhoReply, WhoRequest
from pitstop_common.ssh_policy import Revoked, Trust
from pitstop_common.userauth import fingerprint
from pitstop_relay.login import REFUSED_AFTER
from pitstop_relay.slowing import FIRST, FREE

OTHER = "abcdefghijkl-2"


def change(ssh: World, **fields: object) -> None:
    ssh.access.replies[JOB] = msgspec.structs.replace(ssh.access.replies[JOB], **fields)


def certify(ssh: World, *options: str, ca: str = "ca", key: str = "laptop", principals: str = "ada") -> None:
    """A key, and a certificate of it as `ssh-keygen -s` makes it. The org trusts `ca`."""
    for name in (ca, key):
        if not (ssh.folder / name).exists():
            make_key(ssh.folder, name)
    who = ["-n", principals] if principals else []
    subprocess.run(
        ["ssh-keygen", "-q", "-s", ssh.folder / ca, "-I", "ada laptop", "-z", "7", *who, *options,
         ssh.folder / f"{key}.pub"], check=True,
    )  # fmt: skip
    trusted = (ssh.folder / "ca.pub").read_text() if (ssh.folder / "ca.pub").exists() else ""
    change(ssh, trust=Trust(user_ca=[trusted] if trusted else []), people=(Entrant(user="ada"),))


def mark(ssh: World, name: str) -> str:
    return fingerprint(asyncssh.read_public_key(ssh.folder / f"{name}.pub").public_data)


def with_certificate(ssh: World, key: str = "laptop") -> list[str]:
    return ["-o", f"CertificateFile={ssh.folder}/{key}-cert.pub"]


async def until_denied(ssh: World) -> list[str]:
    async with asyncio.timeout(PATIENCE):
        while not ssh.denied:
            await asyncio.sleep(0.01)
    return [fact.reason for fact in ssh.denied]


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"])
@in_world()
async def test_a_certificate_lets_in_whom_it_is_for(ssh: World, kind: str) -> None:
    make_key(ssh.folder, "laptop", kind)
    certify(ssh, "-V", "-1h:+1h")
    assert await ssh.ssh("echo in", key="laptop", options=with_certificate(ssh)) == (0, b"in\n", b"")
    assert ssh.job.said[0] == ("opened", "ada", mark(ssh, "laptop"))
    assert ssh.metric("pitstop_relay_auth_total", method="certificate", result="ok") == 1


@in_world()
async def test_each_refusal_of_a_certificate_says_why_and_is_counted(ssh: World) -> None:
    """The plain key behind each certificate is nobody's: ssh tries it after its certificate, and is told."""
    table: list[tuple[str, tuple[str, ...], dict[str, str], Callable[[], None], str, str]] = [
        ("old", ("-V", "20200101:20200102"), {}, lambda: None, "cert_expired", "has expired"),
        ("early", ("-V", "+1h:+2h"), {}, lambda: None, "cert_not_yet", "is not good yet; is a clock wrong?"),
        ("far", ("-O", "source-address=192.0.2.0/24"), {}, lambda: None, "cert_address",
         "is good from 192.0.2.0/24 only, not from here"),
        ("odd", ("-O", "critical:frobnicate@example.com=1"), {}, lambda: None, "cert_option",
         "has the critical option 'frobnicate@example.com', which is not known here"),
        ("bob", (), {"principals": "bob"}, lambda: None, "cert_principal", "is for 'bob'; the job"),
        ("all", (), {"principals": ""}, lambda: None, "cert_principal", "is for nobody; the job"),
        ("alien", (), {"ca": "rogue"}, lambda: None, "cert_authority", "which is no authority here"),
        ("lost", (), {}, lambda: change(ssh, trust=Trust(user_ca=[(ssh.folder / "ca.pub").read_text()],
                                                         revoked=Revoked(serials=[7]))), "cert_revoked", "is revoked"),
        ("barred", (), {}, lambda: change(ssh, people=(Entrant(
            user="ada", barrier="ssh_role", barrier_text="ada has the role read"),)), "ssh_role",
         "pitstop: ada has the role read."),
    ]  # fmt: skip
    make_key(ssh.folder, "ca")
    for name, options, said, alter, code, text in table:
        certify(ssh, *options, key=name, **said)
        alter()
        status, out, err = await ssh.ssh("echo in", key=name, options=with_certificate(ssh, name))
        banner = err.decode().replace("\r", "")
        assert (status, out) == (255, b""), name
        assert text in banner, name
        if code != "ssh_role":
            assert f"Its key is {mark(ssh, name)}." in banner, name
        assert ssh.metric("pitstop_relay_auth_total", method="certificate", result=code) >= 1, name
        assert code in await until_denied(ssh), name
        ssh.denied.clear()
    assert ssh.job.said == []


@in_world()
async def test_a_forced_command_replaces_what_is_asked_for(ssh: World) -> None:
    certify(ssh, "-O", 'force-command=echo "forced:$SSH_ORIGINAL_COMMAND"; test -t 0 && echo terminal')
    options = with_certificate(ssh)
    assert (await ssh.ssh("rm -rf /", key="laptop", options=options))[1] == b"forced:rm -rf /\n"
    assert (await ssh.ssh(key="laptop", options=options))[1] == b"forced:\n"
    assert (await ssh.ssh("sftp", key="laptop", options=["-s", *options]))[1] == b"forced:sftp\n"
    assert b"forced:new\r\nterminal\r\n" in (await ssh.ssh("new", key="laptop", options=["-tt", *options]))[1]
    assert not any(said[0] == "shell" for said in ssh.job.said)


@in_world()
async def test_what_a_certificate_does_not_permit_is_not_given(ssh: World) -> None:
    certify(ssh, "-O", "clear")
    options = with_certificate(ssh)
    status, out, err = await ssh.ssh("echo in", key="laptop", options=["-tt", *options])
    assert (status, out) == (255, b""), "OpenSSH gives up when it was told to have a terminal"
    assert b"PTY allocation request failed on channel 0" in err
    assert (await ssh.ssh("echo in", key="laptop", options=options))[:2] == (0, b"in\n")
    _status, _out, err = await ssh.ssh(key="laptop", options=["-W", f"127.0.0.1:{ssh.at.port}", *options])
    assert b"your certificate does not allow forwarding" in err
    assert b"it has no permit-port-forwarding" in err
    certify(ssh)
    with screen(ssh, options=["-i", str(ssh.folder / "laptop"), *options]) as terminal:
        await terminal.until("step 3 failed")
        terminal.type("test -t 0 && echo a $((1 + 1)) terminal; exit\n")
        await terminal.until("a 2 terminal")
        await terminal.ended()
    status, out, _err = await ssh.ssh(key="laptop", options=["-W", f"127.0.0.1:{ssh.at.port}", *options])
    assert out.startswith(b"SSH-2.0-Pitstop")


@in_world()
async def test_a_taken_relay_opens_nothing_with_a_certificate_or_a_token_of_its_own(ssh: World) -> None:
    """It says in its open frame whatever it likes; the host asks the scheduler itself."""
    certify(ssh)
    link = await ssh.relay.links.to("host-a")
    rogue = asyncssh.generate_private_key("ssh-ed25519")
    mine = rogue.generate_user_certificate(rogue, "x", principals=["ada"]).public_data
    closed: list[tuple[str, str]] = []

    class Rider:
        def down(self, message: bytes) -> None:
            raise AssertionError("the host served it")

        def closed(self, reason: str, text: str) -> None:
            closed.append((reason, text))

        def hold(self) -> None: ...

        def release(self) -> None: ...

    secret = secrets.token_urlsafe(32)
    ssh.access.tokens["ssh-0123456789abcdef"] = token(secret + "x")
    for proof in (
        Open(job=JOB, session_id=secrets.token_bytes(32), token=f"ssh-0123456789abcdef.{secret}"),
        Open(job=JOB, session_id=secrets.token_bytes(32), token="ssh-ffffffffffffffff." + secret),
        signed(rogue, JOB, blob=mine, algorithm="ssh-ed25519-cert-v01@openssh.com"),
    ):
        number = link.open(Rider(), proof)
        link.send(Kind.DATA, number, bytes((80,)) + bytes(20))
    async with asyncio.timeout(PATIENCE):
        while len(closed) < 3:
            await asyncio.sleep(0.01)
    assert [reason for reason, _ in closed] == ["bad_grant"] * 3
    assert sorted(text.rpartition(": ")[2].split(" (serial")[0] for _, text in closed)[:2] == [
        "it is no access token", "it is no access token",
    ]  # fmt: skip
    assert ssh.job.said == []


@in_world()
async def test_the_desk_knows_certificates(ssh: World) -> None:
    """`ssh relay whoami`: the scheduler judges; the relay says what came, and that its authority signed it."""
    certify(ssh)
    seen: list[WhoRequest] = []
    known = WhoReply(people=(Person(org="acme", user="ada"),))
    plain = ssh.access.who

    async def who(request: WhoRequest) -> WhoReply:
        seen.append(request)
        return known if request.certificate else await plain(request)

    ssh.access.who = who  # type: ignore[method-assign]
    options = with_certificate(ssh)
    status, out, _err = await ssh.ssh("whoami", key="laptop", job="relay", options=options)
    assert (status, out.decode()) == (0, f"ada of acme, by the key {mark(ssh, 'laptop')}\n")
    assert seen[0].client.startswith("127.0.0.1:")
    assert parse(seen[0].certificate).id == "ada laptop"


@in_world()
async def test_whom_many_tries_failed_waits_longer_and_nobody_else_does(ssh: World) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(int(FREE) + 4):
        ssh.relay.slowing.failed("127.0.0.1", time.monotonic())
    began = loop.time()
    assert (await ssh.ssh("echo in", key="stranger"))[0] == 255
    assert loop.time() - began >= FIRST * 8
    assert ssh.metric("pitstop_relay_auth_slowed_total") == 1
    assert (await ssh.ssh("echo in"))[0] == 0
    assert ssh.metric("pitstop_relay_auth_slowed_total") == 1


class SecurityKey(asyncssh.SSHKeyPair):
    """A token in software: signs as the hardware does, with the flags it is told to set."""

    _key_type = "sk"

    def __init__(self, kind: str, flags: int) -> None:
        self.blob, self.sign_as_token = security_key(kind)
        super().__init__(kind.encode(), kind.encode(), (kind.encode(),), (kind.encode(),), self.blob, None)
        self.flags = flags

    async def sign_async(self, data: bytes) -> bytes:
        return self.sign_as_token(data, self.flags)

    def sign(self, data: bytes) -> bytes:
        return self.sign_as_token(data, self.flags)


@pytest.mark.parametrize("kind", ["sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"])
@in_world()
async def test_a_security_key_must_be_touched(ssh: World, kind: str) -> None:
    for flags, touched in ((1, True), (0, False), (5, True), (4, False)):
        pair = SecurityKey(kind, flags)
        text = f"{kind} {base64.b64encode(pair.blob).decode()}"
        change(ssh, allowed=(AllowedKey(user="ada", key=text, fingerprint=fingerprint(pair.blob)),))
        asking = asyncssh.connect("127.0.0.1", ssh.at.port, username=JOB, client_keys=[pair], known_hosts=None,
                                  config=None, agent_path=None)  # fmt: skip
        if touched:
            async with asking as client:
                assert (await client.run("echo in")).stdout == "in\n"
        else:
            with pytest.raises(asyncssh.PermissionDenied):
                await asking


# -- access tokens ---------------------------------------------------------------------------------------------------


def token(secret: str, id: str = "ssh-0123456789abcdef", **said: object) -> KnownToken:
    made = KnownToken(id=id, org="acme", user="ada", job=JOB, hash=hashlib.sha256(secret.encode()).hexdigest())
    return msgspec.structs.replace(made, **said)


async def output(*argv: str, **environment: str) -> tuple[int, str, str]:
    client = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )  # fmt: skip
    try:
        async with asyncio.timeout(PATIENCE):
            out, err = await client.communicate()
    finally:
        if client.returncode is None:
            client.kill()
            await client.wait()
    return client.returncode or 0, out.decode(), err.decode()


def asked(ssh: World, job: str = JOB) -> list[str]:
    """OpenSSH, which asks for a password."""
    args = [arg.replace("BatchMode=yes", "NumberOfPasswordPrompts=1") for arg in ssh.ssh_args(job=job)]
    return ["sshpass", "-e", args[0], "-o", "PubkeyAuthentication=no", *args[1:]]


@in_world()
async def test_an_access_token_is_the_password_of_every_client(ssh: World, caplog: pytest.LogCaptureFixture) -> None:
    secret = secrets.token_urlsafe(32)
    text = f"ssh-0123456789abcdef.{secret}"
    ssh.access.tokens["ssh-0123456789abcdef"] = token(secret)
    host_key = "SHA256:" + ssh_fingerprint(ssh)
    with caplog.at_level(logging.DEBUG):
        assert (await output(*asked(ssh), "echo in", SSHPASS=text))[:2] == (0, "in\n")
        plink = ["plink", "-batch", "-ssh", "-P", str(ssh.at.port), "-hostkey", host_key, "-pw", text]
        home = str(ssh.folder)
        assert (await output(*plink, f"{JOB}@127.0.0.1", "echo in", HOME=home))[1] == "in\n"
        script = [sys.executable, "-c", PARAMIKO, str(ssh.at.port), JOB, text]
        assert (await output(*script))[1] == "in\n"
    assert [said for said in ssh.job.said if said[0] == "opened"] == [("opened", "ada", "ssh-0123456789abcdef")] * 3
    assert ssh.metric("pitstop_relay_auth_total", method="password", result="ok") == 3
    assert secret not in caplog.text
    assert ssh.denied == []


def ssh_fingerprint(ssh: World) -> str:
    line = (ssh.folder / "known_hosts").read_text().split(" ", 1)[1]
    return fingerprint(asyncssh.import_public_key(line).public_data).partition(":")[2]


PARAMIKO = """
import sys, paramiko
port, job, password = sys.argv[1:]
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect("127.0.0.1", int(port), job, password, look_for_keys=False, allow_agent=False)
print(client.exec_command("echo in")[1].read().decode(), end="")
client.close()
"""


@in_world()
async def test_what_is_said_of_a_token_before_and_after_it_is_known(ssh: World) -> None:
    """A wrong one: always the same words, as late for any job. A good one that does not fit: why, and what to do."""
    secret = secrets.token_urlsafe(32)
    text = f"ssh-0123456789abcdef.{secret}"
    loop = asyncio.get_running_loop()
    ssh.access.tokens["ssh-0123456789abcdef"] = token("another")

    async def wrong(job: str, password: str) -> str:
        began = loop.time()
        status, out, err = await output(*asked(ssh, job), "echo in", SSHPASS=password)
        assert loop.time() - began >= REFUSED_AFTER
        assert (status != 0, out) == (True, "")
        return err.replace("\r", "").replace(job, "JOB")

    passwords = (text, "ssh-ffffffffffffffff." + secret, "hunter2", "ssh-")
    seen = set(await asyncio.gather(*(wrong(job, each) for job in (JOB, OTHER, "nobody") for each in passwords)))
    assert len(seen) == 1
    assert "pitstop: this password is no access token.\n  Make one: pitstop token create --job JOB\n" in seen.pop()
    assert set(await until_denied(ssh)) == {"bad_token"}
    assert {(fact.org, fact.run, fact.fingerprint) for fact in ssh.denied} == {("", "", "")}
    assert ssh.metric("pitstop_relay_auth_total", method="password", result="bad_token") == 12

    async def good(number: int, said: dict[str, object], job: str = JOB) -> str:
        id = f"ssh-00000000000000{number:02}"
        ssh.access.tokens[id] = token(secret, id, **said)
        return (await output(*asked(ssh, job), "echo in", SSHPASS=f"{id}.{secret}"))[2]

    over, elsewhere, another, nowhere = await asyncio.gather(
        good(1, {"over": True}), good(2, {"job": OTHER}), good(3, {"user": "bob"}), good(4, {}, OTHER)
    )
    assert "the access token ssh-0000000000000001 has expired." in over
    assert f"the access token ssh-0000000000000002 is for the job {OTHER}." in elsewhere
    assert f"the access token ssh-0000000000000003 is bob's; the job {JOB} is ada's." in another
    assert f"there is no job '{OTHER}'." in nowhere
    for code in ("token_expired", "token_other", "not_your_run", "unknown_job"):
        assert ssh.metric("pitstop_relay_auth_total", method="password", result=code) == 1
    assert ssh.job.said == []
