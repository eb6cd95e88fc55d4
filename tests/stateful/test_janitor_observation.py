"""Hosts that beat, fall silent, restart and go away, while the janitor is cut off, stopped and started: nobody who
lives is called lost, and everybody who died is."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pitstop_common.limits import HEARTBEAT_INTERVAL, HOST_LOST_AFTER, ORPHAN_GRACE
from pitstop_common.messages import Heartbeat
from pitstop_janitor.decide import forget, signs_of_life, unchanged_for, watch
from pitstop_janitor.model import Observation

HOSTS = ("h1", "h2", "h3")
LOOK = HEARTBEAT_INTERVAL
GAP = 3 * LOOK


class Host:
    """A host as it really is. It writes a beat each interval while it lives and reaches NATS."""

    def __init__(self, now: float, life: int) -> None:
        self.life, self.count, self.last_written = life, 0, now
        self.alive = True
        self.cut_until = now


class Janitor(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.offset = 0.0
        """Of the janitor's monotonic clock: it differs from everybody else's, and starts anew with each janitor."""
        self.epoch = 0
        self.hosts: dict[str, Host] = {}
        self.stored: dict[str, Heartbeat] = {}
        self.observation = Observation()
        self.watched_since = 0.0
        self.called_lost: list[tuple[str, int]] = []

    @initialize()
    def hosts_start(self) -> None:
        for name in HOSTS:
            self.hosts[name] = Host(self.now, life=1)
            self._write(name)

    # -- what the world does -----------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 4, 5, 6, 14]))
    def time_passes(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1
            for name, host in self.hosts.items():
                if host.alive and self.now >= host.cut_until and self.now - host.last_written >= HEARTBEAT_INTERVAL:
                    self._write(name)

    @rule(name=st.sampled_from(HOSTS), seconds=st.floats(1, ORPHAN_GRACE))
    def a_host_is_cut_off_for_less_than_a_holder_waits(self, name: str, seconds: float) -> None:
        host = self.hosts[name]
        if self.now >= host.cut_until:
            host.cut_until = self.now + seconds

    @rule(name=st.sampled_from(HOSTS))
    def a_host_dies(self, name: str) -> None:
        self.hosts[name].alive = False

    @rule(name=st.sampled_from(HOSTS))
    def a_host_starts_again(self, name: str) -> None:
        self.hosts[name] = Host(self.now, self.hosts[name].life + 1)
        self._write(name)

    @rule()
    def the_server_restarts(self) -> None:
        self.epoch += 1
        self.watched_since = self.now

    @rule(offset=st.floats(-1e6, 1e6))
    def a_new_janitor_takes_over(self, offset: float) -> None:
        self.offset, self.epoch, self.observation = offset, 0, Observation()
        self.watched_since = self.now

    @rule(step=st.one_of(st.floats(-1e6, -1), st.floats(GAP + 1, 1e6)))
    def the_janitors_clock_jumps(self, step: float) -> None:
        self.offset += step

    # -- what the janitor does ---------------------------------------------------------------------------------

    @rule()
    def it_looks(self) -> None:
        before, clock = self.observation, self.now + self.offset
        if not 0 <= clock - before.at <= GAP:
            self.watched_since = self.now
        self.observation = watch(before, signs_of_life(self.stored), now=clock, epoch=self.epoch, max_gap=GAP)
        lost = unchanged_for(self.observation, HOST_LOST_AFTER)
        for name in lost:
            host = self.hosts[name]
            self.called_lost.append((name, host.life))
            silent = self.now - host.last_written
            assert silent >= HOST_LOST_AFTER, f"{name} wrote {silent} s ago"
            assert not host.alive, f"{name} lives"
            assert self.now - self.watched_since >= HOST_LOST_AFTER, "the observation was broken"
            del self.stored[name]
        self.observation = forget(self.observation, lost)

    @rule(times=st.integers(5, 22))
    def it_looks_for_a_while(self, times: int) -> None:
        for _ in range(times):
            self.time_passes(int(LOOK))
            self.it_looks()

    @rule()
    def it_keeps_looking_until_every_dead_host_is_found(self) -> None:
        for _ in range(int((HOST_LOST_AFTER + ORPHAN_GRACE) / LOOK) + 2):
            self.time_passes(int(LOOK))
            self.it_looks()
        assert {name for name in self.stored if not self.hosts[name].alive} == set()
        assert {name for name, host in self.hosts.items() if host.alive} <= set(self.stored)

    @invariant()
    def each_life_is_called_lost_once(self) -> None:
        assert len(self.called_lost) == len(set(self.called_lost))

    def _write(self, name: str) -> None:
        host = self.hosts[name]
        host.count, host.last_written = host.count + 1, self.now
        self.stored[name] = Heartbeat(
            host=name, incarnation=f"i{host.life}", pool="default", capacity=1, beat=host.count
        )


TestJanitor = Janitor.TestCase
TestJanitor.settings = settings(
    max_examples=120, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
