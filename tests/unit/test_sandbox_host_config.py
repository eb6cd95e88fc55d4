"""Settings of a sandbox host: every fault named, its id kept, one process to a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from pitstop_common.config import load
from pitstop_common.errors import ConfigError
from pitstop_sandbox.config import SandboxConfig, host_id, only_one, ssh_address

GOOD = {"PITSTOP_NATS_URL": "nats://127.0.0.1:4222"}


def test_the_smallest_settings_are_enough() -> None:
    config = load(SandboxConfig, GOOD)
    assert (config.pool, config.capacity, config.sandbox, config.jobs_at_stop) == ("default", 4, "auto", "leave")
    assert config.uids == range(210000, 211000)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOST_ID", "Host A"), ("HOST_ID", "a" * 64), ("HOST_ID", "a.b"), ("POOL", "x.y"), ("CAPACITY", "0"),
        ("CAPACITY", "10001"), ("SANDBOX", "podman"), ("JOBS_AT_STOP", "kill"), ("SANDBOX_UIDS", "5"),
        ("SANDBOX_UIDS", "0-10"), ("SANDBOX_UIDS", "2000-1999"), ("SANDBOX_PATHS", "/ok,relative"),
        ("TLS_CA", "/ca.pem"), ("LABELS", "Big"), ("LABELS", "big, gpu"),
        ("SSH_PUBLIC", "host"), ("SSH_PUBLIC", "host:99999"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"PITSTOP_{name}"):
        load(SandboxConfig, {**GOOD, f"PITSTOP_{name}": value})


def test_labels_are_those_of_every_host_and_its_own() -> None:
    labels = load(SandboxConfig, {**GOOD, "PITSTOP_LABELS": "gpu,big,linux"}).all_labels
    assert {"linux", "self-hosted", "gpu", "big"} < set(labels)
    assert list(labels) == sorted(set(labels)) and len(labels) == 5  # and the machine's own


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as found:
        load(SandboxConfig, {**GOOD, "PITSTOP_POOL": "?", "PITSTOP_CAPACITY": "-1", "PITSTOP_SANDBOX": "vm"})
    assert len(str(found.value).splitlines()) == 4


def test_the_id_is_made_once_and_kept(tmp_path: Path) -> None:
    config = SandboxConfig(nats_url="nats://x", dir=tmp_path)
    made = host_id(config)
    assert host_id(config) == made
    assert host_id(SandboxConfig(nats_url="nats://x", dir=tmp_path, host_id="other")) == "other"
    (tmp_path / "host-id").write_text("not an id")
    assert host_id(config) not in {made, "not an id"}


def test_one_process_to_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with only_one(folder), pytest.raises(ConfigError, match="another sandbox host"), only_one(folder):
        pass
    with only_one(folder):
        pass


def test_how_to_enter(tmp_path: Path) -> None:
    line = tmp_path / "known_hosts"
    config = SandboxConfig(nats_url="nats://x", ssh_public="ci.example:2222", ssh_known_hosts=str(line))
    address = ssh_address(config, "abcdefghijkl-1")
    assert address is not None
    assert (address.command, address.known_hosts) == ("ssh -p 2222 abcdefghijkl-1@ci.example", "")
    line.write_text("[ci.example]:2222 ssh-ed25519 AAAA\n")
    address = ssh_address(config, "abcdefghijkl-1")
    assert address is not None
    assert address.known_hosts == "[ci.example]:2222 ssh-ed25519 AAAA"
    plain = ssh_address(SandboxConfig(nats_url="nats://x", ssh_public="ci.example:22"), "j")
    assert plain is not None
    assert plain.command == "ssh j@ci.example"
    assert ssh_address(SandboxConfig(nats_url="nats://x"), "j") is None
