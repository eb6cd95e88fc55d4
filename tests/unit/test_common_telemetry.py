"""Trace context in headers, and the metrics that every service has."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from pitstop_common.telemetry import ServiceMetrics, child, headers, new_trace, trace_of

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FORM = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")
PAIRS = st.dictionaries(st.text(max_size=12), st.text(max_size=60), max_size=5)


def test_a_trace_is_found_in_any_letter_case() -> None:
    for name in ("traceparent", "Traceparent", "TRACEPARENT", "TraceParent"):
        assert trace_of({"Nats-Msg-Id": "x", name: TRACE}) == TRACE


@given(PAIRS)
def test_what_is_found_is_a_trace_or_nothing(found: dict[str, str]) -> None:
    assert trace_of(found) == "" or FORM.match(trace_of(found))
    assert trace_of(None) == ""


def test_malformed_traces_are_none() -> None:
    for text in (TRACE + "\n", TRACE + "x", TRACE.upper(), TRACE[:-1], "01" + TRACE[2:], ""):
        assert trace_of({"traceparent": text}) == ""


def test_each_hop_keeps_the_trace_and_has_a_span_of_its_own() -> None:
    hops = [TRACE]
    for _ in range(20):
        hops.append(child(hops[-1]))
    assert {hop.split("-")[1] for hop in hops} == {TRACE.split("-")[1]}
    assert len({hop.split("-")[2] for hop in hops}) == len(hops)
    assert all(FORM.match(hop) for hop in hops)


@given(st.text(max_size=80))
def test_a_hop_from_nowhere_starts_a_trace(text: str) -> None:
    assert FORM.match(child(text))
    assert FORM.match(new_trace())


def test_an_unsampled_trace_stays_unsampled() -> None:
    assert child(TRACE[:-1] + "0").endswith("-00")


def test_headers_carry_the_id_and_one_hop_further() -> None:
    assert headers("id") == {"Nats-Msg-Id": "id"}
    made = headers("id", TRACE)
    assert made["Nats-Msg-Id"] == "id"
    assert made["traceparent"] != TRACE and made["traceparent"].split("-")[1] == TRACE.split("-")[1]


def test_two_services_in_one_process_have_metrics_of_their_own() -> None:
    one, two = ServiceMetrics("one"), ServiceMetrics("two")
    one.ready.set(1)
    assert two.registry.get_sample_value("pitstop_ready") == 0
    assert one.registry.get_sample_value("pitstop_build_info", {"service": "one", "version": "0.1.0"}) == 1


def test_every_service_has_the_common_metrics_and_no_noise() -> None:
    metrics = ServiceMetrics("x")
    metrics.messages.labels("h", "ack").observe(0.2)
    page = generate_latest(metrics.registry).decode()
    for name in (
        "pitstop_build_info", "pitstop_ready", "pitstop_draining", "pitstop_nats_connected",
        "pitstop_nats_reconnects_total", "pitstop_event_loop_lag_seconds_bucket",
        "pitstop_message_process_seconds_bucket", "process_cpu_seconds_total", "process_resident_memory_bytes",
        "process_open_fds", "python_gc_collections_total",
    ):  # fmt: skip
        assert re.search(rf"^{name}[ {{]", page, re.M), name
    assert "_created" not in page
