"""Dead letters hold no credential of a source, and everything else as it came."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop_common.faults import Faults
from pitstop_common.redact import without_credentials
from pitstop_common.requests import SourceRequest
from pitstop_scheduler.request_rules import source_of

TOKEN = "t0ken-of-ada"
WITH_TOKEN = (
    f"https://{TOKEN}@h/x", f"https://u:{TOKEN}@h/x", f"ssh://u:{TOKEN}@h/x", f"https://u:a@{TOKEN}@h/x",
    f"https://h/x?access_token={TOKEN}", f"https://h/x?a=1&PRIVATE_KEY={TOKEN}&b=2",
)  # fmt: skip


@pytest.mark.parametrize("url", WITH_TOKEN)
def test_a_credential_in_a_source_is_cut_out_wherever_it_stands(url: str) -> None:
    bodies: list[Any] = [{"source": {"git": url}}, {"source": url}, {"source": {"ref": [url]}}, {"source": {url: 1}}]
    for body in (*(json.dumps(one).encode() for one in bodies), json.dumps([url]).encode(), f"git={url} {{".encode()):
        kept, cut = without_credentials(body)
        assert cut and TOKEN.encode() not in kept and b"***" in kept


@pytest.mark.parametrize("url", WITH_TOKEN)
def test_what_was_cut_is_refused_again_when_it_is_replayed(url: str) -> None:
    kept, _ = without_credentials(json.dumps({"source": {"git": url}}).encode())
    faults = Faults()
    source_of(SourceRequest(git=json.loads(kept)["source"]["git"]), faults)
    assert [fault.pointer for fault in faults.found] == ["/source/git"]


@pytest.mark.parametrize("url", ["https://h/x", "ssh://git@h/x", "git@h:x", "/srv/x.git", "https://h/x@v2?ref=main"])
def test_a_request_without_one_is_kept_to_the_byte(url: str) -> None:
    body = json.dumps({"source": {"git": url}, "steps": [{"run": f"curl https://u:{TOKEN}@h/"}]}, indent=3).encode()
    assert without_credentials(body) == (body, False)


@pytest.mark.parametrize("piece", ["a", "a:", "://", "?", "?token", "token", "a://b", "&key=", "https://", "\0", "@"])
def test_a_large_body_takes_no_long_time(piece: str) -> None:
    begun = time.process_time()
    without_credentials((piece * 1_000_000)[:1_000_000].encode())
    assert time.process_time() - begun < 10


@given(st.binary(max_size=200))
def test_it_takes_any_bytes(body: bytes) -> None:
    kept, cut = without_credentials(body)
    assert cut or kept == body


@given(st.sampled_from(WITH_TOKEN), st.binary(max_size=40), st.binary(max_size=40))
def test_a_credential_in_a_broken_request_is_cut_out(url: str, before: bytes, after: bytes) -> None:
    kept, _ = without_credentials(before + b" " + url.encode() + b" " + after)
    assert TOKEN.encode() not in kept
