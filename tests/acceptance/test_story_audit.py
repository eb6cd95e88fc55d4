"""The audit of a run, from outside: who was in, from where, with which key, what they opened; and what is not kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.support.outside import PROMPT, SECONDS, Outside, Place, Run, outside, running

from pitstop_common.bus import connected

TOKEN = "tok-Zq7vLw9xPk2mRt5y"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(tmp_path_factory.mktemp("audit")) as made:
        done = made.home.run("secrets", "set", "deploy", "API_TOKEN", stdin=TOKEN)
        assert done.returncode == 0, done.stderr
        yield made


@pytest.fixture
async def anybody(place: Place) -> AsyncIterator[Outside]:
    async with outside(place) as someone:
        yield someone


async def audit(run: Run) -> list[dict[str, Any]]:
    """As a script has it."""
    done = await asyncio.to_thread(run.outside.place.home.run, "audit", run.id, "--org", run.org, "-o", "json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


async def used(run: Run, holds: int) -> list[dict[str, Any]]:
    """What was opened in a run, once so many uses are stored: they are stored soon after, not before they begin."""
    async with asyncio.timeout(SECONDS):
        while True:
            found = [entry for entry in await audit(run) if entry["type"] == "ssh.used"]
            if sum(entry["count"] for entry in found) >= holds:
                return found


async def test_who_was_in_a_run_and_what_they_did_stands_in_its_audit(anybody: Outside) -> None:
    run = await anybody.request("false", "true", ssh={"pause": "on_failure"})
    await run.paused()
    eve = anybody.place.person("eve")
    assert (await anybody.ssh(run.job, "true", person=eve)).status == 255
    sftp = ["-s"]
    assert (await run.ssh("echo one; echo two >&2")).out == "one\n"
    await anybody.ssh(run.job, "sftp", options=sftp)
    options = ["-o", "ExitOnForwardFailure=yes", "-R", "127.0.0.1:7001:127.0.0.1:9"]
    assert (await run.ssh("true", options=options)).status == 0
    await anybody.ssh(run.job, options=["-W", "127.0.0.1:7002"])
    with run.shell() as screen:
        await screen.until(PROMPT)
        screen.type("pitstop-step retry\n")
        await run.hear("step.started", attempts=2)
        await run.hear("step.finished", 2, step=1)
        screen.type("pitstop-step skip\n")
        await screen.ended()
    await run.finished()
    entries = await audit(run)
    assert [entry["seq"] for entry in entries] == sorted(entry["seq"] for entry in entries)
    assert entries[0]["type"] == "run.accepted" and entries[-1]["type"] == "job.finished"
    done = {(entry["kind"], entry["what"]) for entry in entries if entry["type"] == "ssh.used"}
    assert done == {
        ("exec", "echo one; echo two >&2"), ("sftp", ""), ("exec", "true"), ("listen", "127.0.0.1:7001"),
        ("dial", "127.0.0.1:7002"), ("shell", ""),
    }  # fmt: skip
    key = anybody.place.person().fingerprint
    for entry in entries:
        if entry["session"]:
            assert (entry["user"], entry["fingerprint"]) == ("ada", key)
            assert entry["client"].startswith("127.0.0.1:")
    (denied,) = [entry for entry in entries if entry["type"] == "ssh.denied"]
    assert (denied["reason"], denied["fingerprint"], denied["job"]) == ("key_unknown", eve.fingerprint, run.job)
    assert [(e["what"], e["user"], e["step"]) for e in entries if e["type"] in {"step.started", "job.resumed"}] == [
        ("retry", "ada", 1), ("skip", "ada", 1),
    ]  # fmt: skip
    assert (await run.hear("ssh.used", kind="exec", what="true"))["job"] == run.job
    table = (await asyncio.to_thread(anybody.place.home.run, "audit", run.job, "--org", "acme")).stdout.splitlines()
    assert table[0].split() == ["WHEN", "JOB", "WHO", "FROM", "KEY", "WHAT"]
    for words in ("entered", "ran: echo one; echo two >&2", "listens inside on: 127.0.0.1:7001", "retry of step 1",
                  "was refused: key_unknown", "skip at step 1", "left: exit, after"):  # fmt: skip
        assert any(words in line for line in table), words


async def sftp(run: Run, folder: Path, *lines: str) -> None:
    """OpenSSH's own client, with these commands."""
    place = run.outside.place
    _, *options, _ = place.ssh_args(run.job)
    options[options.index("-p")] = "-P"
    at = place.facts["ssh"]
    (folder / "batch").write_text("\n".join(lines) + "\n")
    client = await asyncio.create_subprocess_exec("sftp", *options, "-b", str(folder / "batch"),
                                                  f"{run.job}@{at['host']}", stdout=asyncio.subprocess.PIPE,
                                                  stderr=asyncio.subprocess.STDOUT)  # fmt: skip
    out, _ = await client.communicate()
    assert client.returncode == 0, out.decode()


async def test_each_operation_on_files_over_sftp_and_a_thousand_of_them_in_few_events(
    anybody: Outside, tmp_path: Path
) -> None:
    run = await anybody.request("true", ssh={"pause": "at_end"})
    await run.paused()
    local = tmp_path / "a file"
    local.write_text("x" * 100_000)
    await sftp(run, tmp_path, f'put "{local}" new', f"get new {tmp_path}/back", "rename new old", "mkdir d", "ls d",
               "rmdir d", "ln old hard", "ln -s old soft", "chmod 600 old", "rm hard")  # fmt: skip
    work = "/home/runner/work"
    done = [entry["what"] for entry in await used(run, 11) if entry["kind"] == "file"]
    assert [what for what in done if not what.startswith(("list", "change attributes of /home/runner/work/new"))] == [
        f"write {work}/new", f"read {work}/new", f"rename {work}/new to {work}/old", f"make folder {work}/d",
        f"remove folder {work}/d", f"link {work}/old as {work}/hard", f"link old as {work}/soft",
        f"change attributes of {work}/old", f"remove {work}/hard",
    ]  # fmt: skip
    flood = tmp_path / "flood"
    flood.mkdir()
    for number in range(1000):
        (flood / f"file {number}").write_text("y")
    await sftp(run, tmp_path, f"put -r {flood}")
    await run.exit()
    await run.finished()
    entries = [entry for entry in await audit(run) if entry["kind"] == "file"]
    assert sum(entry["count"] for entry in entries) >= 1010 and len(entries) < 50
    named = [what for entry in entries for what in (entry["what"], *entry["named"]) if what]
    assert f"write '{work}/flood/file 7'" in named and len(named) > 100
    table = (await asyncio.to_thread(anybody.place.home.run, "audit", run.job, "--org", "acme")).stdout
    assert f"sftp: rename {work}/new to {work}/old" in table and "too many different ones" in table


async def test_an_extension_a_cancel_and_an_expiry_stand_there_too(anybody: Outside) -> None:
    kept = await anybody.request("true", ssh={"pause": "at_end"})
    await kept.entry(lambda entry: entry["job"]["status"] == "paused")
    assert "until" in await anybody.api("extend", {"run": kept.id, "seconds": 1200})
    assert (await anybody.api("cancel", {"run": kept.id, "reason": "not needed"}))["ok"]
    left = await anybody.request("true", ssh={"pause": "at_end", "connect_window": 0.5})
    assert await kept.finished() == "cancellation"
    await left.finished()
    told = [(e["type"], e["user"], e["seconds"], e["reason"]) for e in await audit(kept)]
    assert ("run.extend", "ada", 1200, "") in told
    assert ("run.cancel", "ada", 0, "not needed") in told
    expired = [entry["reason"] for entry in await audit(left) if entry["type"] == "session.expired"]
    assert expired == ["connect_window"]


async def test_secrets_and_what_steers_a_terminal_are_not_kept(anybody: Outside) -> None:
    mask = "derived-9f2c77aa"
    key = anybody.place.person().public
    # The step's name, which is its command, does not hold the value.
    body = {
        "org": "local", "project": "web", "secrets": ["deploy"], "ssh": {"pause": "at_end", "keys": [key]},
        "steps": [{"run": f'echo "::add-mask::{mask[:9]}""{mask[9:]}"'}],
    }  # fmt: skip
    begun = await anybody.api("run", body, org="local")
    run = Run(anybody, body, begun["run"], begun["jobs"])
    await run.paused()
    await run.ssh(f"true {TOKEN} {mask}\n\x1b]0;title\x07\u202eend")
    await run.ssh("true " + "x" * 3000)
    first, second = await used(run, 2)
    assert first["what"] == "true *** *** �]0;title��end"
    assert second["what"] == "true " + "x" * 294 + "…"
    stored = [message.data for message in await anybody.stored("IN")]
    assert not [data for data in stored if TOKEN.encode() in data or mask.encode() in data]
    await run.cancel()
    await run.finished()


async def test_a_loop_of_commands_is_counted_and_not_stored_one_by_one(anybody: Outside) -> None:
    run = await anybody.request("true", ssh={"pause": "at_end"})
    await run.paused()
    control = anybody.place.home.folder / "mux"
    master = ["-o", f"ControlPath={control}", "-o", "ControlMaster=auto", "-o", "ControlPersist=60"]
    try:
        for number in range(60):
            assert (await run.ssh("true" if number < 50 else f"true {number}", options=master)).status == 0
    finally:
        await anybody.ssh(run.job, options=[*master, "-O", "exit"])
    assert len(run.all("ssh.used")) < 60
    await run.cancel()  # its end says what was only counted
    await run.finished()
    found = await used(run, 60)
    assert sum(entry["count"] for entry in found) == 60, "none is lost"
    assert {entry["user"] for entry in found} == {"ada"}
    assert len(found) < 60


async def test_the_audit_is_for_people_of_the_project_and_of_one_run_only(anybody: Outside, place: Place) -> None:
    run, other = await anybody.request("true"), await anybody.request("true")
    await run.finished()
    await other.finished()
    jobs = {entry["job"] for entry in await audit(run)}
    assert jobs == {"", run.job}
    assert "error" in await anybody.api("audit", {"run": run.id}, org="other", actor="ada")
    nobody = await asyncio.to_thread(place.home.run, "audit", "nosuchrun", "--org", "acme")
    assert nobody.returncode != 0 and "there is no run nosuchrun" in nobody.stderr
    async with connected(place.url("relay"), "relay") as relay:
        with pytest.raises(Exception, match=r"(?i)permissions|no answer|refused|does not answer|unavailable"):
            await relay.store(f"ssh.used.acme.{run.id}", b"{}", {})
