"""Who may pass, and what the others are told. Pure.

Nothing here is said before a good signature or token, so a text may name the job and the owner of a key that signed.
The texts of what comes before (SHA-1, no good token) are the same whoever asks for whatever.
"""

from __future__ import annotations

from typing import Final

from pitstop_common.credentials import Entered, Unfit, by_certificate, by_key, by_token
from pitstop_common.ids import run_of_job
from pitstop_common.messages import AccessReply
from pitstop_relay.model import Admit, Attempt, Code, Denial, Verdict

_OVER: Final = frozenset({"stopping", "finished"})


def decide(attempt: Attempt, access: AccessReply, now: float) -> Verdict:
    """Let a signed login in, or say why not. `now`: seconds since the epoch, by this relay's clock."""
    found = identify(attempt, access, now)
    if isinstance(found, Unfit) and found.code == "bad_token":
        return no_token()
    if not access.found:
        return _deny("unknown_job", f"there is no job {attempt.job!r}.", "List yours: pitstop ls")
    if access.status in _OVER:
        return ended(attempt.job)
    if isinstance(found, Unfit):
        return _unfit(attempt, access, found)
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
    return Admit(user=found.user, host=access.host)


def identify(attempt: Attempt, access: AccessReply, now: float) -> Entered | Unfit:
    """Who it is that knocks, if the run and its org know."""
    if attempt.password:
        return by_token(attempt.password, access)
    if attempt.certificate is not None:
        return by_certificate(attempt.certificate, access, now, attempt.client, attempt.signature)
    return by_key(attempt.key, access)


def _unfit(attempt: Attempt, access: AccessReply, found: Unfit) -> Denial:
    run = run_of_job(attempt.job)
    if found.code == "not_your_run":
        what = "access token" if attempt.password else "key"
        return _deny(
            "not_your_run",
            f"the {what} {attempt.fingerprint} is {found.user}'s; the job {attempt.job} is {access.actor}'s.",
            f"Ask {access.actor} to name {found.user} in ssh.users when the run is started",
        )
    if found.code == "key_unknown":
        late = f"\n  {_LATE}" if access.linked else ""
        return _deny(
            "key_unknown",
            f"the key {attempt.fingerprint} is not registered.{late}",
            "Add it: pitstop keys add FILE.pub   (the keys your ssh offers: ssh-add -l)",
        )
    if found.code.startswith("cert_"):
        return _deny(found.code, f"{found.text}.\n  Its key is {attempt.fingerprint}.", _NEXT.get(found.code, _SIGNER))
    if found.code.startswith("token_"):
        return _deny(found.code, f"{found.text}.", f"Make another: pitstop token create --job {attempt.job}")
    return _deny(found.code, f"{found.text}.", f"The run: pitstop status {run}")


_SIGNER: Final = "Ask who signs your certificates for another   (what it says: ssh-keygen -L -f FILE-cert.pub)"
_LATE: Final = (
    "A server of keys of people of this run does not answer now: pitstop keys ls says which; or try again soon"
)
_NEXT: Final = {
    "cert_authority": "An admin of the org adds the authority: `user_ca` under [ssh] in the org's file, pitstop apply",
    "cert_principal": "Its principals are user names, or stand under [ssh.principals] in the org's file; whoever "
    "starts the run names others: --ssh-user USER",
    "cert_address": "Log in from a machine it is good for   (what it says: ssh-keygen -L -f FILE-cert.pub)",
}


def forged(attempt: Attempt, fault: str) -> Denial:
    """A certificate that no authority made so. Nobody was asked about it, or about the job."""
    return _deny(
        "cert_signature", f"the certificate of the key {attempt.fingerprint} cannot be used: {fault}.", _SIGNER
    )


def no_token() -> Denial:
    """A password that is no token. The same text for everybody: it tells nothing about jobs, users or tokens."""
    return _deny("bad_token", "this password is no access token.", "Make one: pitstop token create --job JOB")


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
