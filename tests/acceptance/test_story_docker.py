"""A whole run, and a person in it, with containers for sandboxes; and what is said of an image that is not there."""

from __future__ import annotations

import asyncio
import json
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli_system import Home, Up, processes_of, up
from tests.docker_engine import BARE, FULL, DockerEngine
from tests.outside import METADATA, NEAR, PUBLIC, Outside, outside
from tests.patience import PATIENCE
from tests.whole_system import wait_until

from pitstop_common.bus import connected

FAILING = """
jobs:
  build:
    env: {LANG: C}
    steps:
      - uses: actions/checkout@v4
      - name: test
        run: |
          echo "$FROM_IMAGE $LANG $HOME"
          echo "kept=in $PWD" >> "$GITHUB_ENV"
          grep -q 42 answer
      - name: after
        run: echo "$kept"
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, docker_engine: DockerEngine) -> Iterator[tuple[Home, Up, Outside]]:
    """A system of its own, which ends with every container gone."""
    made = Home(tmp_path_factory.mktemp("docker"))
    engine = {
        "PITSTOP_DOCKER_HOST": docker_engine.host,
        "PITSTOP_DOCKER_IMAGE": FULL,
        "PITSTOP_SANDBOX_MEMORY_MIB": "256",
    }
    with outside() as world, up(made, "--slots", "4", more=engine) as system:
        made.run("keys", "add", made.public)
        yield made, system, world
    assert processes_of(made.folder) == {}
    wait_until(lambda: docker_engine.get("/containers/json?all=1") == (200, b"[]\n"), PATIENCE)


def ssh(home: Home, printed: str, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command line that the CLI printed, with this person's key."""
    argv = shlex.split(printed)
    return subprocess.run(
        [*argv[:-1], "-F", "none", "-i", str(home.key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
         *options.pop("more", ()), argv[-1], *command],
        capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL, env=home.env, check=False,
    )  # fmt: skip


def sftp(home: Home, printed: str, batch: str) -> subprocess.CompletedProcess[str]:
    """The same address, for files."""
    argv = ["-P" if word == "-p" else word for word in shlex.split(printed)]
    return subprocess.run(
        ["sftp", *argv[1:-1], "-F", "none", "-i", str(home.key), "-o", "IdentitiesOnly=yes", "-b", "-", argv[-1]],
        input=batch, capture_output=True, text=True, timeout=PATIENCE, env=home.env, cwd=home.repo, check=False,
    )  # fmt: skip


def test_a_failed_step_in_a_container_is_looked_at_mended_and_tried_again(home: tuple[Home, Up, Outside]) -> None:
    person, system, _ = home
    assert system.facts["sandboxes"].startswith("docker: Docker Engine ")
    person.checkout(FAILING, answer="41\n")
    with person.start("run", "--ssh-on-failure") as running:
        printed = running.line().strip()
        look = "pwd; cat answer; echo $FROM_IMAGE $LANG; id -un; sudo -n id -u; test -t 0 && echo terminal"
        looked = ssh(person, printed, look, more=["-tt"])
        assert looked.stdout.split() == ["/home/runner/work", "41", "yes", "C", "runner", "0", "terminal"], looked
        assert sftp(person, printed, "get answer copy\nput copy other\n").returncode == 0
        assert (person.repo / "copy").read_text() == "41\n"
        assert ssh(person, printed, "echo 42 > answer && pitstop-step retry").returncode == 0
        ssh(person, printed, "pitstop-step continue")
        code, _, stderr = running.end()
    assert code == 0, stderr
    run = printed.rpartition(" ")[2].partition("@")[0].rpartition("-")[0]
    log = person.run("logs", run).stdout
    assert "yes C /home/runner\n" in log and "in /home/runner/work\n" in log


def test_a_job_names_its_image_and_one_that_is_not_there_is_its_error(home: tuple[Home, Up, Outside]) -> None:
    person, system, _ = home
    nowhere = {"image": "nowhere.invalid/x", "steps": [{"run": "true"}]}
    greedy = {"steps": [{"run": "perl -e '$x = \"a\" x (500 << 20)'"}]}
    bare = {"image": BARE, "steps": [{"run": "id -u; test ! -e /bin/bash"}]}
    asyncio.run(publish(system.facts["nats"], {"one": nowhere, "two": bare, "three": greedy}))

    def ended() -> dict[str, dict[str, Any]]:
        found = {
            each["request"]: person.json("status", each["run"])["run"] for each in person.json("ls", "--all")["runs"]
        }
        return {name: run for name, run in found.items() if name in ("one", "two", "three") and run["result"]}

    wait_until(lambda: len(ended()) == 3, PATIENCE)
    runs = ended()
    assert [runs[name]["result"] for name in ("one", "two", "three")] == ["error", "success", "failure"]
    said = person.run("logs", runs["three"]["run"]).stdout
    assert "out of memory (limit 256 MiB)" in said
    said = person.run("status", runs["one"]["run"]).stdout + person.run("logs", runs["one"]["run"]).stdout
    assert "nowhere.invalid/x:latest is not on this host and could not be fetched" in said
    assert "fetching nowhere.invalid/x:latest: it is not on this host\n" in said, (
        "the job's log tells what it waits for"
    )
    assert f"Image: {BARE} sha256:" in person.run("logs", runs["two"]["run"]).stdout
    assert person.run("logs", runs["two"]["run"]).stdout.count("1001\n") == 1


def test_a_step_reaches_the_outside_and_neither_nats_nor_the_relay(home: tuple[Home, Up, Outside]) -> None:
    person, system, world = home
    ports = (int(system.facts["nats"].rpartition(":")[2]), int(system.facts["ssh"]["port"]))
    found = json.loads(subprocess.run(["ip", "-j", "addr"], capture_output=True, check=True).stdout)
    mine = [each["local"] for link in found for each in link["addr_info"] if each["scope"] in ("global", "host")]
    targets = [(host, port) for host in mine for port in ports]
    for port in ports:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
            assert connection.recv(4), "they speak first, both"
    asked = " ".join(f"{host},{port}" for host, port in (*targets, (METADATA, world.port), (PUBLIC, world.port)))
    step = f"echo begin; bash ./reach {asked}; sudo -n bash ./reach {asked}; echo $(grep -c . /etc/resolv.conf) end"
    person.checkout(
        f"jobs:\n  net:\n    steps:\n      - uses: actions/checkout@v4\n      - run: {step}\n",
        reach=(Path(__file__).parents[1] / "attacks" / "reach").read_text(),
    )
    done = person.run("run")
    assert done.returncode == 0, done.stderr
    _, _, said = done.stdout.partition("begin\n")
    reached = [line for line in said.splitlines() if "198.51.100" in line or any(each in line for each in mine)]
    assert [line.split()[-3:] for line in reached] == [[who, PUBLIC, NEAR] for who in ("runner", "root")], said


async def publish(url: str, requests: dict[str, dict[str, Any]]) -> None:
    """As any system does: a plain message."""
    async with connected(url, "test") as bus:
        for name, request in requests.items():
            body = {"id": name, "org": "local", "project": "web", "actor": "ada", **request}
            await bus.publish("run.requested", json.dumps(body).encode())
