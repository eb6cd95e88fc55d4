"""Access tokens for SSH: kept as a hash, good for nothing else."""

from __future__ import annotations

import pytest

from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.errors import Denied
from pitstop_scheduler.passes import SSH, Passes, digest


async def test_an_access_token_is_a_hash_at_rest_and_no_login(bus: Bus) -> None:
    passes = Passes(bus)
    now = await passes.now()
    id, secret = (await passes.create_ssh("acme", "ada", ttl=60, job="abcdefghijkl-1", by="eve", now=now)).split(".")
    entry = await Bucket(bus, "passes").get(id)
    assert entry is not None and entry.value is not None
    assert secret.encode() not in entry.value
    assert digest(secret).encode() in entry.value
    held = await passes.find(id)
    assert held is not None
    assert (held.kind, held.user, held.job, held.by) == (SSH, "ada", "abcdefghijkl-1", "eve")
    with pytest.raises(Denied, match="a password for ssh"):
        await passes.check(id, secret, now)
    with pytest.raises(Denied):
        await passes.exchange(id, secret, digest("mine"), now)
    with pytest.raises(Denied, match="no such token"):
        await passes.check(id, "another", now)
    assert [one.id for one in await passes.list("acme", now)] == [id]
    assert await passes.list("acme", now + 61) == []
    assert (await passes.find(id)) == held, "who comes late is told that it has expired"
    await passes.revoke(id)
    assert await passes.find(id) is None
    assert await passes.find("ssh-nonsense.*") is None
