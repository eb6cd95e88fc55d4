"""What the concurrency dashboard shows, as data: rows of panels, each with its queries and what to do about them.

Gauges of the fleet (slots, queue) are exported by the owner of the log alone, so `max by` survives a change of owner.
Counters and gauges of a process are summed. Where nothing has happened yet, `or vector(0)` shows 0, not "no data".
"""

from __future__ import annotations

from typing import Literal, NamedTuple

_POOL = 'pool=~"$pool"'


class Query(NamedTuple):
    """PromQL, and how its series are called."""

    expr: str
    legend: str = ""


class Panel(NamedTuple):
    """`id` is for links and stays when panels move. `width` of 24; `limits`: yellow from, red from."""

    id: int
    title: str
    description: str
    queries: tuple[Query, ...]
    kind: Literal["stat", "timeseries", "stacked", "heatmap"] = "timeseries"
    unit: str = "short"
    width: int = 8
    height: int = 7
    limits: tuple[float, float] | None = None


class Row(NamedTuple):
    """A headline with panels under it."""

    id: int
    title: str
    panels: tuple[Panel, ...]


def _rate(metric: str, by: str = "", selector: str = "") -> str:
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({metric}{{{selector}}}[$__rate_interval]))"


def _or_zero(expr: str) -> str:
    return f"{expr} or vector(0)"


def _quantile(q: float, metric: str, by: str = "", selector: str = "", window: str = "$__rate_interval") -> str:
    grouping = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({grouping}) (rate({metric}_bucket{{{selector}}}[{window}])))"


def _quantiles(metric: str, by: str = "", selector: str = "") -> tuple[Query, ...]:
    legend = f" {{{{{by}}}}}" if by else ""
    return tuple(Query(_quantile(q / 100, metric, by, selector), f"p{q}{legend}") for q in (50, 95))


_SLOTS = f"max by (pool) (pitstop_slots{{{_POOL}}})"
_IN_USE = f"max by (pool, use) (pitstop_slots_in_use{{{_POOL}}})"
_WAITING = f"max by (pool) (pitstop_runs_waiting{{{_POOL}}})"
_OLDEST = f"max by (pool) (pitstop_queue_oldest_timestamp_seconds{{{_POOL}}})"
_OLDEST_AGE = f"(time() - {_OLDEST}) * ({_OLDEST} > bool 0)"

_ERRORS = _rate("pitstop_runs_completed_total", selector=f'{_POOL}, result="error"')

_NOW = Row(1, "Now", (
    Panel(2, "Slots in use", "Share of all slots that are taken. Near 100 % with jobs waiting: add hosts, or look at "
          "what debug sessions hold.", (Query(f"sum({_IN_USE}) / sum({_SLOTS})"),),
          "stat", "percentunit", 4, 4, (0.8, 0.95)),
    Panel(3, "Held by debug sessions", "Slots of paused jobs. Each holds up a run that waits: `pitstop ls --ssh` says "
          "whose they are and until when, `pitstop cancel` frees one.",
          (Query(f'sum(max by (pool) (pitstop_slots_in_use{{{_POOL}, use="debug"}}))'),), "stat", "short", 4, 4),
    Panel(4, "Jobs waiting", "Jobs in the queue. Waiting with free slots means that an org is at its own limit.",
          (Query(f"sum({_WAITING})"),), "stat", "short", 4, 4, (1, 50)),
    Panel(5, "Oldest waiting", "How long the oldest queued job has waited; 0 when none does. Growing without end: no "
          "host of its pool is up, or its org is over its limit.", (Query(f"max({_OLDEST_AGE})"),),
          "stat", "s", 4, 4, (30, 900)),
    Panel(6, "Wait for a slot, p95", "Over the time shown. The aim is 99 % within 30 s: above it, add slots.",
          (Query(_quantile(0.95, "pitstop_run_queue_wait_seconds", selector=_POOL, window="$__range")),),
          "stat", "s", 4, 4, (10, 30)),
    Panel(7, "Open sessions", "People's connections into jobs, as the log has them.", (Query("max(pitstop_sessions)"),),
          "stat", "short", 4, 4),
))  # fmt: skip

_CAPACITY = Row(10, "Capacity", (
    Panel(11, "Slots by use", "What the slots are used for, against how many there are. A growing `debug` band is "
          "people who stay: shorten the idle limit, or add slots.",
          (Query(f"sum by (use) ({_IN_USE})", "{{use}}"), Query(f"sum({_SLOTS})", "slots")), "stacked"),
    Panel(12, "Saturation by pool", "At 1 the pool is full. One pool full while others are empty: labels of jobs "
          "(`runs-on`) and hosts do not fit each other.",
          (Query(f"sum by (pool) ({_IN_USE}) / sum by (pool) ({_SLOTS})", "{{pool}}"),), unit="percentunit"),
    Panel(13, "Demand and free slots", "Jobs that wait, and slots that nobody holds. Both above 0 for long: a limit "
          "of an org or project holds the jobs back.",
          (Query(f"sum by (pool) ({_WAITING})", "waiting {{pool}}"),
           Query(f"sum by (pool) ({_SLOTS}) - sum by (pool) ({_IN_USE})", "free {{pool}}"))),
    Panel(14, "Jobs on the hosts", "As the hosts themselves count. More than the slots in use for long: ended jobs "
          "do not leave their hosts; look at the sandbox errors.",
          (Query("sum by (state) (pitstop_sandbox_jobs)", "{{state}}"),
           Query("sum(pitstop_sandbox_capacity)", "capacity"))),
    Panel(15, "Start of a sandbox", "From the claim to the sandbox, by backend. Slow: the host's disk, or an image "
          "that is not there yet.", _quantiles("pitstop_sandbox_start_seconds", "backend"), unit="s"),
    Panel(16, "Sandbox errors", "Sandboxes that could not be made, run or removed. Any: the host's log has the reason.",
          (Query(_or_zero(_rate("pitstop_sandbox_errors_total", "op, error_type")), "{{op}} {{error_type}}"),),
          unit="cps"),
))  # fmt: skip

_QUEUE = Row(20, "Queue", (
    Panel(21, "Wait for a slot", "Each column: how long the jobs that started then had waited. The aim is below 30 s.",
          (Query(f"sum by (le) (increase(pitstop_run_queue_wait_seconds_bucket{{{_POOL}}}[$__rate_interval]))",
                 "{{le}}"),), "heatmap", "s"),
    Panel(22, "Wait for a slot, quantiles", "The same by pool.",
          _quantiles("pitstop_run_queue_wait_seconds", "pool", _POOL), unit="s"),
    Panel(23, "Age of the oldest", "By pool; 0 when none waits. A straight line upwards: nothing of that pool starts.",
          (Query(_OLDEST_AGE, "{{pool}}"),), unit="s"),
    Panel(24, "Requests", "What became of them. `invalid`: `pitstop dlq ls` has each with its reason.",
          (Query(_rate("pitstop_run_requests_total", "result"), "{{result}}"),), unit="reqps"),
    Panel(25, "From request to acceptance", "Above a second: the scheduler or NATS is short of CPU or disk.",
          _quantiles("pitstop_run_accept_seconds"), unit="s"),
    Panel(26, "Starts and decisions", "Jobs that got a slot, and changes written to the log. Decisions at 0 while "
          "requests come: no scheduler owns the log.",
          (Query(_rate("pitstop_starts_total", "pool", _POOL), "starts {{pool}}"),
           Query(_rate("pitstop_decisions_total"), "decisions")), unit="cps"),
))  # fmt: skip

_RESULTS = Row(30, "Results", (
    Panel(31, "Jobs ended", "By result. `failure` is the jobs' own; `error` is ours.",
          (Query(_rate("pitstop_runs_completed_total", "result", _POOL), "{{result}}"),), "stacked", "cps"),
    Panel(32, "Share of errors", "Jobs that ended for a reason of ours, of all. Above 0.1 %: look at sandbox errors "
          "and at lost hosts.",
          (Query(f"({_or_zero(_ERRORS)}) / {_rate('pitstop_runs_completed_total', selector=_POOL)}", "errors"),),
          unit="percentunit"),
    Panel(33, "Length of jobs", "From the slot to the end, pauses included, by result.",
          _quantiles("pitstop_run_duration_seconds", "result", _POOL), unit="s"),
    Panel(34, "Output stored", "Lines of output. One job can fill the log stream: `pitstop logs` shows which prints.",
          (Query(_rate("pitstop_log_lines_total"), "lines"),), unit="cps"),
))  # fmt: skip

_SESSIONS = Row(40, "Debug sessions", (
    Panel(41, "Open", "In the log, at the relays, and links from hosts. More connections than sessions for long: "
          "somebody tries keys; look at the logins.",
          (Query("max(pitstop_sessions)", "sessions"), Query("sum(pitstop_relay_sessions)", "logged in"),
           Query("sum(pitstop_relay_connections)", "connections"), Query("sum(pitstop_relay_links)", "links"))),
    Panel(42, "Ended, by why", "`idle` and `connect_window`: the janitor gave the slot to others. Many of them, "
          "and nobody waits: the limits may be longer.",
          (Query(_or_zero(_rate("pitstop_sessions_ended_total", "reason")), "{{reason}}"),), "stacked", "cps"),
    Panel(43, "Logins", "By what became of them, and refusals that came late: many from one address, block it before "
          "the relay.",
          (Query(_or_zero(_rate("pitstop_relay_auth_total", "method, result")), "{{method}} {{result}}"),
           Query(_or_zero(_rate("pitstop_relay_auth_slowed_total")), "slowed")), unit="cps"),
    Panel(44, "From connection to prompt", "The aim is 2 s for 99.5 %. Slow: the link to the host, or its CPU.",
          _quantiles("pitstop_relay_session_setup_seconds"), unit="s"),
    Panel(45, "Connections closed", "By reason, and those over a limit. Many over a limit: add a "
          "relay, or find out who asks.",
          (Query(_or_zero(_rate("pitstop_relay_sessions_closed_total", "reason")), "{{reason}}"),
           Query(_or_zero(_rate("pitstop_relay_connections_refused_total", "limit")), "refused: {{limit}}")),
          unit="cps"),
    Panel(46, "Bytes passed on", "Between clients and sandboxes. Near the network's own limit: add relays.",
          (Query(_or_zero(_rate("pitstop_relay_bytes_total", "direction")), "{{direction}}"),), unit="Bps"),
))  # fmt: skip

_JANITOR = Row(50, "Janitor", (
    Panel(51, "Reclaimed", "What was freed, and why. `host` and `job`: a host died; the runs it held ended as `error`. "
          "`message`: `pitstop dlq ls`.",
          (Query(_rate("pitstop_janitor_reclaimed_total", "kind, reason"), "{{kind}}: {{reason}}"),), "stacked", "cps"),
    Panel(52, "Under suspicion", "Waiting to be reclaimed. Above 0 for more than three minutes: the janitor sees them "
          "but cannot free them; its log says why.",
          (Query("max by (kind) (pitstop_janitor_orphans)", "{{kind}}"),)),
    Panel(53, "Since the last good pass", "By collector. Above a minute: no janitor runs, or its pass fails.",
          (Query("time() - max by (collector) (pitstop_janitor_last_success_timestamp_seconds)", "{{collector}}"),),
          unit="s"),
    Panel(54, "Length of a pass", "Above 5 s: too many hosts or jobs for one look; the limits of silence still hold.",
          (Query(_quantile(0.95, "pitstop_janitor_sweep_seconds", "collector"), "p95 {{collector}}"),), unit="s"),
    Panel(55, "Failed passes", "They are tried again; a collector that never succeeds shows to the left.",
          (Query(_rate("pitstop_janitor_sweep_errors_total", "collector"), "{{collector}}"),), unit="cps"),
    Panel(56, "Looked at in a pass", "By collector. A sudden 0: it does not see what is there; its log says why.",
          (Query("max by (collector) (pitstop_janitor_seen)", "{{collector}}"),)),
    Panel(57, "Swept by hosts", "Leftovers that hosts ended or removed by themselves. Above 0 for long: something "
          "makes them; the host's log names each.",
          (Query(_or_zero(_rate("pitstop_sandbox_swept_total", "kind, reason")), "{{kind}}: {{reason}}"),), unit="cps"),
))  # fmt: skip

_SERVICES = Row(60, "Services", (
    Panel(61, "Ready", "Processes that take work, those that drain, and the logs that have an owner: as many as there "
          "are partitions. At 0 nothing is decided; start a scheduler.",
          (Query("sum by (job) (pitstop_ready)", "{{job}}"), Query("sum(pitstop_draining)", "draining"),
           Query("sum(pitstop_scheduler_partitions_owned)", "logs with an owner"),
           Query("sum(pitstop_scheduler_owner)", "schedulers that own one"))),
    Panel(62, "Versions", "Processes by version: more than one only during an update.",
          (Query("sum by (service, version) (pitstop_build_info)", "{{service}} {{version}}"),)),
    Panel(63, "NATS", "1 while connected, worst process of each service, and reconnects. Below 1: nothing is lost, "
          "but nothing moves; look at the server.",
          (Query("min by (job) (pitstop_nats_connected)", "{{job}}"),
           Query(_rate("pitstop_nats_reconnects_total"), "reconnects/s"))),
    Panel(64, "Event loop lag, p99", "How late a process notices things. Above 0.1 s: it is short of CPU; add another.",
          (Query(_quantile(0.99, "pitstop_event_loop_lag_seconds", "job"), "{{job}}"),), unit="s"),
    Panel(65, "Handling of messages, p95", "By handler. The slow one is the one to look at.",
          (Query(_quantile(0.95, "pitstop_message_process_seconds", "handler"), "{{handler}}"),), unit="s"),
    Panel(66, "What became of messages", "`term`: poison, see `pitstop dlq ls`. `nak` and `error`: tried again.",
          (Query(_rate("pitstop_message_process_seconds_count", "outcome"), "{{outcome}}"),), unit="cps"),
    Panel(67, "CPU", "Cores, by service. The scheduler's owner is one process: at 0.9 it is the limit.",
          (Query(_rate("process_cpu_seconds_total", "job"), "{{job}}"),)),
    Panel(68, "Memory", "Resident, by service. Steady growth over days: report it, and restart the service.",
          (Query("sum by (job) (process_resident_memory_bytes)", "{{job}}"),), unit="bytes"),
    Panel(69, "Open files", "Of the limit, worst process of each service. Above 0.8: raise `LimitNOFILE`.",
          (Query("max by (job) (process_open_fds / process_max_fds)", "{{job}}"),), unit="percentunit"),
    Panel(70, "Secrets asked for", "By what became of it. `refused` and `no_key`: somebody asks who should "
          "not; the scheduler's log says who.",
          (Query(_or_zero(_rate("pitstop_secrets_fetches_total", "result")), "{{result}}"),), unit="cps"),
))  # fmt: skip

ROWS = (_NOW, _CAPACITY, _QUEUE, _RESULTS, _SESSIONS, _JANITOR, _SERVICES)
