"""`pitstop up` from the first start to the last stop, and over every death in between."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.request
from pathlib import Path

import pytest
from tests.cli_system import SOUND, Home, processes_of, up
from tests.patience import PATIENCE
from tests.whole_system import wait_until

SLOW = """
jobs:
  build:
    steps:
      - name: count
        run: |
          for i in $(seq 1 24); do echo "line $i"; sleep 0.25; done
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def services(home: Home) -> dict[str, int]:
    """The pid of each service, by name."""
    found = {}
    for pid, command in processes_of(home.dir).items():
        for name in ("scheduler", "sandbox", "relay", "janitor"):
            if f"-m pitstop_{name} " in command:
                found[name] = pid
        if "nats-server" in command:
            found["nats-server"] = pid
    return found


def mounts() -> list[str]:
    return sorted(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())


def test_it_prints_one_line_and_keeps_its_secrets(home: Home) -> None:
    with up(home) as system:
        assert set(system.facts) == {"nats", "ssh", "metrics", "sandboxes"}
        assert set(system.facts["ssh"]) == {"host", "port", "known_hosts"}
        assert set(system.facts["metrics"]) == {"scheduler", "sandbox", "relay", "janitor"}
        for url in system.facts["metrics"].values():
            with urllib.request.urlopen(url, timeout=10) as page:
                assert b"pitstop_ready 1.0" in page.read()
        assert home.dir.stat().st_mode & 0o777 == 0o700
        for name in (
            "credentials.json",
            "client.json",
            "publisher.json",
            "ports.json",
            "tls/relay.key",
            "nats/nats.conf",
        ):
            assert (home.dir / name).stat().st_mode & 0o777 == 0o600, name
        passwords = json.loads((home.dir / "credentials.json").read_text())
        assert set(passwords) == {"scheduler", "sandbox", "relay", "janitor", "owner", "publisher"}
        for pid, command in processes_of(home.dir).items():
            assert not any(word in command for word in passwords.values()), command
            environment = Path(f"/proc/{pid}/environ").read_text()
            held = [user for user, word in passwords.items() if word in environment]
            assert len(held) <= 1, f"{command} holds the credentials of {held}"
    assert "Violation" not in (home.dir / "nats" / "nats.log").read_text()


def test_a_second_one_says_who_runs_already(home: Home) -> None:
    with up(home) as system:
        done = home.run("up")
        assert done.returncode == 1
        assert f"already runs in {home.dir} (pid {system.process.pid}" in done.stderr
        assert system.process.poll() is None


def test_ports_stay_and_a_taken_one_is_said(home: Home) -> None:
    with up(home) as first:
        before = first.facts
    with up(home) as again:
        assert again.facts["ssh"] == before["ssh"]
        assert again.facts["nats"] == before["nats"]
        assert again.facts["metrics"] == before["metrics"]
    with socket.create_server(("127.0.0.1", before["ssh"]["port"])):
        refused = home.run("up", "--ssh-port", str(before["ssh"]["port"]))
        assert refused.returncode == 2
        assert f"port {before['ssh']['port']} (--ssh-port) is taken" in refused.stderr
        with up(home) as moved:
            assert moved.facts["ssh"]["port"] != before["ssh"]["port"]
            assert f"port {before['ssh']['port']}, which ssh had before, is taken" in moved.said()


def test_whoever_dies_is_said_and_started_again(home: Home) -> None:
    home.checkout(SOUND)
    with up(home) as system:
        for name, pid in services(home).items():
            os.kill(pid, signal.SIGKILL)
            system.wait_said(f"{name} ended (-9)" if name == "nats-server" else f"{name} was killed by SIGKILL")
            system.wait_said("nats-server runs again" if name == "nats-server" else f"{name} is ready again")
            assert services(home)[name] != pid
        assert home.run("run").returncode == 0
        client = json.loads((home.dir / "client.json").read_text())
        with urllib.request.urlopen(client["metrics"]["relay"], timeout=10) as page:
            assert page.status == 200


def test_ctrl_c_ends_jobs_and_leaves_nothing(home: Home) -> None:
    home.checkout(SOUND)
    before = mounts()
    with up(home) as system:
        run = home.request("--ssh-after-step", "1", "--ssh-key", home.public)
        home.paused(run)
        assert system.stop() == 0
        assert "waiting for running jobs to end" in system.said()
        assert processes_of(home.dir) == {}
        assert mounts() == before
        assert not (home.dir / "client.json").exists()
        assert list((home.dir / "run").iterdir()) == []
        assert list((home.dir / "sandbox" / "jobs").iterdir()) == []
    refused = home.run("status", run)
    assert refused.returncode == 4
    assert "pitstop up" in refused.stderr
    with up(home):
        wait_until(lambda: home.json("status", run)["run"]["status"] == "finished", PATIENCE)
        entry = home.json("status", run)["jobs"][0]["job"]
        assert (entry["result"], entry["reason"]) == ("error", "host_stopped")


def test_a_second_ctrl_c_stops_at_once(home: Home) -> None:
    home.checkout(SLOW)
    with up(home) as system:
        run = home.request()
        wait_until(lambda: "line 1" in home.run("logs", run).stdout, PATIENCE)
        os.kill(services(home)["sandbox"], signal.SIGSTOP)  # it will not drain
        system.process.send_signal(signal.SIGINT)
        system.wait_said("waiting for running jobs to end")
        began = time.monotonic()
        assert system.stop() == 0
        assert time.monotonic() - began < 10
        assert "stopping at once" in system.said()
        assert processes_of(home.dir) == {}


def test_kill_9_of_it_loses_no_run(home: Home) -> None:
    home.checkout(SLOW)
    with up(home) as system:
        run = home.request()
        wait_until(lambda: "line 1" in home.run("logs", run).stdout, PATIENCE)
        system.process.kill()
        system.process.wait()
        wait_until(lambda: services(home) == {}, PATIENCE)
        assert processes_of(home.dir), "the job's holder lives on"
    with up(home):
        wait_until(lambda: home.json("status", run)["run"]["status"] == "finished", 40)
        assert home.json("status", run)["run"]["result"] == "success"
        lines = [line for line in home.run("logs", run).stdout.splitlines() if line.startswith("line ")]
        assert lines == [f"line {number}" for number in range(1, 25)]
    assert processes_of(home.dir) == {}


def test_a_service_that_cannot_run_ends_the_start_with_its_words(home: Home) -> None:
    home.env["PITSTOP_NATS_SERVER"] = "/bin/false"
    done = home.run("up")
    assert done.returncode == 1
    assert "nats-server did not start" in done.stderr
    assert processes_of(home.dir) == {}
