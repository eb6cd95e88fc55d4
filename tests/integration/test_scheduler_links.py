"""Keys that people have elsewhere: a real HTTP server, a real bucket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncssh
import msgspec
import pytest
from tests.key_server import KeyServer, key_server
from tests.played_host import until

from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.errors import NotFound
from pitstop_common.ssh_policy import OrgSsh
from pitstop_common.userauth import fingerprint
from pitstop_scheduler import fetching, links
from pitstop_scheduler.contexts import Changer, Contexts
from pitstop_scheduler.fetching import MAX_BYTES, fetch, resolver
from pitstop_scheduler.key_sources import BadLink, Source
from pitstop_scheduler.keyring import Keyring
from pitstop_scheduler.links import FRESH, KEPT, Account, Links
from pitstop_scheduler.people import People

KEY, OTHER = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
LINE, OTHER_LINE = (key.export_public_key().decode() for key in (KEY, OTHER))
MARK, OTHER_MARK = (fingerprint(key.public_data) for key in (KEY, OTHER))
NOBODY: frozenset[str] = frozenset()


class Site:
    """An org with a source, and who asks it."""

    def __init__(self, bus: Bus, server: KeyServer) -> None:
        self.bus, self.server = bus, server
        self.policy = OrgSsh(keys_url=f"{server.url}/{{user}}.keys")
        self.contexts = Contexts(bus, Keyring({"k1": bytes(32)}), lambda org: f"An admin of {org}")
        self.links = Links(bus, lambda _org: self.policy, self.contexts)

    async def marks(self, wait: float = 5) -> list[str]:
        return [mark for one in await self.links.of("acme", "ada", wait=wait) for _, mark in one.keys]

    async def trouble(self) -> str:
        (one,) = await self.links.of("acme", "ada", wait=5)
        return one.trouble

    async def older(self, seconds: float) -> None:
        """What was read was read so long before."""
        bucket = Bucket(self.bus, "keys")
        entry = await bucket.get("acme.ada.links")
        assert entry is not None and entry.value is not None
        account = msgspec.json.decode(entry.value, type=Account)
        aged = {url: msgspec.structs.replace(one, at=one.at - seconds) for url, one in account.fetched.items()}
        await bucket.put("acme.ada.links", msgspec.json.encode(msgspec.structs.replace(account, fetched=aged)))


@pytest.fixture
async def site(bus: Bus) -> AsyncIterator[Site]:
    async with key_server() as server:
        server.page("/ada.keys", LINE)
        made = Site(bus, server)
        yield made
        await made.links.close()


async def test_an_answer_is_kept_for_a_while_and_then_asked_for_again(site: Site) -> None:
    assert await site.marks() == [MARK]
    assert await site.marks() == [MARK]
    assert [path for path, _ in site.server.asked] == ["/ada.keys"]
    assert (await People(site.bus, site.links).allowed("acme", "", ("ada",), ())).keys[0].user == "ada"
    assert await People(site.bus, site.links).owner_of("acme", MARK) == "ada"
    assert [one.user for one in await People(site.bus, site.links).owners_of(MARK)] == ["ada"]
    site.server.page("/ada.keys", OTHER_LINE)
    await site.older(FRESH + 1)
    assert await site.marks() == [OTHER_MARK], "a key that was removed there lets nobody in"
    site.policy = OrgSsh(keys_url=f"{site.server.url}/another/{{user}}")
    assert await site.marks() == [], "another source, and what the first said is forgotten"


async def test_while_a_source_is_down_its_last_answer_counts_for_an_hour_and_that_is_said(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await site.marks() == [MARK]
    site.server.page("/ada.keys", "broken", 503)
    await site.older(FRESH + 1)
    assert await site.marks() == [MARK]
    found = await People(site.bus, site.links).allowed("acme", "", ("ada",), ())
    assert await site.trouble() == "127.0.0.1 answered with status 503"
    said = found.trouble(found.linked["ada"][0].at + FRESH + 1)
    assert said == (
        "The keys of org:ada cannot be read now (127.0.0.1 answered with status 503); what it said 5 min ago counts."
    )
    asked = len(site.server.asked)
    assert await site.marks() == [MARK]
    assert len(site.server.asked) == asked, "nobody asks again so soon"
    await site.older(KEPT)
    assert await site.marks() == []
    assert await People(site.bus, site.links).owner_of("acme", MARK) == ""
    monkeypatch.setattr(links, "AGAIN", 0.0)
    site.links._failed.clear()
    site.server.page("/ada.keys", "gone", 404)
    await site.marks()
    assert (await site.links.of("acme", "ada"))[0].pending is False, "it is up, and says that there are none"


async def test_nobody_waits_for_a_source_that_hangs(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "WITHIN", 0.2)
    site.server.going.clear()
    (first,) = await site.links.of("acme", "ada", wait=0)
    assert (first.keys, first.pending, first.trouble) == ((), True, "127.0.0.1 has not answered yet")
    await until(lambda: not site.links._asking)
    assert "127.0.0.1 did not answer within 0 s" in await site.trouble()


async def test_links_of_ones_own(site: Site) -> None:
    site.server.page("/lovelace.keys", OTHER_LINE)
    made = await site.links.add("acme", "ada", f"{site.server.url}/lovelace.keys")
    assert (made.source.label, [mark for _, mark in made.keys]) == ("org:lovelace", [OTHER_MARK])
    assert await site.marks() == [OTHER_MARK]
    assert await site.links.labels("acme", "ada") == {"org:lovelace"}
    with pytest.raises(BadLink, match=r"127\.0\.0\.1 knows no nobody"):
        await site.links.add("acme", "ada", "org:nobody")
    await site.links.remove("acme", "ada", "org:lovelace")
    with pytest.raises(NotFound):
        await site.links.remove("acme", "ada", "org:lovelace")
    assert await site.marks() == [MARK]


async def test_a_secret_goes_to_the_source_of_the_org_and_is_nowhere_else(site: Site) -> None:
    site.policy = OrgSsh(keys_url=f"{site.server.url}/{{user}}.keys", keys_token="keys/TOKEN")
    assert await site.trouble() == "there is no secret keys/TOKEN to send to 127.0.0.1"
    await site.contexts.set("acme", "keys", "TOKEN", "s3cret-of-git", Changer("eve", "admin"), "2026-11-21T10:00:00Z")
    site.links._failed.clear()
    assert await site.marks() == [MARK]
    assert site.server.asked[-1][1]["authorization"] == "Bearer s3cret-of-git"
    entry = await Bucket(site.bus, "keys").get("acme.ada.links")
    assert entry is not None and b"s3cret" not in (entry.value or b"s3cret")


async def test_where_a_source_sends_us_is_looked_at(site: Site) -> None:
    server = site.server

    async def said(path: str, internal: frozenset[str] = NOBODY, token: str = "") -> str:
        try:
            return (await fetch(Source("org:ada", server.url + path), token, internal)).decode()
        except BadLink as error:
            return str(error)

    server.page("/moved", "", 302, {"Location": "/ada.keys"})
    assert await said("/moved") == LINE
    server.page("/evil", "", 302, {"Location": "http://169.254.169.254/latest/meta-data"})
    assert "sends us to another server ('169.254.169.254'), where nobody is asked" in await said("/evil")
    server.page("/port", "", 307, {"Location": f"http://127.0.0.1:{server.port + 1}/"})
    assert "sends us to another server" in await said("/port")
    server.page("/round", "", 301, {"Location": "/round"})
    assert "in a circle" in await said("/round")
    server.page("/large", b"x" * (MAX_BYTES + 1))
    assert "more than 256 KiB" in await said("/large")
    server.page("/zip", LINE, headers={"Content-Encoding": "gzip"})
    assert await said("/zip") == LINE, "nothing is unpacked"
    assert "cannot be reached" in await said(":x")
    for url in ("http://10.0.0.1/x", "https://169.254.169.254/x", "http://git.example/x"):
        with pytest.raises(BadLink, match="is not asked"):
            await fetch(Source("org:ada", url), "", NOBODY)
    with pytest.raises(BadLink, match="PITSTOP_KEYS_HOSTS"):
        await resolver("git.example", NOBODY).resolve("localhost", 443)
    assert await resolver("localhost", NOBODY).resolve("localhost", 443)
