"""Ids: short, lower-case, never secrets. A run's id follows from its request, so redelivery finds the same run."""

from __future__ import annotations

import base64
import hashlib

_RUN_CHARS = 12  # 60 bits


def run_id(org: str, request: str) -> str:
    """The run that request `request` of `org` starts. A publisher can compute it beforehand."""
    return _short("request", org, request)


def run_id_of_message(org: str, stream: str, sequence: int) -> str:
    """The run of a request that named no id: its place in the intake stream stands for it."""
    return _short("message", org, stream, str(sequence))


def job_id(run: str, number: int) -> str:
    """The job `number` (from 1) of a run. It is the user name of `ssh <job>@relay`."""
    return f"{run}-{number}"


def run_of_job(job: str) -> str:
    """The run that a job id belongs to."""
    return job.partition("-")[0]


def _short(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode()
        digest.update(len(raw).to_bytes(4, "big") + raw)
    return base64.b32encode(digest.digest()).decode().lower()[:_RUN_CHARS]
