"""Every bound of the contract, as a named number with its unit. Readers and writers share them."""

from __future__ import annotations

import re
from typing import Final

# -- what a publisher may send (bytes, counts, characters) -------------------------------------------------------
MAX_REQUEST_BYTES: Final = 512 * 1024
MAX_REQUEST_DEPTH: Final = 32
MAX_WORKFLOW_BYTES: Final = 256 * 1024
MAX_ID_CHARS: Final = 128
MAX_NAME_CHARS: Final = 200
MAX_JOBS: Final = 64
MAX_STEPS: Final = 200
MAX_PATCH_CHARS: Final = 256 * 1024
"""Of a request: the uncommitted change, deflated and in base64 as `pitstop run` sends it."""
MAX_PATCH_BYTES: Final = 8 * 2**20
"""Of the same, unpacked."""
MAX_ENV_VARS: Final = 200
MAX_ENV_VALUE_CHARS: Final = 32 * 1024
MAX_SSH_KEYS: Final = 20
MAX_SSH_USERS: Final = 50
MAX_KEY_CHARS: Final = 8 * 1024
MAX_REF_CHARS: Final = 250
MAX_PRIORITY: Final = 100
MAX_QUEUE_SHOWN: Final = 50
"""So many waiting jobs are listed with their places; the rest is counted."""
MAX_FAULTS: Final = 100
"""So many faults of one request are told; more would not fit an event, and nobody reads them."""
MAX_WORKFLOW_NODES: Final = 20_000
MAX_WORKFLOW_EXPANDED: Final = 1024 * 1024
"""Characters of a workflow when each alias stands for what it names: a bound on alias bombs."""
MAX_SPEC_BYTES: Final = 768 * 1024
"""A compiled run is one NATS message (1 MiB by default)."""
MAX_SLOTS: Final = 100_000
MAX_WEIGHT: Final = 1000
MAX_PROJECTS: Final = 1000
MAX_POOLS: Final = 100
"""That one file or request sets limits of."""
"""Of one org: those with limits of their own."""
MAX_LABELS: Final = 50
"""Of one host, or that one job may ask for."""
MAX_PEOPLE: Final = 2000
"""Named with a role in one org, or in one project."""
MAX_SHELL_CHARS: Final = 300
MAX_TIMEOUT_MINUTES: Final = 7 * 24 * 60

# -- secrets -----------------------------------------------------------------------------------------------------
MAX_SECRET_BYTES: Final = 48 * 1024
MAX_SECRETS: Final = 100
"""Of one context."""
MAX_CONTEXT_BYTES: Final = 64 * 1024
"""All values of a context together: those of MAX_RUN_CONTEXTS, sealed, are one NATS message (1 MiB by default)."""
MAX_CONTEXT_LINES: Final = 250
"""Lines of all values of a context: each is looked for in each log (8 contexts of so many cost a host 0.7 s a job)."""
MAX_RUN_CONTEXTS: Final = 8
"""Contexts of one job."""
MAX_CONTEXTS: Final = 500
"""Of one org."""
MAX_MEMBERS: Final = 200
MAX_SEAL_CHARS: Final = 44
"""A public key of 32 bytes, in base64."""
MIN_MASKED: Final = 4
"""Bytes. Secrets, and lines of longer ones, that are shorter are not hidden in logs: they would blot them out."""

# -- the session policy (seconds) --------------------------------------------------------------------------------
CONNECT_WINDOW: Final = 600
IDLE_TIMEOUT: Final = 900
MAX_DURATION: Final = 3600.0
"""From the first login, for a run and an org that say nothing."""
MAX_POLICY_SECONDS: Final = 24 * 3600
PRESSURE: Final = 300.0
"""The idle limit while runs of the org wait, for an org that set none."""
MIN_PRESSURE: Final = 1.0
"""Nobody can be warned of a shorter one in time."""
LONGEST_SESSION: Final = 7200.0
"""How long a session may be asked for or extended to, from the first login, for an org that set no cap."""
WARN_BEFORE: Final = 120.0
"""A person is warned this long before a session ends, or half its limit when that is shorter."""
OUTPUT_COUNTS_AFTER_KEY: Final = 300.0
"""Output is activity only this long after a key: a job that prints for ever is not a person at work."""
CPU_COUNTS_SHARE: Final = 0.1
"""What people started is at work when it takes this much of one core over a window of activity. A program that draws
its screen again and again (top, watch) takes far less, one that compiles far more."""
CPU_COUNTS_LEAST: Final = 0.1
"""And at least so many seconds of CPU in a window, however short: the kernel counts in ticks of 10 ms."""
MOVED_COUNTS: Final = 4096
"""Bytes of sftp and forwards that are activity when more go through, either way, within MOVED_WITHIN."""
MOVED_WITHIN: Final = 15.0
ACTIVITY_INTERVAL: Final = 15.0
"""At most one `ssh.active` a job in this time (or a quarter of the idle limit, when that is shorter)."""

# -- holds --------------------------------------------------------------------------------------------------------
MAX_HOLDS: Final = 100
"""Of one org, at a time."""
MAX_HOLDS_KNOWN: Final = 10 * MAX_HOLDS
"""Those that are used up or removed are known until their time is over: one that is said again is no new one."""
MAX_HOLD_COUNT: Final = 1000
"""Failures that one hold waits for."""
HOLD_FOR: Final = 7 * 24 * 3600.0
"""A hold that says no time is forgotten after so many seconds."""
MAX_HOLD_SECONDS: Final = 30 * 24 * 3600

# -- what lets people in (seconds) -------------------------------------------------------------------------------
TOKEN_TTL: Final = 900.0
MAX_TOKEN_TTL: Final = 24 * 3600.0
LOGIN_LASTS: Final = 30 * 24 * 3600.0
MAX_LOGIN_LASTS: Final = 90 * 24 * 3600.0
MIN_PASS: Final = 1.0
MAX_AUTHORITIES: Final = 20
"""Of user certificates, in one org."""
MAX_PRINCIPALS: Final = 2000
MAX_REVOKED: Final = 500
"""Serials, ids and keys of certificates, each."""
MAX_LINKS: Final = 5
"""Accounts elsewhere that one user may link."""
MAX_LINKED_KEYS: Final = 50
"""Of one of them."""
KEY_TTL: Final = 600.0
"""A throwaway key that `pitstop ssh` could not remove is good for so long. It is needed only while a login is made."""
MAX_LOG_WAIT: Final = 5.0

# -- liveness (seconds) ------------------------------------------------------------------------------------------
HEARTBEAT_INTERVAL: Final = 5.0
HOST_LOST_AFTER: Final = 120.0
ORPHAN_GRACE: Final = 90.0
"""A holder without its host process, or a host without NATS, ends its job after this long."""
HOLDER_WAITS: Final = 1.15
"""Times the grace: where the host process is there and can end a job properly, its holder lets it be the first."""
OWNER_TTL: Final = 2
"""The liveness key of a partition's owner. Safety does not rest on it: the epoch record is the fence."""
RETRIES: Final = 1
"""How often a job is tried again whose host was lost, where the request allows it."""
KNOWN_FOR: Final = 7 * 24 * 3600.0
"""A request that comes again so long after its run has ended is a new run."""
CLAIMS_KEPT: Final = 15 * 24 * 3600.0
"""A day longer than any stream keeps a message that an attempt could follow from."""
VIEWS_KEPT: Final = 14 * 24 * 3600.0
"""Read models of what has ended: as long as the specs, which a status needs, too."""
HEARTBEATS_KEPT: Final = 3 * 24 * 3600.0
"""Of hosts that are gone, and that nobody could call lost."""
CONSUMERS_KEPT: Final = 8 * 24 * 3600.0
"""Of hosts that are gone: a day longer than a command for them is kept."""
STOP_DEADLINE: Final = 30.0
"""A service told to stop (SIGTERM) is gone after this long."""

# -- the link between relay and sandbox host (bytes) -------------------------------------------------------------
MAX_FRAME: Final = 512 * 1024
PAUSE_ABOVE: Final = 1024 * 1024
RESUME_BELOW: Final = 256 * 1024
DROP_ABOVE: Final = 16 * 1024 * 1024

# -- logs --------------------------------------------------------------------------------------------------------
MAX_LOG_CHUNK: Final = 64 * 1024
LOG_FLUSH_SECONDS: Final = 0.1
MAX_LOG_LINE: Final = 16 * 1024
"""Longer ones are cut, and go on in the next line."""
MAX_LINE_SHOWN: Final = 256 * 1024
"""Of a line, the parts that begin below this are in the log; then a note says how long it was."""

# -- recordings of terminals (bytes of masked output) ------------------------------------------------------------
MAX_CAST: Final = 16 * 1024 * 1024
"""Of one terminal."""
MAX_JOB_CASTS: Final = 64 * 1024 * 1024
"""Of all of a job."""
CAST_CHUNK: Final = 64 * 1024
CAST_FLUSH_SECONDS: Final = 1.0
MAX_CAST_WAITING: Final = 1024 * 1024
"""Output that is kept in memory while it cannot be stored; what is older is missing."""

# -- what a step leaves (bytes, counts) --------------------------------------------------------------------------
MAX_OUTPUT_FILE: Final = 64 * 1024
"""Of GITHUB_OUTPUT, as much is read."""
MAX_OUTPUTS: Final = 100
"""Of one step."""
MAX_JOB_OUTPUTS: Final = 16 * 1024
"""Names and values of all steps of a job: they are in each of its reports."""
MAX_SUMMARY: Final = 64 * 1024
"""Of one step's GITHUB_STEP_SUMMARY: it is one message in LOGS."""

TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
"""An actor or user name: one NATS subject token."""
ORG: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,38}\Z")
PROJECT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
POOL: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,38}\Z")
LABEL: Final = re.compile(r"[a-z0-9][a-z0-9._:/=+@-]{0,99}\Z")
"""Of a sandbox host. The letters of one in `runs-on` may be capitals."""
RUN: Final = re.compile(r"[a-z2-7]{12}\Z")
CONTEXT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
"""A named group of secrets: one token of a bucket's key."""
IMAGE: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._/:@-]*)?\Z")
MAX_IMAGE_CHARS: Final = 255
SECRET: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
JOB: Final = re.compile(r"[a-z2-7]{12}-[1-9][0-9]{0,2}\Z")
