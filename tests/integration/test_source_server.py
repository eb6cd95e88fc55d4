"""Checkout from real git servers: what comes, by which way, what it costs the second time, and who may not have it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.git_server import GitServer, certificate, commit, daemon, git, lfs_pointer
from tests.jobs import driven, run_of, step
from tests.patience import PATIENCE

from pitstop_common.spec import Source, StepSpec
from pitstop_sandbox.settings import Settings
from pitstop_sandbox.source.cache import Cache
from pitstop_sandbox.source.lfs import server_of
from pitstop_sandbox.source.trees import TreeMaker
from pitstop_sandbox.source.wish import CheckoutError, CheckoutLimits, credential_of, wanted

TOKEN = "token-of-acme-4711"


class World:
    """A server with repositories, and a host with its cache."""

    def __init__(self, folder: Path, server: GitServer) -> None:
        self.folder = folder
        self.server = server
        self.limits = CheckoutLimits(cache=folder / "cache", ca=server.ca)
        self._trees = 0
        self.work = folder / "work"
        self.head = git(self.work, "rev-parse", "HEAD")
        server.private["priv"] = TOKEN

    def publish(self, place: str, name: str, work: Path | None = None) -> str:
        """Push a work tree to a repository of the server."""
        bare = self.server.root / place / f"{name}.git"
        if not bare.exists():
            git(self.folder, "init", "-q", "--bare", str(bare))
        git(
            work or self.work,
            "push",
            "-q",
            "--force",
            str(bare),
            "refs/heads/*:refs/heads/*",
            "refs/tags/*:refs/tags/*",
        )
        return self.server.url(f"{place}/{name}.git")

    async def tree(self, url: str = "", *, org: str = "acme", secrets: dict[str, str] | None = None, ref: str = "",
                   sha: str = "", limits: CheckoutLimits | None = None, **options: str) -> Tree:  # fmt: skip
        """What a checkout step with these options would take into its sandbox."""
        limits = limits or self.limits
        source = Source(git=url or self.server.url("pub/web.git"), ref=ref, sha=sha)
        spec = StepSpec(index=1, name="x", options={name.replace("_", "-"): text for name, text in options.items()})
        want = wanted(source, spec, limits, "/w")
        self._trees += 1
        temp = self.folder / f"tree-{self._trees}"
        temp.mkdir()
        log = temp / "log"
        with log.open("ab", buffering=0) as file:
            maker = TreeMaker(temp, want, org, file, limits, credential_of(secrets or {}, want))
            try:
                async with asyncio.timeout(PATIENCE):
                    await maker.make()
            except CheckoutError as error:
                error.add_note(log.read_text())
                raise
        return Tree(maker.tree, log.read_text())


class Tree:
    """A tree that was made, and what was said."""

    def __init__(self, path: Path, log: str) -> None:
        self.path = path
        self.log = log

    def git(self, *arguments: str) -> str:
        """As a step would."""
        return git(self.path, *arguments)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three commits and a tag, pushed to a public and a private repository. For tests to copy."""
    folder = tmp_path_factory.mktemp("made")
    work = folder / "work"
    work.mkdir()
    (work / "big").write_bytes(os.urandom(100_000))
    for text in ("one", "two", "three"):
        (work / "file").write_text(text)
        commit(work, text)
    git(work, "tag", "-a", "v1", "-m", "v1", "HEAD~1")
    for place in ("pub", "priv"):
        git(folder, "clone", "-q", "--bare", str(work), str(folder / "repos" / place / "web.git"))
    certificate(folder / "ca.pem")
    return folder


@pytest.fixture
def world(tmp_path: Path, made: Path) -> Iterator[World]:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    with GitServer(tmp_path / "repos") as server:
        yield World(tmp_path, server)


async def test_depths_tags_and_commits_through_one_cache_entry(world: World) -> None:
    first = await world.tree()
    assert first.git("log", "--format=%s") == "three"
    assert first.git("branch", "--show-current") == "main" and first.git("status", "--short") == ""
    assert first.git("for-each-ref", "--format=%(refname)") == "refs/heads/main\nrefs/remotes/origin/main"
    before = world.server.sent
    assert before > 100_000
    assert (await world.tree()).git("log", "--format=%s") == "three"
    assert world.server.sent - before < 10_000  # nothing was sent that is here
    two = await world.tree(fetch_depth="2")
    assert two.git("log", "--format=%s").split() == ["three", "two"]
    tagged = await world.tree(ref="v1")
    assert tagged.git("log", "--format=%s") == "two" and tagged.git("tag") == "v1"
    whole = await world.tree(fetch_depth="0")
    assert whole.git("log", "--format=%s").split() == ["three", "two", "one"]
    assert whole.git("tag") == "v1" and whole.git("rev-parse", "--is-shallow-repository") == "false"
    one = await world.tree(sha=git(world.work, "rev-parse", "HEAD~2"))
    assert one.git("log", "--format=%s") == "one"
    assert (await world.tree(fetch_tags="true")).git("tag") == "v1"
    (world.work / "file").write_text("four")
    commit(world.work, "four")
    world.publish("pub", "web")
    before = world.server.sent
    assert (await world.tree()).git("log", "--format=%s") == "four"
    assert world.server.sent - before < 20_000
    assert len([entry for entry in world.folder.glob("cache/*") if entry.is_dir()]) == 1


async def test_a_private_repository_is_for_those_who_have_its_token(world: World) -> None:
    url = world.server.url("priv/web.git")
    with pytest.raises(CheckoutError, match="needs a secret GIT_TOKEN"):
        await world.tree(url)
    got = await world.tree(url, secrets={"GIT_TOKEN": TOKEN})
    assert got.git("log", "--format=%s") == "three"
    everything = b"".join(file.read_bytes() for file in got.path.parent.rglob("*") if file.is_file())
    cached = b"".join(file.read_bytes() for file in world.folder.rglob("cache/**/*") if file.is_file())
    assert TOKEN.encode() not in everything + cached and b"Basic" not in everything + cached
    for org, token in (("acme", ""), ("other", ""), ("acme", "wrong"), ("other", "wrong")):
        with pytest.raises(CheckoutError, match="cannot be read"):
            await world.tree(url, org=org, secrets={"GIT_TOKEN": token})
    world.server.private["priv"] = "another"
    with pytest.raises(CheckoutError, match="cannot be read"):  # what is kept is of no use without the right
        await world.tree(url, secrets={"GIT_TOKEN": TOKEN})
    assert (await world.tree(url, org="other", secrets={"GIT_TOKEN": "another"})).git("rev-parse", "HEAD") == world.head
    assert len([entry for entry in world.folder.glob("cache/*") if entry.is_dir()]) == 2


@pytest.mark.parametrize("how", ["garbage", "missing", "no head", "lock"])
async def test_a_broken_entry_is_made_anew(world: World, how: str) -> None:
    await world.tree()
    (entry,) = [entry for entry in world.folder.glob("cache/*") if entry.is_dir()]
    packs = list(entry.glob("objects/pack/*.pack"))
    for pack in packs:
        pack.chmod(0o600)
        if how == "garbage":
            pack.write_bytes(pack.read_bytes()[:50] + os.urandom(pack.stat().st_size - 50))
        elif how == "missing":
            pack.unlink()
    if how == "no head":
        (entry / "HEAD").write_text("rubbish")
    elif how == "lock":
        (entry / "shallow.lock").touch()
        (entry / "objects/pack/tmp_pack_x").touch()
    got = await world.tree(fetch_depth="2" if how == "lock" else "1")
    assert got.git("fsck", "--no-progress") == "" and got.git("log", "-1", "--format=%s") == "three"
    assert ("fetched anew" in got.log) == (how != "lock")
    if how == "garbage":
        assert "fetched anew" not in (await world.tree()).log


async def test_many_at_once_and_the_least_used_go(world: World) -> None:
    trees = await asyncio.gather(*(world.tree(fetch_depth=str(n % 3)) for n in range(4)))
    assert {tree.git("log", "-1", "--format=%s") for tree in trees} == {"three"}
    for name in "abc":
        shutil.copytree(world.server.root / "pub" / "web.git", world.server.root / "pub" / f"{name}.git")
    small = CheckoutLimits(cache=world.folder / "small", ca=world.server.ca, cache_size=250_000)
    for name in "abca":
        await world.tree(world.server.url(f"pub/{name}.git"), limits=small)
    kept = [entry for entry in small.cache.iterdir() if entry.is_dir()] if small.cache else []
    assert len(kept) == 2 and len(list(small.cache.iterdir()) if small.cache else []) == 4
    asked = len(world.server.asked)
    sent = world.server.sent
    await world.tree(world.server.url("pub/c.git"), limits=small)
    assert len(world.server.asked) > asked and world.server.sent - sent < 10_000
    cache = Cache(world.folder / "small", 0)
    waited = asyncio.Event()
    async with cache.entry("in-use"):
        other = asyncio.create_task(_in_turn(cache, waited))
        await asyncio.wait_for(waited.wait(), PATIENCE)
        assert not other.done()
        (world.folder / "small" / "in-use").mkdir()
        (world.folder / "small" / "in-use" / "x").write_text("x")
        await cache.sweep()
        assert [entry.name for entry in (world.folder / "small").iterdir() if entry.is_dir()] == ["in-use"]
    await asyncio.wait_for(other, PATIENCE)


async def _in_turn(cache: Cache, waited: asyncio.Event) -> None:
    async with cache.entry("in-use", waited.set):
        pass


async def test_what_is_not_there_is_told_with_what_is_near(world: World) -> None:
    git(world.work, "branch", "release-1.2")
    world.publish("pub", "web")
    with pytest.raises(CheckoutError, match=r"no branch or tag relase-1\.2; near ones: release-1\.2"):
        await world.tree(ref="relase-1.2")
    with pytest.raises(CheckoutError, match=r"there are: main, release-1\.2, v1"):
        await world.tree(ref="q/q/q")
    git(world.folder, "init", "-q", "--bare", str(world.server.root / "pub" / "empty.git"))
    with pytest.raises(CheckoutError, match="is anything pushed there"):
        await world.tree(world.server.url("pub/empty.git"))
    with pytest.raises(CheckoutError, match="cannot be read"):
        await world.tree(world.server.url("pub/nosuch.git"))
    with pytest.raises(CheckoutError, match="git fetch ended with exit code"):
        await world.tree(sha="0123456789" * 4)


async def test_a_repository_over_the_limit_is_refused_and_not_kept(world: World) -> None:
    (world.work / "huge").write_bytes(os.urandom(6_000_000))
    commit(world.work, "huge")
    world.publish("pub", "web")
    limits = CheckoutLimits(cache=world.folder / "cache", ca=world.server.ca, size=2 * 2**20)
    with pytest.raises(CheckoutError, match="larger than this host's limit of 2 MiB"):
        await world.tree(limits=limits)
    assert (await world.tree(ref="v1", limits=limits)).git("log", "--format=%s") == "two"


async def test_git_daemon(world: World) -> None:
    with daemon(world.server.root) as url:
        assert (await world.tree(f"{url}/pub/web.git", fetch_depth="2")).git("log", "--format=%s") == "three\ntwo"


async def test_parts_of_a_tree(world: World) -> None:
    for name in ("a/x", "b/y", "c/z"):
        (world.work / name).parent.mkdir()
        (world.work / name).write_text(name)
    commit(world.work)
    world.publish("pub", "web")
    cone = await world.tree(sparse_checkout="a\nb\n")
    assert sorted(path.name for path in cone.path.iterdir()) == [".git", "a", "b", "big", "file"]
    exact = await world.tree(sparse_checkout="/b/\n", sparse_checkout_cone_mode="false")
    assert sorted(path.name for path in exact.path.iterdir()) == [".git", "b"]
    assert exact.git("status", "--short") == ""


async def test_lfs_pointers_are_told_and_fetched_when_asked_for(world: World) -> None:
    subprocess.run(["tools/packages.sh", "git-lfs"], check=True)
    content = os.urandom(70_000)
    (world.work / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    (world.work / ".lfsconfig").write_text("[lfs]\n\turl = https://127.0.0.1:1/elsewhere\n")
    (world.work / "x.bin").write_text(lfs_pointer(world.server.root, content))
    (world.work / "y.bin").write_text("no pointer")
    git(world.work, "-c", "filter.lfs.clean=cat", "-c", "filter.lfs.process=", "-c", "filter.lfs.required=false",
        "add", "-A")  # fmt: skip
    git(world.work, "commit", "-q", "-m", "lfs")
    world.publish("priv", "web")
    url, secrets = world.server.url("priv/web.git"), {"GIT_TOKEN": TOKEN}
    told = await world.tree(url, secrets=secrets)
    assert "::warning::1 file(s) are Git LFS pointers, not their content (x.bin)" in told.log
    assert "lfs: true" in told.log
    got = await world.tree(url, secrets=secrets, lfs="true")
    assert (got.path / "x.bin").read_bytes() == content and "::warning::" not in got.log
    assert (got.path / "y.bin").read_text() == "no pointer"
    kept = world.work / ".git" / "lfs" / "objects"
    id = hashlib.sha256(content).hexdigest()
    (kept / id[:2] / id[2:4]).mkdir(parents=True)
    (kept / id[:2] / id[2:4] / id).write_bytes(content)
    local = await world.tree(str(world.work), limits=CheckoutLimits(local=True), lfs="true")
    assert (local.path / "x.bin").read_bytes() == content
    assert server_of("ssh://git@example.org/x.git") == "ssh://git@example.org/x.git"


async def test_submodules(world: World) -> None:
    inner, lib = world.folder / "inner", world.folder / "lib"
    inner.mkdir()
    (inner / "deep").write_text("deep")
    inner_sha = commit(inner)
    world.publish("priv", "inner", inner)
    lib.mkdir()
    (lib / "lib").write_text("lib")
    _add_module(lib, "in/ner", "../inner.git", inner_sha)
    lib_sha = commit(lib, "with inner")
    world.publish("priv", "lib", lib)
    _add_module(world.work, "libs/lib", "../lib.git", lib_sha)
    commit(world.work, "with lib")
    url = world.publish("priv", "web")
    secrets = {"GIT_TOKEN": TOKEN}
    plain = await world.tree(url, secrets=secrets)
    assert list((plain.path / "libs/lib").iterdir()) == []
    direct = await world.tree(url, secrets=secrets, submodules="true")
    assert (direct.path / "libs/lib/lib").read_text() == "lib"
    assert list((direct.path / "libs/lib/in/ner").iterdir()) == []
    assert direct.git("submodule", "status") == f"{lib_sha} libs/lib (heads/main)" or lib_sha in direct.git(
        "submodule", "status"
    )
    whole = await world.tree(url, secrets=secrets, submodules="recursive")
    assert (whole.path / "libs/lib/in/ner/deep").read_text() == "deep"
    assert whole.git("status", "--short") == ""


def _add_module(repo: Path, path: str, url: str, sha: str, name: str = "") -> None:
    if not (repo / ".git").exists():
        git(repo, "init", "-q")
    with (repo / ".gitmodules").open("a") as file:
        file.write(f'[submodule "{name or path}"]\n\tpath = {path}\n\turl = {url}\n')
    git(repo, "update-index", "--add", "--cacheinfo", f"160000,{sha},{path}")
    (repo / path).mkdir(parents=True, exist_ok=True)


@pytest.mark.parametrize(
    ("path", "url", "words"),
    [
        ("x", "ext::sh -c 'touch PROOF'", "not a repository URL"),
        ("x", "fd::17", "not a repository URL"),
        ("x", "file:///etc", "takes no repositories from its own folders"),
        ("x", "/etc", "takes no repositories from its own folders"),
        ("x", "-uPROOF", "not a repository URL"),
        ("x", "ssh://-oProxyCommand=touch%20PROOF/x", "cannot be read"),
        ("x", "https://127.0.0.1:1/x", "cannot be read"),
        ("x", "../../../../../../etc", "leads out of its server"),
        ("x", "ELSEWHERE", "cannot be read"),
    ],
)
async def test_hostile_submodules_run_nothing_and_learn_nothing(world: World, path: str, url: str, words: str) -> None:
    proof = world.folder / "proof"
    with GitServer(_folder(world.folder / "elsewhere")) as elsewhere:
        made = url.replace("PROOF", str(proof)).replace("ELSEWHERE", elsewhere.url("x.git"))
        _add_module(world.work, path, made, world.head)
        commit(world.work, "hostile")
        both = Path(world.server.ca).read_bytes() + Path(elsewhere.ca).read_bytes()
        Path(world.server.ca).write_bytes(both)
        elsewhere.private["x.git"] = "nobody"
        with pytest.raises(CheckoutError, match=words):
            await world.tree(world.publish("priv", "web"), secrets={"GIT_TOKEN": TOKEN}, submodules="recursive")
        if url == "ELSEWHERE":  # it was asked, and not told the token: with it, it would have refused in another way
            assert elsewhere.asked
            assert elsewhere.tokens == [None] * len(elsewhere.tokens)
    assert not proof.exists()


async def test_a_token_does_not_go_where_a_server_redirects_to(world: World) -> None:
    with GitServer(_folder(world.folder / "elsewhere")) as elsewhere:
        Path(world.server.ca).write_bytes(Path(world.server.ca).read_bytes() + Path(elsewhere.ca).read_bytes())
        shutil.copytree(world.server.root / "pub", elsewhere.root / "pub")
        world.server.redirects["moved"] = elsewhere.url("pub/")
        assert (await world.tree(world.server.url("moved/web.git"))).git("log", "--format=%s") == "three"
        asked = len(elsewhere.tokens)
        assert asked and set(elsewhere.tokens) == {None}
        with pytest.raises(CheckoutError, match="cannot be read"):
            await world.tree(world.server.url("moved/web.git"), secrets={"GIT_TOKEN": TOKEN})
        assert len(elsewhere.tokens) == asked


def _folder(path: Path) -> Path:
    (path / "repos").mkdir(parents=True)
    return path / "repos"


async def test_trees_that_name_git_itself_are_refused(world: World) -> None:
    blob = git(world.work, "hash-object", "-w", "--stdin", input=b"#!/bin/sh\ntouch /tmp/proof\n")
    for name in (".git", ".GIT", "git~1"):
        inside = f"100755 blob {blob}\tpost-checkout\n".encode()
        hooks = git(world.work, "mktree", input=inside)
        raw = b"40000 " + name.encode() + b"\0" + bytes.fromhex(hooks)
        tree = git(world.work, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", input=raw)
        git(world.work, "update-ref", "refs/heads/bad", git(world.work, "commit-tree", "-m", "bad", tree))
        git(world.work, "push", "-q", "--force", str(world.server.root / "pub/web.git"), "bad")
        with pytest.raises(CheckoutError, match="git checkout ended with exit code") as refused:
            await world.tree(ref="bad")
        assert "nvalid path" in refused.value.__notes__[0]


async def test_a_whole_job_with_a_token_from_its_secrets(world: World, tmp_path: Path) -> None:
    (world.work / "link").symlink_to("/etc")
    (world.work / ".gitattributes").write_text("file filter=evil\n")
    commit(world.work, "a link")
    url = world.publish("priv", "web")
    script = ("cat file; readlink link; git config --list --show-origin; git log --format=%s; "
              "touch old; ls -a")  # fmt: skip
    checkout = step(kind="checkout", name="checkout")
    run = run_of("touch before .hidden", checkout, script, checkout, "ls -A", source=Source(git=url))
    settings = Settings(checkout=world.limits)
    async with driven(run, tmp_path / "job", settings=settings, secrets={"GIT_TOKEN": TOKEN}) as job:
        await job.end()
        said = job.store.log(3)
        assert said[0] == "three/etc"
        assert not any("xtra" in line or "safe" in line for line in said if "file:.git/config" in line)
        assert sorted(job.store.log(5)) == sorted([".git", ".gitattributes", "big", "file", "link"])
        assert TOKEN not in "\n".join(job.store.log(2))
        assert job.runner.finished == "success"
        assert not list((job.folder / "checkout").glob("tree-*"))


async def test_a_server_that_does_not_go_on_meets_the_time_limit(world: World, tmp_path: Path) -> None:
    world.server.slow.set()
    limits = CheckoutLimits(cache=world.folder / "cache", ca=world.server.ca, seconds=2)
    run = run_of(step(kind="checkout"), source=Source(git=world.server.url("pub/web.git")))
    async with driven(run, tmp_path / "job", settings=Settings(checkout=limits)) as job:
        await job.end()
        assert job.store.log(1)[-1] == "error: the checkout took longer than 2 s"
    world.server.slow.clear()
    assert (await world.tree()).git("log", "--format=%s") == "three"
    assert not [process for process in Path("/proc").glob("[0-9]*") if _is_git(process, str(world.folder))]


def _is_git(process: Path, folder: str) -> bool:
    try:
        here, program = (process / "cwd").readlink(), (process / "exe").readlink()
    except OSError:
        return False
    return str(here).startswith(folder) and program.name.startswith("git")


def test_options_that_cannot_be_read_are_told() -> None:
    def wish(**options: str) -> Any:
        spec = StepSpec(index=1, name="x", options={name.replace("_", "-"): text for name, text in options.items()})
        return wanted(Source(git="https://example.org/x"), spec, CheckoutLimits(), "/w")

    with pytest.raises(CheckoutError, match="lfs must be true or false"):
        wish(lfs="maybe")
    assert wish(submodules="recursive").submodules == "recursive"
    assert wish(submodules="true").submodules == "direct"
    assert wish(submodules="false").submodules == ""
    assert wish(clean="false").clean is False
