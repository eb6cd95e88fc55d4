"""The API as NATS service endpoints: `api.<org>.<actor>.<verb>` for people, `svc.<verb>` for the other services.

NATS permissions hold a person to their own org and name, so the subject says who asks. JSON in and out; an error is
a service error (its code as in HTTP) whose body is `{"error": code, "message": text}`.
"""

from __future__ import annotations

import base64
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from nats.js.errors import APIError
from nats.micro.request import Request as MicroRequest
from nats.micro.service import Service

from pitstop_common import ids, subjects
from pitstop_common import messages as m
from pitstop_common.api import VERBS, RerunRequest
from pitstop_common.bus import Bus
from pitstop_common.errors import NotFound, PitstopError, Unavailable
from pitstop_common.permissions import PUBLISHER, is_inbox
from pitstop_common.public_keys import parse_public_key
from pitstop_common.pull import read_all, rfc3339
from pitstop_common.streams import DLQ
from pitstop_common.telemetry import trace_of
from pitstop_scheduler.api_holds import Holds
from pitstop_scheduler.api_orgs import Orgs
from pitstop_scheduler.api_secrets import Secrets
from pitstop_scheduler.api_sessions import Sessions
from pitstop_scheduler.calls import DECIDED_WITHIN, Caller, Handler, Teller, Wrong, body_of, checked, text_of
from pitstop_scheduler.contexts import Contexts
from pitstop_scheduler.handing import Handing
from pitstop_scheduler.intake import Intake, Refusal, new_request_id
from pitstop_scheduler.logs import Logs
from pitstop_scheduler.metrics import Metrics
from pitstop_scheduler.people import People
from pitstop_scheduler.policy import Policy
from pitstop_scheduler.reading import Reading
from pitstop_scheduler.request import BadRequest, read_request
from pitstop_scheduler.who import Who

log = logging.getLogger(__name__)

_CODES = {"not_found": "404", "denied": "403", "unavailable": "503", "ssh_disabled": "403", "ssh_no_key": "403",
          "ssh_role": "403", "secrets_refused": "403", "secrets_unavailable": "503"}  # fmt: skip


class Api:
    """Every verb. Shared by all schedulers (one queue group)."""

    def __init__(self, bus: Bus, logs: Logs, intake: Intake, people: People, reading: Reading, policy: Policy,
                 contexts: Contexts, metrics: Metrics) -> None:  # fmt: skip
        self._bus, self._logs, self._intake, self._people, self._reading = bus, logs, intake, people, reading
        self._policy = policy
        self._teller = Teller(bus, logs)
        self._sessions = Sessions(logs, self._teller, reading)
        self._orgs = Orgs(self._teller, reading, policy)
        self._secrets = Secrets(contexts, policy)
        self._handing = Handing(logs, reading, contexts, metrics)
        self._holds = Holds(logs, self._teller, people, reading, policy)
        self._who_is = Who(logs, people, reading)

    async def serve(self, service: Service) -> None:
        """Register the endpoints."""
        verbs = {
            "run": self._run, "rerun": self._rerun, "status": self._status, "ls": self._ls, "cancel": self._cancel,
            "keys-add": self._keys_add, "keys-ls": self._keys_ls, "keys-rm": self._keys_rm,
            "extend": self._sessions.extend, "org-show": self._orgs.show, "org-apply": self._orgs.apply,
            "secrets-set": self._secrets.set, "secrets-ls": self._secrets.ls, "secrets-rm": self._secrets.rm,
            "secrets-restrict": self._secrets.restrict,
            "hold": self._holds.set, "hold-ls": self._holds.list, "hold-rm": self._holds.remove,
            "dlq-ls": self._dlq_ls, "dlq-show": self._dlq_show, "dlq-replay": self._dlq_replay,
        }  # fmt: skip
        for verb, handler in verbs.items():
            await service.add_endpoint(
                name=verb, subject=subjects.api("*", "*", verb), handler=self._answer(verb, handler)
            )
        await service.add_endpoint(name="access", subject=subjects.service("access"), handler=self._access)
        await service.add_endpoint(name="who", subject=subjects.service("who"), handler=self._who)
        await service.add_endpoint(name="job", subject=subjects.service("job"), handler=self._job)
        secrets = subjects.service("secrets")
        await service.add_endpoint(name="secrets", subject=secrets, handler=self._handing.answer)

    def _answer(self, verb: str, handler: Handler) -> Callable[[MicroRequest], Awaitable[None]]:
        async def answer(request: MicroRequest) -> None:
            _, org, actor, _ = request.subject.split(".")
            caller = Caller(org, actor)
            if not is_inbox(request._msg.reply):
                return  # an answer anywhere else would be published with the scheduler's rights
            try:
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

    # -- keys ----------------------------------------------------------------------------------------------------------

    async def _keys_add(self, caller: Caller, asked: MicroRequest) -> Any:
        key = parse_public_key(text_of(asked, "key"))
        return await self._people.add(caller.org, caller.actor, key, rfc3339(time.time()))

    async def _keys_ls(self, caller: Caller, _: MicroRequest) -> Any:
        return {"keys": await self._people.keys(caller.org, caller.actor)}

    async def _keys_rm(self, caller: Caller, asked: MicroRequest) -> Any:
        await self._people.remove(caller.org, caller.actor, text_of(asked, "fingerprint"))
        return {"ok": True}

    # -- dead letters --------------------------------------------------------------------------------------------------

    async def _dlq_ls(self, caller: Caller, _: MicroRequest) -> Any:
        found = []
        for org in (caller.org, subjects.NOBODY):
            found += [_letter(item.seq, item.subject, item.headers, item.stored, item.data)
                      for item in await read_all(self._bus, DLQ, f"dlq.*.{org}")]  # fmt: skip
        return {"letters": sorted(found, key=lambda letter: letter["seq"])}

    async def _dlq_show(self, caller: Caller, asked: MicroRequest) -> Any:
        letter, data = await self._letter(caller, asked)
        return {**letter, "body": data.decode(errors="replace")}

    async def _dlq_replay(self, caller: Caller, asked: MicroRequest) -> Any:
        letter, data = await self._letter(caller, asked)
        subject = letter["subject"]
        if not subject.startswith(subjects.RUN_REQUESTED):
            raise Wrong(f"only requests can be replayed; this was published on {subject}")
        ack = await self._bus.store(subject, data, {"Nats-Msg-Id": f"replay.{uuid.uuid4().hex}"})
        return {"ok": True, "seq": ack.seq}

    async def _letter(self, caller: Caller, asked: MicroRequest) -> tuple[dict[str, Any], bytes]:
        sequence = body_of(asked).get("seq")
        if not isinstance(sequence, int):
            raise Wrong("`seq` must be the number that `pitstop dlq ls` shows")
        try:
            reply = await self._bus.api(f"STREAM.MSG.GET.{DLQ}", {"seq": sequence})
        except APIError as error:
            raise NotFound(f"there is no dead letter {sequence}; `pitstop dlq ls` shows those there are") from error
        message = reply["message"]
        if message["subject"].split(".")[2] not in {caller.org, subjects.NOBODY}:
            raise NotFound(f"there is no dead letter {sequence} in org {caller.org}")
        data = base64.b64decode(message.get("data", ""))
        found = _parse_headers(base64.b64decode(message.get("hdrs", "")))
        return _letter(sequence, message["subject"], found, 0.0, data), data

    # -- for the other services --------------------------------------------------------------------------------------

    async def _access(self, request: MicroRequest) -> None:
        try:
            asked = msgspec.json.decode(request.data, type=m.AccessRequest)
            await request.respond(m.encode(await self._reading.access(asked)))
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


def _letter(sequence: int, subject: str, about: dict[str, str], stored: float, data: bytes) -> dict[str, Any]:
    return {
        "seq": sequence, "stream": about.get("Pitstop-Stream", ""), "subject": about.get("Pitstop-Subject", subject),
        "reason": about.get("Pitstop-Reason", ""), "time": rfc3339(stored) if stored else "", "bytes": len(data),
        "org": subject.split(".")[2],
    }  # fmt: skip


def _parse_headers(raw: bytes) -> dict[str, str]:
    pairs = (line.partition(b":") for line in raw.split(b"\r\n")[1:] if line)
    return {name.decode(): value.strip().decode() for name, _, value in pairs}
