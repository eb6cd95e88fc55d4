"""Secrets over the API: set, listed by name, removed, restricted. No answer and no error ever holds a value."""

from __future__ import annotations

import logging
import time

from msgspec import UNSET
from nats.micro.request import Request as MicroRequest

from pitstop_common.api import Done
from pitstop_common.api_secrets import (
    ContextList,
    ContextRestrict,
    ContextView,
    SecretRemove,
    SecretSet,
    SecretsList,
    SecretView,
)
from pitstop_common.errors import Denied, NotFound
from pitstop_common.limits import MAX_SECRET_BYTES
from pitstop_common.messages import Fault
from pitstop_common.permissions import PUBLISHER
from pitstop_common.pull import rfc3339
from pitstop_scheduler.calls import Caller, Wrong, checked
from pitstop_scheduler.context_rules import Context, bad_name
from pitstop_scheduler.contexts import Changer, Contexts
from pitstop_scheduler.policy import Policy

log = logging.getLogger(__name__)


class Secrets:
    """Verbs about the contexts of the caller's org."""

    def __init__(self, contexts: Contexts, policy: Policy) -> None:
        self._contexts, self._policy = contexts, policy

    async def set(self, caller: Caller, asked: MicroRequest) -> ContextView:
        """Raises Wrong, Denied, TooMany, NoKey, Unavailable."""
        wanted = checked(asked, SecretSet)
        by = self._person(caller)
        if why := bad_name(wanted.name):
            raise Wrong(f"`name` {why}", (Fault(pointer="/name", message=why),))
        if why := _bad_value(wanted.value):
            raise Wrong(f"`value` {why}", (Fault(pointer="/value", message=why),))
        made = await self._contexts.set(caller.org, wanted.context, wanted.name, wanted.value, by, rfc3339(time.time()))
        log.info("org %s: %s set secret %s/%s", caller.org, caller.actor, wanted.context, wanted.name)
        return _view(wanted.context, made)

    async def ls(self, caller: Caller, asked: MicroRequest) -> ContextList:
        """Raises Wrong, NotFound, Unavailable."""
        wanted = checked(asked, SecretsList).context
        found = await self._contexts.all(caller.org)
        if wanted is not None:
            found = {name: context for name, context in found.items() if name == wanted}
            if not found:
                raise NotFound(f"there is no context {wanted} in org {caller.org}; `pitstop secrets ls` shows them all")
        return ContextList(
            contexts=tuple(_view(name, context) for name, context in found.items()),
            unusable=self._contexts.unusable(), old=sum(map(self._contexts.old, found.values())),
        )  # fmt: skip

    async def rm(self, caller: Caller, asked: MicroRequest) -> Done:
        """Raises Wrong, NotFound, Denied, Unavailable."""
        wanted = checked(asked, SecretRemove)
        by = self._person(caller)
        await self._contexts.remove(caller.org, wanted.context, wanted.name, by, rfc3339(time.time()))
        what = f"{wanted.context}/{wanted.name}" if wanted.name else f"context {wanted.context}"
        log.info("org %s: %s removed %s", caller.org, caller.actor, what)
        return Done(ok=True)

    async def restrict(self, caller: Caller, asked: MicroRequest) -> ContextView:
        """Raises Wrong, Denied, TooMany, Unavailable."""
        wanted = checked(asked, ContextRestrict)
        by = self._person(caller)
        fields: dict[str, object] = {}
        for name, names in (("members", wanted.members), ("projects", wanted.projects)):
            if names is not UNSET:
                fields[name] = None if names is None else tuple(dict.fromkeys(names))
        if wanted.publisher is not UNSET:
            fields["publisher"] = wanted.publisher
        made = await self._contexts.restrict(caller.org, wanted.context, by, rfc3339(time.time()), **fields)
        log.info("org %s: %s restricted context %s: %s", caller.org, caller.actor, wanted.context, fields)
        return _view(wanted.context, made)

    def _person(self, caller: Caller) -> Changer:
        if caller.actor == PUBLISHER:
            raise Denied("a machine credential changes no secrets; a person does: `pitstop secrets`")
        return Changer(caller.actor, self._policy.role(caller.org, caller.actor))


def _bad_value(value: str) -> str:
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "is not Unicode text; secrets are text (base64 for anything else)"
    return f"has {size} bytes; at most {MAX_SECRET_BYTES} are accepted" if size > MAX_SECRET_BYTES else ""


def _view(name: str, context: Context) -> ContextView:
    return ContextView(
        context=name, members=context.members, projects=context.projects, publisher=context.publisher,
        time=context.time, by=context.by,
        secrets=tuple(SecretView(name=key, time=one.time, by=one.by) for key, one in sorted(context.secrets.items())),
    )  # fmt: skip
