"""Sources of keys: what may be linked and asked, and what an answer says."""

from __future__ import annotations

import contextlib
import ipaddress
import json
from urllib.parse import urlsplit

import asyncssh
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop_common.limits import MAX_LINKED_KEYS
from pitstop_scheduler.key_sources import (
    BadLink,
    Link,
    may_be_asked,
    read_keys,
    read_link,
    same_place,
    sources,
    url_fault,
    url_of,
)

ORG = "https://git.example/api/users/{user}/keys?per_page=100"
KEYS = [asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip() for _ in range(3)]
NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("github:octo-cat", "github:octo-cat"), ("org:ada.l", "org:ada.l"),
        ("https://github.com/ada.keys", "github:ada"),
        ("https://github.com/{user}.keys", "github:me"), (ORG, "org:me"),
        ("https://git.example/api/users/ada/keys?per_page=100", "org:ada"),
    ],
)  # fmt: skip
def test_what_can_be_linked(text: str, label: str) -> None:
    assert read_link(text, "me", ORG).label == label


@pytest.mark.parametrize(
    "text",
    ["", "github", "github:", "github:../admin", "github:a/b", "github:a b", "github:é", "other:ada", "org:-x",
     "https://evil.example/ada.keys", "http://github.com/ada.keys", "https://github.com/.keys",
     "https://github.com/a/../../x.keys", "https://github.com/a%2fb.keys", "https://github.com/ada.keys?x",
     "http://169.254.169.254/latest", "file:///etc/passwd", "github:" + "x" * 101],
)  # fmt: skip
def test_what_cannot(text: str) -> None:
    with pytest.raises(BadLink):
        read_link(text, "me", ORG)


def test_without_a_source_of_the_org_there_is_none() -> None:
    with pytest.raises(BadLink, match=r"known are github:NAME, gitlab:NAME, codeberg:NAME\. An admin"):
        read_link("org:ada", "me", "")


@given(st.text(max_size=60))
def test_a_name_never_leaves_its_place_in_a_url(name: str) -> None:
    for template in (ORG, "https://github.com/{user}.keys"):
        try:
            link = read_link(f"org:{name}", "me", template)
        except BadLink:
            continue
        url, asked = urlsplit(url_of(template, link.name)), urlsplit(template.replace("{user}", "x"))
        assert (url.scheme, url.netloc, url.query, url.fragment) == (asked.scheme, asked.netloc, asked.query, "")
        assert url.path.count("/") == asked.path.count("/")


def test_where_the_keys_of_a_user_are() -> None:
    github = Link(source="github", name="octocat")
    assert [one.label for one in sources([github], "ada", ORG, "keys/T")] == ["github:octocat", "org:ada"]
    assert [one.token for one in sources([github], "ada", ORG, "keys/T")] == ["", "keys/T"], "only the org's sees it"
    other = Link(source="org", name="lovelace")
    assert [one.label for one in sources([other], "ada", ORG, "")] == ["org:lovelace"]
    assert sources([other], "ada", "", "") == [], "the admins took their source away"


@pytest.mark.parametrize(
    ("address", "host", "may"),
    [
        ("93.184.215.14", "git.example", True), ("2606:2800:21f::1", "git.example", True),
        ("10.0.0.1", "git.example", False), ("192.168.1.1", "git.example", False), ("127.0.0.1", "git.example", False),
        ("::1", "git.example", False), ("100.64.0.1", "git.example", False), ("fd00::1", "git.example", False),
        ("0.0.0.0", "0.0.0.0", False), ("::ffff:10.0.0.1", "git.example", False), ("224.0.0.1", "224.0.0.1", False),
        ("169.254.169.254", "169.254.169.254", False), ("fe80::1", "fe80::1", False),
        ("169.254.169.254", "corp.example", False), ("127.0.0.1", "corp.example", False),
        ("10.0.0.1", "10.0.0.1", True), ("127.0.0.1", "127.0.0.1", True), ("127.0.0.1", "localhost", True),
        ("10.0.0.1", "corp.example", True), ("::1", "::1", True),
    ],
)  # fmt: skip
def test_which_addresses_are_asked(address: str, host: str, may: bool) -> None:
    assert may_be_asked(ipaddress.ip_address(address), host, frozenset({"corp.example"})) == may


@given(st.ip_addresses())
def test_a_name_leads_to_public_addresses_only(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if may_be_asked(address, "git.example", frozenset()):
        plain = getattr(address, "ipv4_mapped", None) or address
        assert plain.is_global and not plain.is_private and not plain.is_loopback


@pytest.mark.parametrize(
    ("url", "token", "fault"),
    [
        ("https://git.example/a", True, False), ("http://git.example/a", False, True),
        ("http://127.0.0.1:80/a", True, False), ("http://corp.example/a", False, False),
        ("http://corp.example/a", True, True), ("https://u:p@git.example/a", False, True), ("ftp://x/a", False, True),
    ],
)  # fmt: skip
def test_which_urls_are_asked(url: str, token: bool, fault: bool) -> None:
    assert bool(url_fault(url, token, frozenset({"corp.example"}))) == fault


def test_redirects_stay_where_they_are() -> None:
    assert same_place("https://a.example/x", "https://a.example/y?z")
    for elsewhere in ("http://a.example/x", "https://b.example/x", "https://a.example:444/x", "//", "javascript:x"):
        assert not same_place("https://a.example/x", elsewhere)


def lines(body: bytes) -> list[str]:
    return [key.line for key in read_keys(body, NOW)]


def plain(index: int) -> str:
    return " ".join(KEYS[index].split()[:2])


def test_answers_as_the_servers_give_them() -> None:
    text = f"# of ada\n\n{KEYS[0]} ada@laptop\r\n{KEYS[1]}\nssh-dss AAAA\nnonsense\n{KEYS[0]}\n"
    assert lines(text.encode()) == [plain(0), plain(1)]
    github = [{"id": 1, "key": KEYS[0]}, {"id": 2, "key": KEYS[1]}]
    assert lines(json.dumps(github).encode()) == [plain(0), plain(1)]
    gitlab = [
        {"id": 1, "title": "x", "key": KEYS[0], "expires_at": None, "usage_type": "auth_and_signing"},
        {"id": 2, "title": "old", "key": KEYS[1], "expires_at": "2023-01-01T00:00:00.000Z", "usage_type": "auth"},
        {"id": 3, "title": "signs", "key": KEYS[2], "expires_at": "2033-01-01T00:00:00.000Z", "usage_type": "signing"},
        {"id": 4, "title": "odd", "key": KEYS[2], "expires_at": "some day", "usage_type": "auth"},
    ]
    assert lines(json.dumps(gitlab).encode()) == [plain(0)]
    assert lines(json.dumps([KEYS[2], 7, None, {"key": 8}]).encode()) == [plain(2)]
    assert lines(b"") == lines(b"[]") == []


@pytest.mark.parametrize("body", [b"<html>", b'{"message": "Not Found"}', b"[1", b"\xff\xfe", b"[" * 100_000])
def test_answers_that_are_none(body: bytes) -> None:
    with pytest.raises(BadLink):
        read_keys(body, NOW)


@given(st.binary(max_size=400))
def test_nonsense_never_is_a_key(body: bytes) -> None:
    with contextlib.suppress(BadLink):
        assert read_keys(body, NOW) == []


def test_there_is_a_limit() -> None:
    many = "\n".join(asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode() for _ in range(60))
    assert len(lines(many.encode())) == MAX_LINKED_KEYS
