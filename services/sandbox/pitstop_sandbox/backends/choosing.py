"""Which backend a host uses. `auto`: docker where it works and has an image for jobs that name none; else namespaces.

`python -m pitstop_sandbox.backends.choosing` says it in one line of JSON, for `pitstop doctor`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from ipaddress import IPv4Network
from urllib.parse import urlsplit

import msgspec

from pitstop_common.config import address, load
from pitstop_common.errors import ConfigError
from pitstop_sandbox.backends.docker.engine import DEFAULT_HOST
from pitstop_sandbox.backends.docker.network import Outward
from pitstop_sandbox.backends.fake import FakeBackend
from pitstop_sandbox.backends.namespaces import NamespacesBackend
from pitstop_sandbox.backends.port import Backend, BackendError
from pitstop_sandbox.config import SandboxConfig


class Choice(msgspec.Struct, frozen=True):
    """A backend that works here, and what was found."""

    backend: Backend
    found: str


async def choose(config: SandboxConfig) -> Choice:
    """The backend of the settings. Raises ConfigError that says what to do."""
    if config.sandbox == "fake":
        return Choice(FakeBackend(), "fake: nothing is isolated")
    against = ""
    if config.sandbox in ("auto", "docker"):
        backend, found = await _docker(config)
        if backend is not None:
            return Choice(backend, f"docker: {found}")
        if config.sandbox == "docker":
            raise ConfigError(f"no container can be made here: {found}")
        against = f" (not docker: {found})"
    namespaces = NamespacesBackend(
        uids=config.uids, read_only=config.sandbox_paths, orphan_grace=config.orphan_grace
    )  # fmt: skip
    works, found = await namespaces.probe()
    if not works:
        await namespaces.aclose()
        raise ConfigError(f"no sandbox can be made here: {found}{against}")
    return Choice(namespaces, f"namespaces: {found}{against}")


async def _docker(config: SandboxConfig) -> tuple[Backend | None, str]:
    """None, and why not. The client of the engine is loaded only where there may be one."""
    from pitstop_sandbox.backends.docker.backend import DockerBackend
    from pitstop_sandbox.backends.docker.cables import Cables, clear
    from pitstop_sandbox.backends.docker.container import Settings

    backend = DockerBackend(
        host=config.docker_host or os.environ.get("DOCKER_HOST") or DEFAULT_HOST,
        settings=Settings(
            image=config.docker_image, cpus=config.sandbox_cpus, memory=config.sandbox_memory_mib * 2**20,
            processes=config.sandbox_processes, disk=config.sandbox_disk_mib * 2**20, runtime=config.docker_runtime,
        ),
        cables=Cables(outward(config)) if config.sandbox_network == "nat" else None,
        orphan_grace=config.orphan_grace,
        root=config.dir.absolute(), warm=config.warm, images=config.docker_images_mib * 2**20,
    )  # fmt: skip
    if config.sandbox_network == "none":
        await clear(outward(config))
    works, found = await backend.probe()
    try:
        if works and config.sandbox == "auto" and not await backend.has_image():
            works, found = False, "no image for jobs that name none: PITSTOP_DOCKER_IMAGE, or `make images`"
    except BackendError as error:
        works, found = False, str(error)
    if not works and config.sandbox == "docker" and await backend.mine(config.dir.absolute()):
        # Their holders need a host, not an engine; in ORPHAN_GRACE they would end.
        return backend, f"{found}; the jobs there are go on"
    if not works:
        await backend.aclose()
        return None, found
    return backend, found


def outward(config: SandboxConfig) -> Outward:
    """The network of jobs. NATS and the relays are closed to them, wherever they are."""
    endpoints = [urlsplit(url if "//" in url else f"//{url}").hostname for url in config.nats_url.split(",")]
    if config.ssh_public:
        endpoints.append(address(config.ssh_public)[0])
    return Outward(
        root=config.dir.absolute(), subnets=IPv4Network(config.docker_subnets),
        closed=tuple(map(IPv4Network, config.sandbox_deny)), open=tuple(map(IPv4Network, config.sandbox_allow)),
        endpoints=tuple(sorted({each for each in endpoints if each})), resolvers=config.sandbox_dns,
    )  # fmt: skip


async def _say() -> dict[str, str]:
    try:
        config = load(SandboxConfig, {"PITSTOP_NATS_URL": "-", **os.environ})
        # What it tries in the kernel has other names than what a host of this folder has there.
        config = msgspec.structs.replace(config, dir=config.dir / f"doctor-{os.getpid()}")
        choice = await choose(config)
    except ConfigError as error:
        return {"error": str(error)}
    await choice.backend.aclose()
    return {"backend": choice.backend.name, "found": choice.found}


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.encode(asyncio.run(_say())).decode() + "\n")
