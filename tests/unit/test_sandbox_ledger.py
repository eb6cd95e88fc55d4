"""The rule of the audit: each thing that is opened is counted once, little is said in a time, all is safe to keep."""

from __future__ import annotations

import unicodedata
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pitstop_sandbox.events import Used
from pitstop_sandbox.ledger import _LOOKED_AT, LONGEST, harmless
from pitstop_sandbox.steps.masks import Masks
from pitstop_sandbox.tally import AT_ONCE, FILES_CHARS, FILES_NAMED, NAMED, WINDOW, Same, Tally, batched

USES = st.lists(
    st.tuples(st.floats(0, WINDOW / 4), st.sampled_from("ab"), st.sampled_from(["exec", "sftp"]), st.integers(0, 60)),
    max_size=400,
)


def played(uses: list[tuple[float, str, str, int]]) -> list[tuple[float, Used]]:
    """What is said of uses, as (seconds since the one before, user, kind, number of the command)."""
    tally, now, said = Tally(), 100.0, []
    for wait, user, kind, number in uses:
        now += wait
        if tally.ends is not None and tally.ends <= now:  # the timer of the ledger
            said += [(tally.ends, one) for one in tally.due(tally.ends)]
        same = Same(user, kind, f"run {number}" if kind == "exec" else "")  # type: ignore[arg-type]
        said += [(now, one) for one in tally.use(f"of {user}", same, now)]
    return [*said, *((now, one) for one in tally.rest())]


@given(USES)
def test_each_use_is_counted_once_under_its_person_and_kind(uses: list[tuple[float, str, str, int]]) -> None:
    done = Counter((user, kind) for _, user, kind, _ in uses)
    told: Counter[tuple[str, str]] = Counter()
    for _, one in played(uses):
        assert one.session == f"of {one.user}" and one.count >= 1
        told[one.user, one.kind] += one.count
    assert told == done


@given(USES)
def test_little_is_said_in_a_window_however_much_is_opened(uses: list[tuple[float, str, str, int]]) -> None:
    said = [at for at, _ in played(uses)]
    persons_and_kinds = 4
    for at in said:
        within = sum(1 for other in said if at <= other < at + WINDOW)
        # A window's rest is said as the next one begins.
        assert within <= 2 * (AT_ONCE + NAMED + persons_and_kinds)


def test_what_comes_alone_is_said_at_once_and_by_name() -> None:
    uses = [(1.0, "a", "exec", number) for number in range(AT_ONCE)]
    assert [one.what for _, one in played(uses)] == [f"run {number}" for number in range(AT_ONCE)]
    flood = played([*uses, *((0.0, "a", "exec", 7) for _ in range(1000))])
    assert [(one.what, one.count) for _, one in flood[AT_ONCE:]] == [("run 7", 1000)]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.text("xyz", min_size=1, max_size=400)), max_size=300))
def test_files_of_a_window_are_named_in_one_event_a_person_and_the_rest_counted(files: list[tuple[str, str]]) -> None:
    tally, said = Tally(FILES_NAMED, FILES_CHARS), []
    for user, name in files:
        said += tally.use(f"of {user}", Same(user, "file", name), 100.0)
    rest = batched(tally.rest())
    assert [(one.user, one.what) for one in said] == files[:AT_ONCE]
    assert sum(one.count for one in [*said, *rest]) == len(files)
    assert len(rest) <= 4 and sum(len(name) for one in rest for name in one.named) <= FILES_CHARS + 12 * FILES_NAMED
    if len(files) <= FILES_NAMED // 2 and sum(len(name) for _, name in files) < FILES_CHARS:
        assert all(one.named for one in rest)


@given(st.text(max_size=6000), st.lists(st.text("abc\n", min_size=5, max_size=40), max_size=3))
def test_what_is_kept_is_one_bounded_line_without_values(text: str, values: list[str]) -> None:
    kept = harmless(text, Masks(values))
    assert len(kept) <= LONGEST
    assert not [char for char in kept if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}]


@given(st.integers(_LOOKED_AT - 60, _LOOKED_AT + 10), st.integers(1, 30))
def test_a_value_at_the_edge_of_what_is_looked_at_is_not_kept_in_part(before: int, stars: int) -> None:
    value = "secret-value-0123456789"
    # Values in front make the rest move up into what is kept.
    text = (value * 400)[: before // len(value) * len(value)].ljust(before, " ") + value * stars
    assert "secret" not in harmless(text, Masks([value]))
