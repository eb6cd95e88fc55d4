"""Stock OpenSSH into a job: who gets in, who does not and why, and what of ssh works there."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.support.outside import PROMPT, Outside, Person, Place, Run, outside, running
from tests.bait import Bait, bait
from tests.patience import PATIENCE
from tests.whole_system import free_port


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(tmp_path_factory.mktemp("ssh"), "--slots", "6") as made:
        (made.home.folder / "secret").write_text("of the host\n")
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


# -- who gets in -----------------------------------------------------------------------------------------------------


async def refused(anybody: Outside, job: str, who: Person, reason: str) -> str:
    """What somebody who is refused reads."""
    done = await anybody.ssh(job, "echo inside", person=who)
    assert (done.status, done.out) == (255, "")
    assert "Permission denied" in done.err
    event = await anybody.hear("ssh.denied", fingerprint=who.fingerprint, reason=reason)
    assert event["client"].startswith("127.0.0.1:")
    return done.err


async def test_an_unknown_key_is_named_with_the_next_command(anybody: Outside, run: Run) -> None:
    eve = anybody.place.person("eve")
    told = await refused(anybody, run.job, eve, "key_unknown")
    assert f"the key {eve.fingerprint} is not registered" in told
    assert "pitstop keys add" in told
    event = await anybody.hear("ssh.denied", fingerprint=eve.fingerprint, run=run.id)
    assert (event["job"], event["org"], event["request"]) == (run.job, "acme", run.body["id"])


async def test_the_key_of_another_person_is_refused_until_that_person_is_let_in(anybody: Outside, run: Run) -> None:
    bob = anybody.place.person("bob")
    await anybody.api("keys-add", {"key": bob.public}, actor="bob")
    told = await refused(anybody, run.job, bob, "not_your_run")
    assert f"the key {bob.fingerprint} is bob's; the job {run.job} is ada's" in told
    assert "ssh.users" in told
    shared = await anybody.request("true", ssh={"pause": "at_end", "users": ["bob"]})
    await shared.paused()
    assert (await shared.ssh("echo in", person=bob)).out == "in\n"
    assert (await shared.hear("ssh.connected"))["user"] == "bob"
    await shared.cancel()
    await shared.finished()


async def test_registered_keys_of_the_actor_and_keys_of_the_request_get_in(anybody: Outside) -> None:
    old, new = anybody.place.person("dora"), anybody.place.person("dora-laptop")
    await anybody.api("keys-add", {"key": old.public}, actor="dora")
    run = await anybody.request("true", actor="dora", ssh={"pause": "at_end", "keys": [new.public]})
    await run.paused()
    for key in (old, new):
        assert (await run.ssh("id -un", person=key)).out == "runner\n"
        assert (await run.hear("ssh.connected", fingerprint=key.fingerprint))["user"] == "dora"
    status = anybody.place.home.run("status", run.id, "--org", "acme").stdout
    assert f"ssh -p {anybody.place.facts['ssh']['port']} {run.job}@127.0.0.1" in status
    assert f"lets in dora  {old.fingerprint}" in status and f"lets in dora  {new.fingerprint}" in status
    await run.cancel()
    await run.finished()


async def test_an_ended_job_says_so(anybody: Outside) -> None:
    run = await anybody.request("true", ssh={"pause": "at_end", "connect_window": 0.2})
    await run.finished()
    await run.hear("job.finished")
    told = await refused(anybody, run.job, anybody.place.person(), "ended")
    assert f"the job {run.job} has ended" in told and f"pitstop status {run.id}" in told


async def test_a_job_without_a_session_says_so(anybody: Outside) -> None:
    run = await anybody.request("sleep 60")
    await run.hear("step.started")
    ada = anybody.place.person()
    await anybody.api("keys-add", {"key": ada.public}, actor="ada")
    assert "was started without ssh" in await refused(anybody, run.job, ada, "no_ssh")
    await run.cancel()
    await run.finished()


async def test_nothing_is_said_before_a_signature(anybody: Outside, run: Run) -> None:
    """Somebody who has only seen public keys learns neither which keys nor which jobs there are."""
    said = set()
    for name, job in (("ada", run.job), ("eve", run.job), ("ada", "aaaaaaaaaaaa-1"), ("eve", "root"), ("ada", "x y")):
        client = await asyncio.create_subprocess_exec(
            *with_public_half_only(anybody.place, job, name), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await client.communicate()
        assert client.returncode == 255
        said.add((out, without_names(err.decode(), job)))
    assert len(said) == 1, said
    assert "pitstop" not in said.pop()[1]


def with_public_half_only(place: Place, job: str, name: str) -> list[str]:
    person = place.person(name)
    alone = place.home.folder / f"only-{name}.pub"
    alone.write_text(person.public + "\n")
    alone.chmod(0o600)
    args = place.ssh_args(job)
    args[args.index("-i") + 1] = str(alone)
    return args


def without_names(text: str, job: str) -> str:
    lines = [line for line in text.splitlines() if not line.startswith(("Load key", "no such identity"))]
    return "\n".join(lines).replace(f"{job}@", "JOB@")


async def test_a_signed_login_to_no_job_is_told_nothing_but_that(anybody: Outside) -> None:
    told = await refused(anybody, "aaaaaaaaaaaa-1", anybody.place.person("eve"), "unknown_job")
    assert "there is no job 'aaaaaaaaaaaa-1'" in told
    (event,) = anybody.all("ssh.denied")
    assert (event.body["org"], event.body["job"]) == ("", "")


async def test_the_relay_itself_says_who_one_is_and_what_waits(anybody: Outside) -> None:
    carol = anybody.place.person("carol")
    for org in ("acme", "other"):
        await anybody.api("keys-add", {"key": carol.public}, org=org, actor="carol")
    run = await anybody.request("true", actor="carol", ssh={"pause": "at_end"})
    paused = await run.paused()
    me = await anybody.ssh("root", "whoami", person=carol)
    assert me.status == 0 and [line.split(",")[0] for line in me.out.splitlines()] == [
        "carol of acme", "carol of other"
    ]  # fmt: skip
    jobs = await anybody.ssh("root", "ls", person=carol)
    (key,) = run.jobs
    assert jobs.out == f"{run.job}  acme/web {key}  paused  {paused['ssh']['command']}\n"
    with run.shell(person=carol) as screen:
        await screen.until(PROMPT)
        await run.entry(lambda entry: entry["job"]["sessions"] == 1)
        assert f"inside {run.job}: 1\n" in (await anybody.ssh("root", "whoami", person=carol)).out
        screen.type("exit\n")
        await screen.ended()
    await run.finished()
    assert (await anybody.ssh("root", "ls", person=carol)).out == "no job waits for you\n"


async def test_a_password_is_that_of_a_token_and_keyboards_are_not_asked(anybody: Outside, run: Run) -> None:
    options = ("-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=password,keyboard-interactive")
    done = await run.ssh("true", options=options)
    assert done.status == 255 and "Permission denied (publickey,password)" in done.err


async def test_the_host_is_verified_and_another_is_not_taken_for_it(anybody: Outside, run: Run) -> None:
    place = anybody.place
    event = run.all("job.paused")[0]
    place.known_hosts.write_text(event["ssh"]["known_hosts"] + "\n")
    assert (await run.ssh("true")).status == 0, "the line in the event verifies"
    at = place.facts["ssh"]
    other = " ".join(place.person("eve").public.split()[:2])
    place.known_hosts.write_text(f"[{at['host']}]:{at['port']} {other}\n")
    try:
        done = await run.ssh("true")
        assert done.status == 255 and "REMOTE HOST IDENTIFICATION HAS CHANGED" in done.err
    finally:
        place.known_hosts.write_text(at["known_hosts"] + "\n")
    assert place.home.run("ssh", run.id, "--org", "acme").stdout.count("StrictHostKeyChecking=yes") == 1


# -- what works there ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "status", "out", "err"),
    [
        ("true", 0, "", ""),
        ("exit 7", 7, "", ""),
        ("exit 255", 255, "", ""),
        ("echo out; echo err >&2; exit 3", 3, "out\n", "err\n"),
        ("no-such-program", 127, "", "no-such-program: command not found"),
        ("type cd", 0, "cd is a shell builtin\n", ""),
        ("umask", 0, "0022\n", ""),
        ("pwd; cd /; pwd", 0, "/home/runner/work\n/\n", ""),
        ("test -t 0 -o -t 1 -o -t 2", 1, "", ""),
        ("pwsh", 127, "", "pitstop: pwsh: this sandbox's image has no PowerShell (pwsh)."),
        ("powershell.exe -c ls", 127, "", "pitstop: powershell.exe: this sandbox's image has no PowerShell (pwsh)."),
        ("kill -TERM $$", 255, "", ""),
    ],
)  # fmt: skip
async def test_a_command_and_its_status(run: Run, command: str, status: int, out: str, err: str) -> None:
    done = await run.ssh(command)
    assert (done.status, done.out) == (status, out)
    assert err in done.err if err else done.err == "", done.err


async def test_a_builtin_alone_is_a_command(run: Run) -> None:
    done = await run.ssh("export")
    assert done.status == 0
    assert f'declare -x PITSTOP_JOB="{run.job}"' in done.out.splitlines()


async def test_stdin_and_stdout_carry_every_byte(run: Run) -> None:
    data = bytes(range(256)) * 8000
    done = await run.ssh("tee copy | sha256sum; wc -c <copy", stdin=data)
    assert done.out.split() == [hashlib.sha256(data).hexdigest(), "-", str(len(data))]
    back = await asyncio.create_subprocess_exec(
        *run.outside.place.ssh_args(run.job), "cat copy", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    out, _ = await back.communicate()
    assert hashlib.sha256(out).hexdigest() == hashlib.sha256(data).hexdigest()


async def test_a_terminal_has_the_size_of_the_window_and_follows_it(run: Run) -> None:
    with run.shell(columns=101, rows=33) as screen:
        await screen.until(PROMPT)
        screen.type("stty size; tty; echo $TERM\n")
        await screen.until("33 101")
        await screen.until("/dev/pts/")
        await screen.until("xterm-256color")
        screen.type("""bash -c 'trap "stty size; exit" WINCH; echo re""ady; while :; do read -t 0.1; done'\n""")
        await screen.until("ready")
        screen.size(77, 22)
        await screen.until("22 77")
        await screen.until(PROMPT)
        screen.client.kill()
        await screen.ended()


async def test_a_command_on_a_terminal_and_another_shell(run: Run) -> None:
    with run.outside.place.screen(run.job, "/bin/sh", options=["-t"]) as screen:
        await screen.until("$ ")
        screen.type("test -t 0 && echo on a ter''minal; exit 4\n")
        await screen.until("on a terminal")
        assert await screen.ended() == 4
    assert not run.all("job.resumed"), "a command, not a shell"


async def test_several_channels_in_one_connection(run: Run) -> None:
    control = run.outside.place.home.folder / f"control-{secrets.token_hex(4)}"
    share = ("-o", f"ControlPath={control}")
    first = await asyncio.create_subprocess_exec(
        *run.outside.place.ssh_args(run.job, *share, "-o", "ControlMaster=yes"), "echo up; cat",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert first.stdout is not None
    assert await first.stdout.readline() == b"up\n"
    done = await asyncio.gather(*(run.ssh(f"echo {number}; exit {number}", options=share) for number in range(8)))
    assert [(one.status, one.out) for one in done] == [(number, f"{number}\n") for number in range(8)]
    assert (await first.communicate(b"to the end"))[0] == b"to the end"
    assert len(run.all("ssh.connected")) == 1


# -- what does not, and what it must not reach -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["-W", "-L", "-D", "unix"])
async def test_no_forward_reaches_the_host(run: Run, kind: str) -> None:
    local = free_port()
    path = run.outside.place.home.folder / f"bait-{kind}"
    with bait(path if kind == "unix" else None) as listener:
        target = str(path) if kind == "unix" else f"127.0.0.1:{listener.sock.getsockname()[1]}"
        if kind == "-W":
            done = await run.ssh(options=["-W", target])
            assert (done.status, done.out) == (255, "")
            assert "pitstop: 127.0.0.1" in done.err
        else:
            flag = ["-D", str(local)] if kind == "-D" else ["-L", f"{local}:{target}"]
            client = await asyncio.create_subprocess_exec(
                *run.outside.place.ssh_args(run.job, *flag, "-o", "ExitOnForwardFailure=yes"), "echo up; cat",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            assert client.stdout is not None
            assert await client.stdout.readline() == b"up\n"
            assert await through(local, listener if kind == "-D" else None) == b""
            out, err = await client.communicate(b"still here")
            assert (client.returncode, out) == (0, b"still here")
            assert b"pitstop: " in err and b"open failed" in err
        assert not listener.touched


async def through(port: int, socks: Bait | None) -> bytes:
    """What comes through a forward."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    if socks is not None:
        writer.write(b"\x05\x01\x00")
        assert await reader.readexactly(2) == b"\x05\x00"
        writer.write(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + socks.sock.getsockname()[1].to_bytes(2, "big"))
    else:
        writer.write(b"hello")
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_no_listener_is_opened_on_the_host(run: Run) -> None:
    port, made = free_port(), run.outside.place.home.folder / "made.sock"
    with run.outside.place.screen(run.job, options=["-R", f"{port}:127.0.0.1:22"]) as screen:
        await screen.until(PROMPT)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        screen.client.kill()
        await screen.ended()
    done = await run.ssh("true", options=["-R", f"{made}:127.0.0.1:22", "-o", "ExitOnForwardFailure=yes"])
    assert done.status == 255 and "forwarding failed" in done.err, done.err
    assert not made.exists()


async def test_files_of_the_host_stay_there(run: Run) -> None:
    folder = run.outside.place.home.folder
    args = run.outside.place.ssh_args(run.job)
    args[args.index("-p")] = "-P"
    for program in ("sftp", "scp"):
        target = f"{args[-1]}:{folder}/secret"
        client = await asyncio.create_subprocess_exec(
            program, *args[1:-1], target, str(folder / "copy"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await client.communicate()
        assert client.returncode != 0 and (b"No such file" in err or b"not found" in err + out), (out, err)
        assert not (folder / "copy").exists()
    looks = (f"cat {folder}/secret", f"ls {run.outside.place.home.dir}", "cat /etc/shadow", "ls /root/.ssh",
             "cat /proc/1/environ | tr '\\0' '\\n' | grep NATS")  # fmt: skip
    for look in looks:
        done = await run.ssh(look)
        assert (done.status != 0, done.out) == (True, ""), look


async def test_the_network_of_the_host_is_not_that_of_the_job(run: Run) -> None:
    nats = run.outside.place.facts["nats"].rpartition(":")[2]
    with bait() as listener:
        for port in (listener.sock.getsockname()[1], nats, run.outside.place.facts["ssh"]["port"]):
            done = await run.ssh(f"exec 3<>/dev/tcp/127.0.0.1/{port}")
            assert done.status != 0 and "refused" in done.err.lower(), done.err
        assert not listener.touched


async def test_no_agent_or_display_has_a_socket_on_the_host(run: Run) -> None:
    folder = run.outside.place.home.folder
    before = set(Path("/tmp").glob("asyncssh-*"))
    agent = await asyncio.create_subprocess_exec(
        "ssh-agent", "-D", "-a", str(folder / "agent"), stdout=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(PATIENCE):
            while not (folder / "agent").exists():
                await asyncio.sleep(0.01)
        done = await run.ssh("echo $SSH_AUTH_SOCK", options=["-A", "-o", f"IdentityAgent={folder}/agent"])
        assert done.status == 0 and done.out.startswith("/tmp/ssh-") and not Path(done.out.strip()).exists()
    finally:
        agent.terminate()
        await agent.wait()
    with bait() as display:
        options = ["-X", "-o", "ForwardX11Trusted=yes", "-o", "XAuthLocation=/bin/false"]
        shown = f"127.0.0.1:{display.sock.getsockname()[1] - 6000}"
        client = await asyncio.create_subprocess_exec(
            *run.outside.place.ssh_args(run.job, *options), "echo ${DISPLAY-none}", stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"DISPLAY": shown},
        )  # fmt: skip
        out, err = await client.communicate()
        assert out == b"none\n", err
        assert not display.touched
    assert set(Path("/tmp").glob("asyncssh-*")) <= before


async def test_variables_of_the_client_do_not_change_what_the_step_had(run: Run) -> None:
    sent = ["LC_TIME=C.UTF-8", "LD_PRELOAD=/evil.so", "PATH=/evil", "BASH_ENV=/evil", "PITSTOP_SESSION=other"]
    done = await run.ssh("env", options=["-o", "SetEnv=" + " ".join(sent)])
    got = dict(line.split("=", 1) for line in done.out.splitlines() if "=" in line)
    assert got["LC_TIME"] == "C.UTF-8"
    assert not {"LD_PRELOAD", "BASH_ENV"} & got.keys()
    assert "/evil" not in got["PATH"] and got["PITSTOP_SESSION"] != "other"


async def test_who_was_inside_is_told(anybody: Outside, run: Run) -> None:
    assert (await run.ssh("true")).status == 0
    connected, closed = await run.hear("ssh.connected"), await run.hear("ssh.closed")
    assert connected["session"] == closed["session"]
    assert (closed["user"], closed["reason"], closed["left"]) == ("ada", "exit", 0)
    entered: dict[str, Any] = await run.entry(lambda found: found["job"]["entered"])
    assert entered["job"]["status"] == "paused"


def test_the_log_of_decisions_is_proved(place: Place) -> None:
    assert place.home.json("verify")["wrong"] == []


def test_no_service_complained(place: Place) -> None:
    logs = {path.name: path.read_text() for path in (place.home.dir / "logs").glob("*.log")}
    assert {name: text for name, text in logs.items() if "Traceback" in text} == {}
