"""The metrics of all workers as one page: each series with a label `worker`, and how many workers there are."""

from __future__ import annotations

import contextlib
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_WITHIN: Final = 2.0
"""For a worker's page, seconds: one that hangs must not hide the others."""


class Source(Protocol):
    """A worker."""

    number: int
    ready: dict[str, Any]
    restarts: int


class WorkerPages(Collector):
    """Asks the workers when it is asked. Runs in the thread of the page."""

    def __init__(self, workers: Callable[[], Sequence[Source]]) -> None:
        self._workers = workers

    def describe(self) -> Iterator[Metric]:
        """Nothing is known before the workers are asked."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """As a page."""
        workers = self._workers()
        yield GaugeMetricFamily(
            "pitstop_relay_workers", "Relay workers that are ready", sum(1 for worker in workers if worker.ready)
        )
        restarts = CounterMetricFamily(
            "pitstop_relay_worker_restarts", "Workers that were started again", labels=["worker"]
        )
        for worker in workers:
            restarts.add_metric([str(worker.number)], worker.restarts)
        yield restarts
        yield from merged([(str(worker.number), page) for worker in workers if (page := _page(worker))])


def merged(pages: Sequence[tuple[str, str]]) -> Iterator[Metric]:
    """Each family once, with the samples of all pages, which are named by the label `worker`."""
    families: dict[str, Metric] = {}
    for worker, page in pages:
        for family in text_string_to_metric_families(page):
            found = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                labels = {**sample.labels, "worker": worker}
                found.add_sample(sample.name, labels, sample.value, sample.timestamp, sample.exemplar)
    yield from families.values()


def _page(worker: Source) -> str:
    url = worker.ready.get("http")
    if url:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/metrics", timeout=_WITHIN) as reply:
            return str(reply.read().decode())
    return ""
