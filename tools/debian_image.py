"""An image to run jobs in, made of Debian packages, with no registry: `make images`. The tests use the same one.

`python tools/debian_image.py [NAME]` (as root): builds the file system with debootstrap, or takes the one it built
before, and loads it into the Docker Engine as NAME.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.parse
from pathlib import Path
from typing import Final

SUITE: Final = "bookworm"
PACKAGES: Final = ("ca-certificates", "git", "openssh-sftp-server", "procps", "sudo")
NAME: Final = "pitstop/job:latest"
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LEFT_OUT: Final = ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale")
_DEFAULT_HOST: Final = "unix:///var/run/docker.sock"


def cache() -> Path:
    """Where file systems are kept: outside of the repository, so that a clean clone finds them."""
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base) / "pitstop"


def debian(folder: Path) -> Path:
    """The tar of a small Debian with PACKAGES; built when `folder` has none. Needs root. Raises CalledProcessError."""
    made = folder / f"debian-{SUITE}-{'-'.join(PACKAGES)}.tar"
    if made.exists():
        return made
    folder.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="debian-", dir=folder))
    draft = made.with_suffix(f".{os.getpid()}")
    try:
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        out = [f"--exclude=./{path}/*" for path in _LEFT_OUT]
        subprocess.run(["tar", "-C", root, "--numeric-owner", *out, "-cf", draft, "."], check=True)
        draft.rename(made)
    finally:
        draft.unlink(missing_ok=True)
        shutil.rmtree(root)
    return made


def load(host: str, name: str, tar: Path, changes: tuple[str, ...] = (f"ENV PATH={PATH}",)) -> str:
    """Make an image of a file system: its id. `host`: unix:///…. `changes`: lines of a Dockerfile.
    Raises OSError, RuntimeError."""
    repository, _, tag = name.partition(":")
    query = urllib.parse.urlencode(
        {"fromSrc": "-", "repo": repository, "tag": tag or "latest", "changes": changes}, doseq=True
    )
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect(host.removeprefix("unix://"))
        with tar.open("rb") as body:
            headers = {"Content-Type": "application/x-tar", "Content-Length": str(tar.stat().st_size)}
            connection.request("POST", f"/images/create?{query}", body, headers)
            reply = connection.getresponse()
            said = reply.read().decode().splitlines()
        last = json.loads(said[-1]) if said else {}
        if reply.status != http.client.OK or "error" in last:
            raise RuntimeError(f"the engine did not take the image: {last.get('error') or last.get('message')}")
        return str(last["status"])
    finally:
        connection.close()


def main() -> int:
    """Says what it does, and how to use the image."""
    parser = argparse.ArgumentParser(description="Build an image for jobs.")
    parser.add_argument("name", nargs="?", default=NAME)
    parser.add_argument("--files", action="store_true", help="only build the file system, for later (needs no engine)")
    given = parser.parse_args()
    name = given.name
    host = os.environ.get("PITSTOP_DOCKER_HOST") or os.environ.get("DOCKER_HOST") or _DEFAULT_HOST
    if os.geteuid() != 0:
        sys.stderr.write("debootstrap makes a whole system, which only root can: sudo make images\n")
        return 1
    try:
        tar = debian(cache())
        if given.files:
            return 0
        print(f"{name}: {load(host, name, tar)} ({tar.stat().st_size >> 20} MB from {tar})")
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"no image was made: {error}\nThe engine is looked for at {host} (DOCKER_HOST).\n")
        return 1
    if name != NAME:
        print(f"Use it for jobs that name none: PITSTOP_DOCKER_IMAGE={name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
