"""Who may pass, and what the others are told. Pure.

Nothing here is said before a good signature, so a text may name the job and the owner of a key that signed.
"""

from __future__ import annotations

from typing import Final

from pitstop_common.ids import run_of_job
from pitstop_common.messages import AccessReply
from pitstop_relay.model import Admit, Attempt, Code, Denial, Verdict

_OVER: Final = frozenset({"stopping", "finished"})


def decide(attempt: Attempt, access: AccessReply) -> Verdict:
    """Let a signed login in, or say why not."""
    if not access.found:
        return _deny("unknown_job", f"there is no job {attempt.job!r}.", "List yours: pitstop ls")
    if access.status in _OVER:
        return ended(attempt.job)
    user = next((allowed.user for allowed in access.allowed if allowed.key == attempt.key), "")
    if not user and access.barrier:
        return _deny(access.barrier, f"{access.barrier_text}.", f"The run: pitstop status {run_of_job(attempt.job)}")
    if not user:
        return _stranger(attempt, access)
    if not access.offers:
        return _deny(
            "no_ssh",
            f"the job {attempt.job} was started without ssh.",
            "Start it with ssh: pitstop run --ssh-on-failure (or --ssh-after-step N, --ssh-at-end, --ssh)",
        )
    if access.status == "queued":
        return _deny(
            "queued",
            f"the job {attempt.job} waits in the queue; it has no sandbox yet.",
            f"Wait for it: pitstop ssh {attempt.job}",
        )
    if not access.host:
        return _deny(
            "starting",
            f"the sandbox of job {attempt.job} is being made.",
            f"Try again in a moment, or wait for it: pitstop ssh {attempt.job}",
        )
    return Admit(user=user, host=access.host)


def _stranger(attempt: Attempt, access: AccessReply) -> Denial:
    if access.owner:
        return _deny(
            "not_your_run",
            f"the key {attempt.fingerprint} is {access.owner}'s; the job {attempt.job} is {access.actor}'s.",
            f"Ask {access.actor} to name {access.owner} in ssh.users when the run is started",
        )
    return _deny(
        "key_unknown",
        f"the key {attempt.fingerprint} is not registered.",
        "Add it: pitstop keys add FILE.pub   (the keys your ssh offers: ssh-add -l)",
    )


def no_job(attempt: Attempt) -> Denial:
    """The user name is no job's, and nobody registered the key."""
    return _deny(
        "unknown_job",
        f"{attempt.job!r} is no job, and the key {attempt.fingerprint} is not registered.",
        "The user name is a job's id (List yours: pitstop ls). Add the key: pitstop keys add FILE.pub",
    )


def ended(job: str) -> Denial:
    """The job is over."""
    return _deny(
        "ended",
        f"the job {job} has ended, and its session with it.",
        f"What became of it: pitstop status {run_of_job(job)}   Again: pitstop rerun {job} --ssh-on-failure",
    )


def sha1() -> Denial:
    """The client can only sign with SHA-1. Says nothing of the job: no signature was looked at."""
    return _deny(
        "sha1",
        "your ssh signs with ssh-rsa (SHA-1), which is not accepted.",
        "Use a newer client, or another key: ssh-keygen -t ed25519, then pitstop keys add",
    )


def host_unreachable(job: str, host: str) -> Denial:
    """The job's host did not open a link in time."""
    return _deny(
        "host_unreachable",
        f"the host {host} of job {job} does not answer.",
        f"Try again in a moment; if it stays so: pitstop status {run_of_job(job)}, or pitstop doctor",
    )


def scheduler_unreachable() -> Denial:
    """Nobody answered the question who may enter."""
    return _deny(
        "scheduler_unreachable",
        "the scheduler does not answer, so nobody can be let in.",
        "Try again in a moment; if it stays so: pitstop doctor",
    )


def draining() -> Denial:
    """This relay is about to end."""
    return _deny("draining", "this relay is being stopped.", "Connect again in a moment")


def again(attempt: Attempt) -> str:
    """What is said of the second and later unknown key of one connection: shorter."""
    return f"pitstop: the key {attempt.fingerprint} is not registered either.\n"


def found_at_last(attempt: Attempt, admit: Admit) -> str:
    """Explains the refusals before it, to somebody whose client tried other keys first."""
    return (
        f"pitstop: let in as {admit.user} by the key {attempt.fingerprint}.\n"
        "  To offer this one only: ssh -i FILE -o IdentitiesOnly=yes\n"
    )


def _deny(code: Code, why: str, next_step: str) -> Denial:
    return Denial(code=code, text=f"pitstop: {why}\n  {next_step}\n")
