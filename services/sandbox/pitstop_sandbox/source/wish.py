"""What a checkout step asks for, checked: nothing in it can be misread by git. Pure."""

from __future__ import annotations

import base64
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from pitstop_common.patches import BadPatch, unpack
from pitstop_common.spec import Source, StepSpec

SHA: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/@+-]{0,254}\Z")
TOKEN: Final = "GIT_TOKEN"
USER: Final = "GIT_USER"
SSH_KEY: Final = "GIT_SSH_KEY"
"""Secrets of these names are for the repository of the run; `GIT_USER`: whose the token is, where that counts."""
_ANY_USER: Final = "x-access-token"
_URL: Final = re.compile(r"(?:https|ssh|git)://[^\s:]*(?::[0-9]+)?/[^\s]*\Z|[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:[^\s]+\Z")
_YES: Final = {"true": True, "false": False}


class CheckoutError(Exception):
    """The tree cannot be had. The text says why, and what to do."""


class CheckoutLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`local`: may a run name a folder of this host. Seconds, bytes. `cache`: where fetched repositories are kept,
    None: nowhere. `ca`: a file of certificates that https is checked against, beside none: those of the system."""

    local: bool = False
    seconds: float = 900
    size: int = 4 * 2**30
    cache: Path | None = None
    cache_size: int = 10 * 2**30
    ca: str = ""


class Credential(msgspec.Struct, frozen=True):
    """For one repository's server, from secrets of the run. `place`: the URL's beginning that it is for."""

    place: str = ""
    header: str = ""
    key: str = ""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What to fetch. `what`: a ref, a commit or HEAD. `path`: where it goes inside. `local`: the folder, when it is one
    of this host. `sparse`: patterns; none: everything."""

    url: str
    what: str
    depth: int
    path: str
    local: str = ""
    tags: bool = False
    submodules: Literal["", "direct", "recursive"] = ""
    lfs: bool = False
    sparse: tuple[str, ...] = ()
    cone: bool = True
    clean: bool = True
    patch: bytes = b""


def wanted(source: Source, spec: StepSpec, limits: CheckoutLimits, workspace: str) -> Wanted:
    """The checked wish of a step. Raises CheckoutError on anything that git could misread."""
    if not source.git:
        raise CheckoutError("the run names no repository; give `source.git` in the request")
    options = spec.options
    ref = options.get("ref", "")
    what = ref or source.sha or source.ref or "HEAD"
    if not NAME.match(what) or ".." in what:
        raise CheckoutError(f"not a ref or commit: {what!r}")
    depth = options.get("fetch-depth", "1")
    if not depth.isdecimal() or len(depth) > 6:
        raise CheckoutError(f"fetch-depth must be a number, not {depth!r}")
    path = posixpath.normpath(posixpath.join(workspace, options.get("path", "")))
    if path != workspace and not path.startswith(workspace + "/"):
        raise CheckoutError(f"path {options['path']!r} leads out of the workspace")
    modules = options.get("submodules", "false")
    url, local = address(source.git, limits)
    return Wanted(
        url=url, what=what, depth=int(depth), path=path, local=local, tags=_flag(options, "fetch-tags"),
        submodules="recursive" if modules == "recursive" else "direct" if _flag(options, "submodules") else "",
        lfs=_flag(options, "lfs"), clean=_flag(options, "clean", default=True),
        sparse=tuple(line.strip() for line in options.get("sparse-checkout", "").splitlines() if line.strip()),
        cone=_flag(options, "sparse-checkout-cone-mode", default=True), patch=b"" if ref else patch_of(source),
    )  # fmt: skip


def address(git: str, limits: CheckoutLimits) -> tuple[str, str]:
    """The URL for git, and the folder when it is one of this host. Raises CheckoutError."""
    local = git.removeprefix("file://") if git.startswith(("/", "file:///")) else ""
    if local and not limits.local:
        raise CheckoutError("this host takes no repositories from its own folders (PITSTOP_LOCAL_SOURCES=1 allows it)")
    if not local and not _URL.match(git):
        raise CheckoutError(f"not a repository URL: {git!r}; use https://, ssh:// or git://")
    return local or git, local


def patch_of(source: Source) -> bytes:
    """The uncommitted change of whoever asked for the run. Raises CheckoutError."""
    try:
        return unpack(source.patch, source.patch_encoding)
    except BadPatch as error:
        raise CheckoutError(f"the patch of the request {error}") from None


def credential_of(env: Mapping[str, str], wish: Wanted) -> Credential:
    """What the secrets of a run hold for its repository. It is sent to the server of `source.git`, and to no other."""
    parts = urlsplit(wish.url)
    key = env.get(SSH_KEY, "")
    if parts.scheme != "https" or not env.get(TOKEN):
        return Credential(key=key.rstrip("\n") + "\n" if key and not wish.local else "")
    pair = f"{env.get(USER) or _ANY_USER}:{env[TOKEN]}".encode()
    header = f"Authorization: Basic {base64.b64encode(pair).decode()}"
    return Credential(place=f"https://{parts.netloc}/", header=header)


def _flag(options: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    text = options.get(name, "")
    if not text:
        return default
    if text.lower() not in {*_YES, "recursive"}:
        raise CheckoutError(f"{name} must be true or false, not {text!r}")
    return _YES.get(text.lower(), True)
