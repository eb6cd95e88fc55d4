"""The parts of `pitstop up` alone: back-off, ports, credentials, certificates, environments."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop_cli.exits import Failure
from pitstop_cli.local import credentials, tls
from pitstop_cli.local.ports import Ports, free_port, is_free
from pitstop_cli.local.settings import Options, environment
from pitstop_cli.paths import state_dir, write_private
from pitstop_common.backoff import Backoff
from pitstop_common.permissions import OWNER, SERVICES


def test_short_lives_wait_longer_each_time() -> None:
    backoff = Backoff()
    assert [backoff.after(1.0) for _ in range(7)] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert backoff.after(30.0) == 0.2, "a steady life starts it anew"


@given(st.lists(st.floats(0, 1000), max_size=30))
def test_a_wait_is_always_in_its_bounds(lives: list[float]) -> None:
    backoff = Backoff()
    assert all(0.2 <= backoff.after(lived) <= 5.0 for lived in lives)


def test_ports_are_remembered_and_a_taken_one_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    port = Ports(tmp_path / "ports.json", said.append).choose("ssh", None)
    Ports(tmp_path / "ports.json", said.append).remember(ssh=port)
    assert Ports(tmp_path / "ports.json", said.append).choose("ssh", None) == port
    assert said == []
    with socket.create_server(("127.0.0.1", port)):
        assert Ports(tmp_path / "ports.json", said.append).choose("ssh", None) != port
    assert said[0].startswith(f"port {port}, which ssh had before, is taken")


def test_a_port_shared_by_reuse_counts_as_taken() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert not is_free(other.getsockname()[1])


def test_a_wanted_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(Failure, match=rf"port {port} \(--nats-port\) is taken"):
            Ports(tmp_path / "ports.json", print).choose("nats", port, "--nats-port")
    assert Ports(tmp_path / "ports.json", print).choose("nats", port, "--nats-port") == port


@pytest.mark.parametrize("text", ["", "[]", "{", '{"ssh": "x"}', '{"ssh": null}'])
def test_a_damaged_memory_of_ports_is_no_obstacle(tmp_path: Path, text: str) -> None:
    (tmp_path / "ports.json").write_text(text)
    assert Ports(tmp_path / "ports.json", print).choose("ssh", None) > 0


def test_credentials_are_made_once_and_private(tmp_path: Path) -> None:
    first = credentials.accounts(tmp_path, "local")
    again = credentials.accounts(tmp_path, "local")
    assert [account.password for account in first] == [account.password for account in again]
    assert len({account.password for account in first}) == len(first) == 6
    assert (tmp_path / "credentials.json").stat().st_mode & 0o777 == 0o600
    assert all(account.publish is not None and account.subscribe is not None for account in first)


def test_a_user_that_is_new_gets_a_password_and_the_others_keep_theirs(tmp_path: Path) -> None:
    before = {account.user: account.password for account in credentials.accounts(tmp_path, "local")}
    kept = json.loads((tmp_path / "credentials.json").read_text())
    del kept[OWNER]
    (tmp_path / "credentials.json").write_text(json.dumps(kept))
    after = {account.user: account.password for account in credentials.accounts(tmp_path, "local")}
    assert {user for user in before if before[user] != after[user]} == {OWNER}


def test_private_files_are_private_from_the_first_byte_and_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "secret"
    old = os.umask(0)
    try:
        write_private(target, "one")
        write_private(target, "two")
    finally:
        os.umask(old)
    assert target.read_text() == "two"
    assert target.stat().st_mode & 0o777 == 0o600
    assert target.parent.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in target.parent.iterdir()] == ["secret"]


def context(folder: Path, end: str, *, server: bool) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.load_cert_chain(folder / f"{end}.pem", folder / f"{end}.key")
    made.load_verify_locations(folder / "ca.pem")
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    return made


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    left, right = socket.socketpair()
    with left, right:
        left.settimeout(10)
        right.settimeout(10)
        failures: list[Exception] = []

        def serve() -> None:
            try:
                with server.wrap_socket(left, server_side=True) as connection:
                    connection.sendall(connection.recv(1))
            except (OSError, ssl.SSLError) as error:
                failures.append(error)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with client.wrap_socket(right, server_hostname=name) as connection:
                connection.sendall(b"x")
                assert connection.recv(1) == b"x"
        finally:
            thread.join()
        assert not failures


def test_both_ends_of_the_link_know_each_other_and_nobody_else(tmp_path: Path) -> None:
    tls.ensure(tmp_path / "a")
    tls.ensure(tmp_path / "b")
    relay, host = context(tmp_path / "a", "relay", server=True), context(tmp_path / "a", "host", server=False)
    handshake(relay, host, "pitstop-relay")
    with pytest.raises(ssl.SSLError):
        handshake(relay, host, "pitstop-host")
    with pytest.raises((ssl.SSLError, OSError)):
        handshake(relay, context(tmp_path / "b", "host", server=False), "pitstop-relay")


def test_certificates_are_kept_while_young(tmp_path: Path) -> None:
    tls.ensure(tmp_path)
    first = (tmp_path / "relay.pem").read_bytes()
    tls.ensure(tmp_path)
    assert (tmp_path / "relay.pem").read_bytes() == first
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
        os.utime(file, (1, 1))
    tls.ensure(tmp_path)
    assert (tmp_path / "relay.pem").read_bytes() != first


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_gets_its_own_settings_and_nothing_of_ours(service: str, tmp_path: Path) -> None:
    environ = {"PATH": "/bin", "HOME": "/h", "AWS_SECRET_ACCESS_KEY": "s", "PITSTOP_NATS_URL": "other",
               "PITSTOP_LOG_LEVEL": "debug", "SSH_AUTH_SOCK": "/x", "PITSTOP_ACTOR": "ada"}  # fmt: skip
    env = environment(
        service, Options(dir=tmp_path, slots=3), nats_url="nats://u:p@h:1", ssh_port=2222, http_port=9,
        ready_file=tmp_path / "ready", environ=environ,
    )  # fmt: skip
    assert env["PITSTOP_NATS_URL"] == "nats://u:p@h:1"
    assert env["PITSTOP_DIR"] == str(tmp_path / service)
    assert env["PITSTOP_LOG_LEVEL"] == "debug"
    assert not {"AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "PITSTOP_ACTOR"} & set(env)
    assert env.get("PITSTOP_CAPACITY") == ("3" if service == "sandbox" else None)
    assert env.get("PITSTOP_ORG_SLOTS") == ("3" if service == "scheduler" else None)


def test_the_folder_of_the_system() -> None:
    assert state_dir({"PITSTOP_DIR": "/x/y"}) == Path("/x/y")
    assert state_dir({"XDG_STATE_HOME": "/s"}) == Path("/s/pitstop")
    assert state_dir({}) == Path.home() / ".local/state/pitstop"


def test_a_free_port_is_free() -> None:
    assert is_free(free_port())
