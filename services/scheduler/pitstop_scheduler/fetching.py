"""Asks a source of keys over HTTP: bounded in time and size, at addresses that may be asked, and nowhere else."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from importlib import import_module
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit

from pitstop_scheduler.key_sources import BadLink, Source, may_be_asked, same_place, url_fault

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession, ThreadedResolver
    from aiohttp.abc import ResolveResult

WITHIN: Final = 5.0
"""Seconds from the first packet to the last byte, redirects and all."""
MAX_BYTES: Final = 256 * 1024
MAX_REDIRECTS: Final = 3
_AGENT: Final = "pitstop"


class NoAccount(BadLink):
    """The source answers, and knows no such account."""


async def fetch(source: Source, token: str, internal: frozenset[str]) -> bytes:
    """The answer of a source. `token` is sent to it as a bearer token; empty: there is none. Raises BadLink with a
    text that repeats nothing of the answer."""
    aiohttp = await asyncio.to_thread(import_module, "aiohttp")  # it takes longer to load than all the rest
    if fault := url_fault(source.url, bool(token), internal):
        raise BadLink(f"{source.host} is not asked: {fault}")
    connector = aiohttp.TCPConnector(resolver=resolver(source.host, internal), use_dns_cache=False, limit=4)
    headers = {"User-Agent": _AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        _check_literal(source.host, internal)
        async with (
            asyncio.timeout(WITHIN),
            aiohttp.ClientSession(connector=connector, auto_decompress=False, headers=headers,
                                  cookie_jar=aiohttp.DummyCookieJar()) as session,
        ):  # fmt: skip
            return await _follow(session, source)
    except TimeoutError:
        raise BadLink(f"{source.host} did not answer within {WITHIN:.0f} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", "") or type(error).__name__
        raise BadLink(f"{source.host} cannot be reached: {reason}") from None
    finally:
        await connector.close()


async def _follow(session: ClientSession, source: Source) -> bytes:
    url = source.url
    for _ in range(MAX_REDIRECTS + 1):
        async with session.get(url, allow_redirects=False) as answer:
            if answer.status in {301, 302, 303, 307, 308}:
                url = urljoin(url, answer.headers.get("Location", ""))
                if not same_place(source.url, url):
                    elsewhere = (urlsplit(url).hostname or "nowhere")[:100]
                    raise BadLink(f"{source.host} sends us to another server ({elsewhere!r}), where nobody is asked")
                continue
            return await _body(answer, source)
    raise BadLink(f"{source.host} sends us around in a circle")


async def _body(answer: ClientResponse, source: Source) -> bytes:
    if answer.status in {404, 410}:
        raise NoAccount(f"{source.host} knows no {source.label.partition(':')[2]}")
    if answer.status != 200:
        raise BadLink(f"{source.host} answered with status {answer.status}")
    body = b""
    async for chunk in answer.content.iter_chunked(64 * 1024):
        body += chunk
        if len(body) > MAX_BYTES:
            raise BadLink(f"{source.host} answered with more than {MAX_BYTES // 1024} KiB")
    return body


def _check_literal(host: str, internal: frozenset[str]) -> None:
    """A host that is an address is not looked up."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return
    if not may_be_asked(address, host, internal):
        raise BadLink(f"{host} is not asked: it is no address of a server of keys")


def resolver(host: str, internal: frozenset[str]) -> ThreadedResolver:
    from aiohttp import ThreadedResolver as Plain

    class Checked(Plain):
        """The connection goes to the very addresses that were looked at."""

        async def resolve(
            self, name: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            found = await super().resolve(name, port, family)
            for one in found:
                if not may_be_asked(ipaddress.ip_address(one["host"].partition("%")[0]), host, internal):
                    raise BadLink(
                        f"{host} is not asked: its address is in a private network. Who runs the schedulers can allow "
                        "it: PITSTOP_KEYS_HOSTS"
                    )
            return found

    return Checked()
