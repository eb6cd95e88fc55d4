"""`ssh relay whoami` and `ssh relay ls`: what the relay itself answers, and to whom."""

from __future__ import annotations

import asyncssh
import pytest
from tests.ssh_support import JOB, World, in_world

from pitstop_common.messages import OpenJob, Person, WhoReply
from pitstop_common.userauth import fingerprint

WAITING = OpenJob(org="acme", project="web", job=JOB, key="build", status="paused", sessions=2, command="ssh x@y")
STARTING = OpenJob(org="acme", project="web", job=f"{JOB[:-1]}2", key="lint", status="starting")


def mark(ssh: World, name: str = "ada") -> str:
    return fingerprint(asyncssh.read_public_key(ssh.folder / f"{name}.pub").public_data)


def known(ssh: World) -> None:
    people = (Person(org="acme", user="ada"), Person(org="other", user="lovelace"))
    ssh.access.known[mark(ssh)] = WhoReply(people=people, jobs=(WAITING, STARTING))


@in_world()
async def test_whoami_and_ls(ssh: World) -> None:
    known(ssh)
    me = f"ada of acme, by the key {mark(ssh)}\nlovelace of other, by the key {mark(ssh)}\ninside {JOB}: 2\n".encode()
    jobs = f"{JOB}  acme/web build  paused  ssh x@y\n{STARTING.job}  acme/web lint  starting\n".encode()
    assert await ssh.ssh("whoami", job="root") == (0, me, b"")
    assert await ssh.ssh("ls", job="root") == (0, jobs, b"")
    assert await ssh.ssh(job="whoever", options=["-T"]) == (0, me + jobs, b"")
    status, out, _ = await ssh.ssh("whoami", job="root", options=["-tt"])
    assert (status, out) == (0, me.replace(b"\n", b"\r\n"))
    assert ssh.dialled == [] and not ssh.denied


@in_world()
async def test_it_knows_no_other_word_and_opens_nothing(ssh: World) -> None:
    known(ssh)
    status, out, err = await ssh.ssh("cat", "/etc/passwd", job="root")
    assert (status, out) == (2, b"") and b"knows `whoami` and `ls`" in err
    for options in (["-s"], ["-W", "127.0.0.1:1"], ["-N", "-R", "0:127.0.0.1:1", "-o", "ExitOnForwardFailure=yes"]):
        status, out, _ = await ssh.ssh("sftp" if options == ["-s"] else "", job="root", options=options)
        assert (status != 0, out) == (True, b""), options


@pytest.mark.parametrize(("away", "words"), [(False, "is not registered"), (True, "the scheduler does not answer")])
@in_world()
async def test_who_is_nobody_is_told_so(ssh: World, away: bool, words: str) -> None:
    ssh.access.away = away
    status, out, err = await ssh.ssh("whoami", job="root")
    assert (status, out) == (255, b"") and words in err.decode()
