"""Snapshots in the played world of the scheduler's rules: a state comes back from its bytes as it was, though it was
changed while they were made; and a reader who starts from them folds on to the same state."""

from __future__ import annotations

from itertools import islice

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule
from tests.stateful.test_scheduler_decide import World, fingerprint

from pitstop_scheduler import changes as c
from pitstop_scheduler.decide import decide
from pitstop_scheduler.fold import fold
from pitstop_scheduler.model import State
from pitstop_scheduler.snapshot import differences, frames, freeze, restore


def read(data: bytes) -> State:
    """The state that bytes hold."""
    return list(restore(data))[-1]


class Snapshots(World):
    """The scheduler writes snapshots now and then, in slices; a follower starts from each."""

    def __init__(self) -> None:
        self.follower: State | None = None
        self.pieces: list[bytes] | None = None
        super().__init__()

    def commit(self, *changes: c.AnyChange, watermark: int = 0, now: float = 0.0) -> None:
        before = len(self.log)
        super().commit(*changes, watermark=watermark, now=now)
        assert len(self.log) == before + 1
        if self.follower is not None:
            fold(self.follower, *self.log[-1])

    @precondition(lambda self: self.pieces is None)
    @rule()
    def begin(self) -> None:
        """What is written from now on must be the state of now."""
        self.as_it_was = b"".join(frames(freeze(self.state)))
        self.rest = frames(freeze(self.state))
        self.pieces = []
        self.behind = len(self.log)

    @precondition(lambda self: self.pieces is not None)
    @rule(slices=st.integers(1, 3))
    def write(self, slices: int) -> None:
        assert self.pieces is not None
        self.pieces += list(islice(self.rest, slices))

    @precondition(lambda self: self.pieces is not None)
    @rule()
    def finish(self) -> None:
        data = b"".join([*(self.pieces or []), *self.rest])
        assert data == self.as_it_was
        self.state.unpin()
        self.pieces = None
        self.follower = read(data)
        for entry in self.log[self.behind :]:
            fold(self.follower, *entry)

    @invariant()
    def the_follower_has_the_same_state(self) -> None:
        if self.follower is not None:
            assert differences(self.state, self.follower) == []

    @rule(limits=st.integers(0, 3))
    def everybody_starts_from_it(self, limits: int) -> None:
        """A new owner, with other limits: whoever may be next by them is granted, as by who folded the log."""
        self.tick()
        back = read(b"".join(frames(freeze(self.state))))
        if self.pieces is None:
            self.state.unpin()
        self.commit(c.Defaults(limits, 0, 0))
        fold(back, *self.log[-1])
        assert decide(self.state, [], 0.0) == decide(back, [], 0.0)
        self.tick()

    def teardown(self) -> None:
        self.state.unpin()
        back = read(b"".join(frames(freeze(self.state))))
        assert differences(self.state, back) == []
        assert fingerprint(back) == fingerprint(read(b"".join(frames(freeze(back)))))


TestSnapshots = Snapshots.TestCase
TestSnapshots.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
