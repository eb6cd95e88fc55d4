"""The rules for those who are in: connections, and the shells that belong to them or were left behind. Pure."""

from __future__ import annotations

from pitstop_common.messages import SshActive, SshClosed, SshConnected, SshUsed
from pitstop_sandbox import flow, notices
from pitstop_sandbox.events import Active, SessionClosed, SessionOpened, ShellEnded, ShellStarted, Used
from pitstop_sandbox.model import STARTED_AHEAD, Going, SessionState
from pitstop_sandbox.transitions import Status
from pitstop_sandbox.turn import Turn


def opened(t: Turn, event: SessionOpened) -> None:
    """Somebody came in."""
    state = t.state
    if event.session in state.visitors or state.status in (Status.FINISHING, Status.FINISHED):
        return
    t.set(sessions={**state.sessions, event.session: SessionState(user=event.user, since=t.now)},
          visitors={**state.visitors, event.session: event.user}, deadline=0)  # fmt: skip
    t.publish(SshConnected, session=event.session, user=event.user, fingerprint=event.fingerprint,
              client=event.client, via=event.via)  # fmt: skip


def closed(t: Turn, event: SessionClosed) -> None:
    """A connection ended."""
    if event.session not in t.state.sessions:
        return
    leave(t, event.session, event.reason)
    nobody = not t.state.sessions and t.state.status in (Status.PAUSED, Status.RETRYING, Status.WAITING)
    if nobody and event.reason not in ("expired", "stopped"):
        flow.say_paused(t)
        if event.reason == "exit" and t.state.detached:
            t.note([notices.shells_left(t.state)])


def leave(t: Turn, session: str, reason: str) -> None:
    """Whoever is in by this connection is not any more; their shells go on."""
    left = dict(t.state.sessions)
    gone = left.pop(session)
    t.set(sessions=left, detached={**t.state.detached, **dict.fromkeys(gone.shells, gone.user)})
    t.publish(SshClosed, session=session, user=gone.user, reason=reason, left=len(left),
              duration=round(max(0.0, t.now - gone.since), 3))  # fmt: skip


def shell_started(t: Turn, event: ShellStarted) -> None:
    """A shell is with a connection: a new one, or one that was left behind."""
    if event.session in t.state.sessions:
        _drop_shell(t, event.process)
        open_ = t.state.sessions[event.session]
        _set_shells(t, event.session, (*open_.shells, event.process))
        # In a shell that was started ahead this is what tells who steers the job (PITSTOP_SESSION).
        if event.process.startswith(STARTED_AHEAD):
            t.set(visitors={**t.state.visitors, event.process: open_.user})


def shell_ended(t: Turn, event: ShellEnded) -> None:
    """It ended; the last one resumes the job."""
    user = _drop_shell(t, event.process)
    if user is None or not event.by_itself:
        return
    if not t.state.shell_open:
        flow.go(t, Going("continue", user))


def _drop_shell(t: Turn, process: str) -> str | None:
    """Nobody has this shell any more. Whose it was; None: it is not known."""
    detached = dict(t.state.detached)
    user = detached.pop(process, None)
    t.set(detached=detached)
    for session, open_ in t.state.sessions.items():
        if process in open_.shells:
            user = open_.user
            _set_shells(t, session, tuple(shell for shell in open_.shells if shell != process))
    return user


def _set_shells(t: Turn, session: str, shells: tuple[str, ...]) -> None:
    open_ = t.state.sessions[session]
    t.set(sessions={**t.state.sessions, session: SessionState(user=open_.user, since=open_.since, shells=shells)})


def active(t: Turn, event: Active) -> None:
    """Somebody is at work."""
    if t.state.sessions:
        t.publish(SshActive, at=event.at)


def used(t: Turn, event: Used) -> None:
    """Somebody opens something. Of a job whose end was said nothing more is."""
    if not t.state.removed:
        t.publish(SshUsed, session=event.session, user=event.user, kind=event.kind, what=event.what,
                  count=event.count, named=event.named)  # fmt: skip
