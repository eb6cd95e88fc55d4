"""Sandboxes in containers. The engine makes and removes them; processes are started, and outlive us, by holders."""

from __future__ import annotations

import asyncio
import contextlib
import os
import posixpath
import secrets
import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec

from pitstop_common.limits import ORPHAN_GRACE
from pitstop_sandbox.backends.docker import container, meters, runtime, stock
from pitstop_sandbox.backends.docker.cables import Cables, closed
from pitstop_sandbox.backends.docker.engine import DEFAULT_HOST, Engine, EngineError, to_its_end
from pitstop_sandbox.backends.docker.fetched import KEEP_SECONDS, LIMIT, FetchedImages
from pitstop_sandbox.backends.docker.image import Image
from pitstop_sandbox.backends.docker.images import Images
from pitstop_sandbox.backends.docker.pulse import Pulse
from pitstop_sandbox.backends.docker.warm import FOLDER, TAKEN, Begun, Pool, all_taken, read_taken
from pitstop_sandbox.backends.holders import SPOOL_BYTES, Holders
from pitstop_sandbox.backends.holding import HeldSandbox
from pitstop_sandbox.backends.port import BackendError, Hear, Limits, SandboxSpec, Spawn, silent
from pitstop_sandbox.backends.trees import give_tree, remove_tree
from pitstop_sandbox.holder import kernel
from pitstop_sandbox.holder.sweep import is_held

NO_NETWORK: Final = "no network: only this sandbox's own loopback"
OUTWARDS: Final = "network: outwards only; this host, other jobs and private addresses are closed"
NO_NAMES: Final = "no names of other machines: this host asks only itself (PITSTOP_SANDBOX_DNS names a server)"
NO_SUDO: Final = "no root inside: this image has no sudo"


class DockerBackend:
    """`host`: where the engine listens, unix:///… `cables`: None: no network. `warm`: what is kept ready, in the
    host's folder `root`. `images`: bytes of images that this host has fetched itself, of which the least used are
    removed beyond that, but for those that a job asked for in the last `images_kept` seconds."""

    name = "docker"

    def __init__(
        self,
        *,
        host: str = DEFAULT_HOST,
        settings: container.Settings | None = None,
        cables: Cables | None = None,
        orphan_grace: float = ORPHAN_GRACE,
        spool_bytes: int = SPOOL_BYTES,
        root: Path | None = None,
        warm: stock.Wanted = stock.NOTHING,
        images: int = LIMIT,
        images_kept: float = KEEP_SECONDS,
    ) -> None:
        self._settings = settings or container.Settings()
        self._engine = Engine(host)
        self._pulse = Pulse(self._engine)
        fetched = FetchedImages(self._engine, root, images, images_kept)
        self._images = Images(self._engine, self._settings.image, fetched, root)
        self._cables = cables
        self._no_network = NO_NETWORK
        self._holders = Holders(orphan_grace=orphan_grace, spool_bytes=spool_bytes, privileged=True)
        self._traits: container.Traits | None = None
        self._making: set[Path] = set()
        like = SandboxSpec(id="", folder=Path(), limits=Limits(processes=self._settings.processes))
        self._pool = Pool(root, warm, like, self._image, self._begun, self.clean)

    async def probe(self) -> tuple[bool, str]:
        """Runs a program in a container of the default image, when there is one."""
        if missing := self._missing():
            return False, missing
        self._pulse.begin()
        try:
            info = await self._engine.info()
            if any("rootless" in each or "userns" in each for each in info.get("SecurityOptions") or ()):
                return False, "the engine maps users (rootless or userns-remap), which this service does not support"
            await asyncio.to_thread(runtime.check, info, self._settings.runtime)
            await self._try_network()
            found = f"Docker Engine {info.get('ServerVersion')} at {self._engine.host}"
            image = await self._images.default()
            if not image:
                return True, f"{found}; no default image: every job has to name one, or `make images` builds one"
            return True, f"{found}; {image}: {await self._try()}"
        except BackendError as error:
            return False, str(error)

    async def has_image(self) -> bool:
        """Is there an image for jobs that name none? Raises BackendError."""
        return bool(await self._images.default())

    def _missing(self) -> str:
        """What this machine has not, before the engine is asked; empty: nothing."""
        path = self._engine.socket
        if path is None:
            return f"the engine {self._engine.host} is not on this machine: name one at unix:///… (PITSTOP_DOCKER_HOST)"
        if not path.is_socket():
            return f"there is no engine at {path}: start Docker, or say where it is (PITSTOP_DOCKER_HOST)"
        if not runtime.runs_as_root():
            return f"this service is not root, and processes are started by runc, which needs it; engine: {path}"
        return ""

    async def _try_network(self) -> None:
        """Where the rules cannot be set up, containers have no network."""
        if self._cables is None:
            return
        try:
            await self._cables.set_up()
        except BackendError as error:
            self._cables, self._no_network = None, f"{NO_NETWORK}; {error}"

    async def _try(self) -> str:
        folder = Path(tempfile.mkdtemp(prefix="pitstop-probe-"))
        try:
            sandbox = await self.create(SandboxSpec(id="probe.1", folder=folder))
            try:
                request = Spawn(id="probe", argv=["/bin/sh", "-c", ":"], env={}, cwd="/", mode="spool")
                result = await (await sandbox.spawn(request)).wait()
                if self._cables:
                    await closed(sandbox, self._cables)
            finally:
                await sandbox.remove()
            if result.code:
                raise BackendError("probe_failed", f"a program in a container ended with {result.code}")
            return ", ".join(sandbox.notes) or "it works"
        finally:
            remove_tree(folder)

    async def create(self, spec: SandboxSpec, say: Hear = silent) -> HeldSandbox:
        """See `Backend`. Also `image_…` (see `Images.need`), `engine_lost`, `engine_refused`, `runtime_unknown`."""
        if missing := self._missing():
            raise BackendError("create_failed", missing)
        await self._pulse.there()
        with self._pool.starting():
            return await self._create(spec, await self._image(spec, say))

    async def _image(self, spec: SandboxSpec, say: Hear = silent) -> Image:
        home = posixpath.dirname(spec.workspace)
        return await self._images.need(spec.image, user=spec.user, home=home, say=say)

    async def _create(self, spec: SandboxSpec, image: Image) -> HeldSandbox:
        if spec.folder in self._making or is_held(spec.folder / "holder"):
            raise BackendError("sandbox_exists", "there is a sandbox in this folder; adopt it, or remove it first")
        self._making.add(spec.folder)
        self._holders.ready()
        try:
            plan = await to_its_end(self._start(spec, image))
            return await self._holders.make(spec, plan, self)
        except BaseException:
            with contextlib.suppress(BackendError):
                await asyncio.shield(self._undo(spec.folder))
            raise
        finally:
            self._pool.handed(spec.folder)
            self._making.discard(spec.folder)

    async def _start(self, spec: SandboxSpec, image: Image) -> dict[str, Any]:
        """A container that runs, in the folder of the job: the plan for its holder."""
        begun = await self._pool.take(spec, image)
        if begun is None:
            begun = await self._begun(spec, image)
        elif self._cables:
            self._cables.look()
        return {
            "kind": "runc",
            "runc": begun.runc,
            "pid": begun.pid,
            "started": begun.started,
            "lifeline": str(spec.folder / container.LIFE / container.LINE),
            "user": {"uid": image.user.uid, "gid": image.user.gid, "groups": image.user.groups},
            "notes": [*self._network_notes(), *([] if image.sudo else [NO_SUDO])],
            "meters": await asyncio.to_thread(meters.of, spec, self._settings, begun.pid),
            "image": {"shells": image.shells, "env": image.env, "reference": image.reference},
        }

    async def _begun(self, spec: SandboxSpec, image: Image) -> Begun:
        _lay_out(spec.folder, image)
        rules = asyncio.ensure_future(self._cables.set_up()) if self._cables else None
        try:
            made = await self._made(spec, image)
            await self._engine.put(made, image.files)
            pid = await self._engine.start(made)
        finally:
            if rules:
                await rules
        started = kernel.start_time(pid)
        if not started:
            raise BackendError("create_failed", f"the container of {image.name} ended as soon as it was started")
        if self._cables:
            await self._cables.connect(spec.folder, pid)
        return Begun(container=made, pid=pid, started=started, runc=await asyncio.to_thread(runtime.find, made, pid))

    def _network_notes(self) -> list[str]:
        if self._cables is None:
            return [self._no_network]
        return [OUTWARDS] if self._cables.resolvers else [OUTWARDS, NO_NAMES]

    async def _made(self, spec: SandboxSpec, image: Image) -> str:
        if self._traits is None:
            self._traits = container.traits(await self._engine.info(), cores=os.cpu_count() or 1)
        name = f"{container.NAMED}{spec.id}-{secrets.token_hex(4)}"
        resolvers = self._cables.resolvers if self._cables else ()
        while True:
            config = container.config(spec, image, self._settings, self._traits, resolvers=resolvers)
            try:
                return await self._engine.create(config, name)
            except BackendError as error:
                if not self._traits.bounds_disk or "quota" not in str(error):
                    raise
                self._traits = msgspec.structs.replace(self._traits, bounds_disk=False)

    async def adopt(self, spec: SandboxSpec) -> HeldSandbox | None:
        """See `Backend`. A container without its holder is ended: nobody has its processes any more."""
        self._pulse.begin()
        sandbox = await self._holders.adopt(spec, self)
        if sandbox is None:
            with contextlib.suppress(BackendError):
                await self.clean(spec.folder)
        return sandbox

    async def _undo(self, folder: Path) -> None:
        await self.clean(folder)
        await asyncio.to_thread(remove_tree, folder / "holder")

    async def clean(self, folder: Path) -> None:
        """See `Keeper`."""
        taken = await asyncio.to_thread(read_taken, folder)
        root, listed = folder.parent.parent, await self._engine.find(**container.folder_labels(folder))
        own = {made for made, (name, labels) in listed.items() if container.ours(root, name, labels)}
        for made in own | ({taken.container} if taken else set()):
            await self._engine.remove(made)
        if self._cables:
            await self._cables.disconnect(folder)
            if taken:
                await self._cables.disconnect(folder.parent.parent / FOLDER / taken.folder)
        await asyncio.to_thread(remove_tree, folder / container.LIFE)
        if taken:
            await asyncio.to_thread(remove_tree, folder.parent.parent / FOLDER / taken.folder)
            (folder / TAKEN).unlink()

    @property
    def ready(self) -> int:
        """How many containers wait for a job."""
        return self._pool.size

    def expects(self, jobs: bool) -> None:
        """See `Backend`."""
        if jobs:
            self._holders.ready()
        self._pool.expects(jobs)

    async def why(self, folder: Path, reason: str) -> BackendError:
        """See `Keeper`."""
        taken = await asyncio.to_thread(read_taken, folder)
        # The engine tells of containers by their labels.
        return await self._pulse.why(folder.parent.parent / FOLDER / taken.folder if taken else folder, reason)

    def alive(self) -> None:
        """See `Backend`."""
        self._holders.alive()

    async def mine(self, root: Path) -> dict[Path, str]:
        """See `Backend`. By the holders there are, and the labels of containers, and the folders that have taken one
        that was ready; without the engine by holders alone: who asks asks again. As this is asked now and then, it also
        looks after the rules for the network, and ends containers that looked into images."""
        if self._cables:
            await self._cables.keep()
        found = await self._holders.below(root)
        with contextlib.suppress(EngineError):
            # Before and after: one that goes from hand to hand meanwhile is in one of them.
            own, before = self._pool.own, await asyncio.to_thread(all_taken, root)
            listed = await self._engine.find(**{container.ROOT: str(root)})
            own, taken = own | self._pool.own, await asyncio.to_thread(all_taken, root)
            for made, (name, labels) in listed.items():
                if (ours := container.ours(root, name, labels)) is None:
                    continue
                if made in taken:
                    found.setdefault(*taken[made])
                elif made not in before and ours[0] not in own:
                    found.setdefault(*ours)
            await self._images.sweep(root)
        return found

    async def aclose(self) -> None:
        """See `Backend`."""
        await self._pool.aclose()
        await self._images.aclose()
        last = not self._holders.living
        await self._holders.aclose()
        if self._cables:
            await self._cables.aclose(last=last)
        await self._pulse.aclose()
        await self._engine.aclose()


def _lay_out(folder: Path, image: Image) -> None:
    for name in ("work", "job", "bin", "holder", container.LIFE):
        (folder / name).mkdir(mode=0o700 if name == "holder" else 0o755, parents=True, exist_ok=True)
    for name in ("work", "job"):
        give_tree(folder, folder / name, image.user.uid, image.user.gid)
    line = folder / container.LIFE / container.LINE
    line.unlink(missing_ok=True)
    os.mkfifo(line, 0o400)
