"""Names of hosts, looked up in a sandbox by a visitor. The C library would load what the image calls its resolver, and
run it outside of the sandbox's pid namespace: so addresses are read here, and names come from /etc/hosts."""

from __future__ import annotations

import os
import socket
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

HOSTS: Final = "/etc/hosts"
MAX_BYTES: Final = 64 * 1024
_LOOPBACK: Final = ["127.0.0.1", "::1"]


def look_up(host: str) -> list[tuple[int, str]]:
    """Families and addresses, in the order to be tried. Raises OSError for a name that is not known."""
    if literal := _families([host]):
        return literal
    wanted = host.rstrip(".").lower()
    if found := _families(_listed(wanted)) or (_families(_LOOPBACK) if wanted == "localhost" else []):
        return found
    raise OSError(f"the name {host!r} is not known in this sandbox, which has no network: use an address, or "
                  "a name of its /etc/hosts")  # fmt: skip


def _families(addresses: list[str]) -> list[tuple[int, str]]:
    found = []
    for address in addresses:
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                socket.inet_pton(family, address)
            except (OSError, ValueError):
                continue
            found.append((int(family), address))
    return found


def _listed(name: str) -> list[str]:
    """The addresses that the sandbox's own file gives a name. Whatever is there in its place is an empty file."""
    try:
        fd = os.open(HOSTS, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        text = os.read(fd, MAX_BYTES) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError:
        text = b""
    finally:
        os.close(fd)
    found = []
    for line in text.decode("latin-1").splitlines():
        address, *names = line.partition("#")[0].lower().split() or [""]
        if name in names:
            found.append(address)
    return found
