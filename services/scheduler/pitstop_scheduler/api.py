"""The API as NATS service endpoints: `api.<org>.<actor>.<verb>` for people, `svc.<verb>` for the other services.

NATS permissions hold a person to their own org and name, so the subject says who asks. JSON in and out; an error is
a service error (its code as in HTTP) whose body is `{"error": code, "message": text}`.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from nats.micro.request import Request as MicroRequest
from nats.micro.service import Service

from pitstop_common import ids, subjects
from pitstop_common import messages as m
from pitstop_common.api import VERBS, RerunRequest
from pitstop_common.bus import Bus
from pitstop_common.errors import NotFound, PitstopError, Unavailable
from pitstop_common.permissions import PUBLISHER
from pitstop_common.pull import rfc3339
from pitstop_common.telemetry import trace_of
from pitstop_scheduler.admitting import Admitting
from pitstop_scheduler.api_audit import Audit
from pitstop_scheduler.api_holds import Holds
from pitstop_scheduler.api_hosts import Hosts
from pitstop_scheduler.api_keys import Keys
from pitstop_scheduler.api_letters import Letters
from pitstop_scheduler.api_logs import Output
from pitstop_scheduler.api_orgs import Orgs
from pitstop_scheduler.api_passes import Tokens
from pitstop_scheduler.api_pauses import Pauses
from pitstop_scheduler.api_pools import Pools
from pitstop_scheduler.api_recordings import Recorded
from pitstop_scheduler.api_secrets import Secrets
from pitstop_scheduler.api_sessions import Sessions
from pitstop_scheduler.calls import (
    DECIDED_WITHIN,
    Caller,
    Handler,
    Teller,
    Waiting,
    answerable,
    body_of,
    checked,
    text_of,
    to_inboxes,
)
from pitstop_scheduler.contexts import Contexts
from pitstop_scheduler.handing import Handing
from pitstop_scheduler.intake import Intake, Refusal, new_request_id
from pitstop_scheduler.links import Links
from pitstop_scheduler.logs import Logs
from pitstop_scheduler.metrics import Metrics
from pitstop_scheduler.people import People
from pitstop_scheduler.policy import Policy
from pitstop_scheduler.reading import Reading
from pitstop_scheduler.request import BadRequest, read_request
from pitstop_scheduler.who import Who

log = logging.getLogger(__name__)

_CODES = {"not_found": "404", "denied": "403", "unavailable": "503", "ssh_disabled": "403", "ssh_no_key": "403",
          "ssh_role": "403", "secrets_refused": "403", "ssh_context": "403", "secrets_unavailable": "503"}  # fmt: skip


class Api:
    """Every verb. Shared by all schedulers (one queue group)."""

    def __init__(self, bus: Bus, logs: Logs, intake: Intake, people: People, reading: Reading, policy: Policy,
                 contexts: Contexts, tokens: Tokens, admitting: Admitting, links: Links,
                 metrics: Metrics) -> None:  # fmt: skip
        self._bus, self._logs, self._intake, self._people, self._reading = bus, logs, intake, people, reading
        self._policy = policy
        self._teller = Teller(bus, logs)
        self._sessions = Sessions(logs, self._teller, reading)
        self._tokens = tokens
        self._waiting = Waiting()
        self._orgs = Orgs(self._teller, reading, policy)
        self._pools = Pools(logs, self._teller, reading)
        self._secrets = Secrets(contexts, policy)
        self._handing = Handing(logs, reading, contexts, metrics)
        self._holds = Holds(logs, self._teller, people, reading, policy)
        self._pauses = Pauses(logs, self._teller, people, reading, policy, contexts)
        self._admitting = admitting
        self._keys = Keys(people, links)
        self._who_is = Who(logs, people, reading, admitting)

    async def serve(self, service: Service) -> None:
        """Register the endpoints."""
        letters, recorded = Letters(self._bus), Recorded(self._bus)
        hosts = Hosts(self._bus, self._logs, self._teller, self._reading, self._policy)
        verbs = {
            "run": self._run, "rerun": self._rerun, "status": self._status, "ls": self._ls, "cancel": self._cancel,
            "keys-add": self._keys.add, "keys-rm": self._keys.remove, "keys-unlink": self._keys.unlink,
            "extend": self._sessions.extend, "org-show": self._orgs.show, "org-apply": self._orgs.apply,
            "pools-apply": self._pools.apply, "pause": self._pauses.ask,
            "hosts-ls": hosts.ls, "hosts-drain": hosts.drain,
            "secrets-set": self._secrets.set, "secrets-ls": self._secrets.ls, "secrets-rm": self._secrets.rm,
            "secrets-restrict": self._secrets.restrict, "login": self._tokens.login,
            "token-create": self._tokens.create, "token-ls": self._tokens.list, "token-revoke": self._tokens.revoke,
            "hold": self._holds.set, "hold-ls": self._holds.list, "hold-rm": self._holds.remove,
            "audit": Audit(self._bus).read,
            "recordings": recorded.list, "recording": recorded.read,
            "dlq-ls": letters.list, "dlq-show": letters.show, "dlq-replay": letters.replay,
        }  # fmt: skip
        for verb, handler in verbs.items():
            await service.add_endpoint(
                name=verb, subject=subjects.api("*", "*", verb), handler=self._answer(verb, handler)
            )
        slow = {"logs": Output(self._bus).read, "keys-ls": self._keys.list, "keys-link": self._keys.link}
        for verb, handler in slow.items():  # they wait: for lines, for servers elsewhere
            answer = self._waiting.beside(self._answer(verb, handler))
            await service.add_endpoint(name=verb, subject=subjects.api("*", "*", verb), handler=answer)
        others = {
            "access": self._waiting.beside(self._access), "who": self._who, "job": self._job,
            "secrets": self._handing.answer,
        }  # fmt: skip
        for verb, answer in others.items():
            await service.add_endpoint(name=verb, subject=subjects.service(verb), handler=to_inboxes(answer))

    async def close(self) -> None:
        """Answer nobody any more."""
        await self._waiting.close()

    def _answer(self, verb: str, handler: Handler) -> Callable[[MicroRequest], Awaitable[None]]:
        async def answer(request: MicroRequest) -> None:
            _, org, actor, _ = request.subject.split(".")
            caller = Caller(org, actor)
            if not answerable(request):
                return
            try:
                await self._reading.fresh(org)
                await self._admit(verb, caller, request)
                await request.respond(msgspec.json.encode(await handler(caller, request)))
            except (BadRequest, Refusal) as error:
                code = "400" if isinstance(error, BadRequest) else _CODES[error.code]
                body = {"error": error.code, "message": str(error), "errors": error.faults}
                await request.respond_error(code, "the request cannot run", msgspec.json.encode(body))
            except PitstopError as error:
                body = {"error": error.code, "message": str(error), "errors": getattr(error, "faults", ())}
                await request.respond_error(
                    _CODES.get(error.code, "400"), str(error).splitlines()[0], msgspec.json.encode(body)
                )
            except Exception:
                log.exception("request failed: %s", request.subject)
                body = {"error": "internal", "message": "the scheduler failed on this request; its log says why"}
                await request.respond_error("500", "internal", msgspec.json.encode(body))

        return answer

    async def _admit(self, verb: str, caller: Caller, request: MicroRequest) -> None:
        """What the table of verbs says. Raises Denied; Wrong and NotFound of a run that cannot be told."""
        if VERBS[verb].on == "run" and body_of(request).get("run"):
            self._policy.need(caller, verb, *await self._reading.whose(caller.org, text_of(request, "run")))
        elif VERBS[verb].on in {"member", "org"}:  # a handler itself refuses a body that names no run or project
            self._policy.need(caller, verb)
        elif VERBS[verb].on == "deployment":
            self._policy.need_deployment(caller, verb, "what all orgs share")

    # -- runs ----------------------------------------------------------------------------------------------------------

    async def _run(self, caller: Caller, asked: MicroRequest) -> dict[str, Any]:
        return await self._submit(caller, asked, asked.data)

    async def _rerun(self, caller: Caller, asked: MicroRequest) -> dict[str, Any]:
        """As a request whose `rerun_of` is that run."""
        id = text_of(asked, "run")
        wanted = checked(asked, RerunRequest)
        origin = await self._reading.spec(caller.org, ids.run_of_job(id))
        body = {name: value for name, value in body_of(asked).items() if name in {"id", "failed", "ssh", "retry"}}
        body |= {"org": caller.org, "project": origin.project, "rerun_of": origin.run,
                 "jobs": [*wanted.jobs, *([id] if "-" in id else [])]}  # fmt: skip
        return await self._submit(caller, asked, msgspec.json.encode(body))

    async def _submit(self, caller: Caller, asked: MicroRequest, body: bytes) -> dict[str, Any]:
        request = read_request(body, headers=asked.headers or {}, org_of_subject=caller.org)
        if caller.actor != PUBLISHER:  # a person is who NATS says; a publisher may name its people
            if request.actor and request.actor != caller.actor:
                fault = m.Fault(pointer="/actor", message=f"you are {caller.actor}: leave it out, or name yourself")
                raise BadRequest((fault,), caller.org, request.id)
            request = msgspec.structs.replace(request, actor=caller.actor, vouched=True)
        self._policy.need(caller, "run", request.project)
        if not request.id:
            request = msgspec.structs.replace(request, id=new_request_id())
        run = ids.run_id(request.org, request.id)
        source = f"api:{uuid.uuid4().hex}"
        taken = await self._intake.accept(request, run, source, trace_of(asked.headers), time.time())
        await self._logs.of(request.org).wait_for(taken.sequence, DECIDED_WITHIN)
        spec = await self._reading.spec(request.org, run)
        status = await self._reading.status(request.org, run)
        return {
            "run": run, "request": request.id, "duplicate": self._logs.state(request.org).source_of(run) != source,
            "queue_position": min((job.position for job in status.jobs if job.position), default=0),
            "jobs": {job.key: job.job for job in spec.jobs}, "rerun_of": spec.rerun_of, "notes": spec.notes,
        }  # fmt: skip

    async def _status(self, caller: Caller, asked: MicroRequest) -> Any:
        return await self._reading.status(caller.org, text_of(asked, "run"))

    async def _ls(self, caller: Caller, asked: MicroRequest) -> Any:
        body = body_of(asked)

        def sees(project: str) -> bool:
            return self._policy.may_read(caller, project)

        if body.get("slots"):
            return await self._reading.slots(caller.org, sees)
        found = await self._reading.list(caller.org, everything=bool(body.get("all")), sees=sees)
        if body.get("ssh"):
            jobs: Any = found["jobs"]
            found["jobs"] = [job for job in jobs if job.use == "debug" or job.sessions]
        return found

    async def _cancel(self, caller: Caller, asked: MicroRequest) -> Any:
        id = text_of(asked, "run")
        status = await self._reading.status(caller.org, id)
        body = body_of(asked)
        job = str(body.get("job") or (id if "-" in id else ""))
        if job and all(job not in {one.job.job, one.job.key} for one in status.jobs):
            raise NotFound(f"run {status.run.run} has no job {job}")
        job = next((one.job.job for one in status.jobs if job in {one.job.job, one.job.key}), "")
        if status.run.status == "finished":
            return {"ok": True, "already": status.run.result}
        fact = m.RunCancel(
            id=f"cancel.{uuid.uuid4().hex}", time=rfc3339(time.time()), org=caller.org, run=status.run.run, job=job,
            project=status.run.project, request=status.run.request, by=caller.actor,
            reason=str(body.get("reason") or "cancelled")[:200],
        )  # fmt: skip
        await self._teller.tell(fact, status.run.trace)
        return {"ok": True}

    # -- for the other services --------------------------------------------------------------------------------------

    async def _access(self, request: MicroRequest) -> None:
        try:
            asked = msgspec.json.decode(request.data, type=m.AccessRequest)
            await request.respond(m.encode(await self._admitting.access(asked)))
        except (msgspec.MsgspecError, Unavailable) as error:
            await request.respond_error("503", str(error))

    async def _who(self, request: MicroRequest) -> None:
        try:
            asked = msgspec.json.decode(request.data, type=m.WhoRequest)
            await request.respond(m.encode(await self._who_is.whose(asked)))
        except (msgspec.MsgspecError, Unavailable) as error:
            await request.respond_error("503", str(error))

    async def _job(self, request: MicroRequest) -> None:
        try:
            id = text_of(request, "job")
            await self._reading.current(id)
            await request.respond(m.encode(await self._reading.job(None, id)))
        except NotFound as error:
            await request.respond_error("404", str(error))
        except PitstopError as error:
            await request.respond_error("503", str(error))
