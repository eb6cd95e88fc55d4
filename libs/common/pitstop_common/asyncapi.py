"""The AsyncAPI 3.0 document: which message travels on which subject, and who says it. Made from the types."""

from __future__ import annotations

import inspect
import re
from typing import Any, Final, get_args

import msgspec

from pitstop_common import api, messages, subjects
from pitstop_common.requests import RunRequest

_Struct = type[msgspec.Struct]

_ABOUT: Final = """\
Pitstop runs CI jobs in sandboxes and lets the person who started a job step into it over SSH.

**Asking for a run.** Publish plain JSON to `run.requested` (any trusted system; the org is in the body), or to
`run.requested.<org>` (systems that NATS permissions hold to one org; body and subject must agree). No header is needed.
Used when there, in any letter case: `Nats-Msg-Id` and `ce-id` with `ce-source` (the request's id when the body has
none), `traceparent`. The same id again starts nothing and is told as `run.duplicate`; a run's id follows from org and
request id. What cannot run is told as `run.rejected`, with a JSON pointer for each faulty field, and is kept in the
stream DLQ. `api.<org>.<actor>.run` takes the same body and answers.

**Listening.** A message about a run is stored on `<noun>.<verb>.<org>.<run>` (`_` where there is none) and heard again
on its bare `<noun>.<verb>`. The bare name is the stored, deduplicated feed, by core NATS: who must miss nothing reads
the streams. Facts (of hosts, relays, the janitor, intake) are in IN, under `in.<partition>.<noun>.<verb>.<org>.<run>`;
events (of the scheduler) in EVENTS; log lines in LOGS. The stored feed is the truth: what is heard directly on
`<noun>.<verb>.<org>.<run>` may repeat, and may be a message that the store refused.

**Delivery** is at least once. `id` is deterministic and is also the header `Nats-Msg-Id`, so the server drops a
repeat within its window of 10 minutes; after that, drop by `id`. Each message carries `traceparent`; `cause` names the
message that brought it about. Unknown fields are to be ignored: new ones are no new version.

**Times** of day are RFC 3339 in UTC; durations are seconds.
"""

_PARAMETERS: Final = {
    "org": "The organization; `_` where there is none.",
    "run": "The run's id; `_` where there is none.",
    "job": "The job's id, `<run>-<n>`.",
    "recording": "A recorded terminal of the job.",
    "actor": "The user who asks. NATS permissions vouch for it.",
    "host": "A sandbox host.",
    "pool": "A set of sandbox hosts.",
}
_HEADERS: Final = {
    "type": "object",
    "properties": {
        "Nats-Msg-Id": {"type": "string", "description": "The message's id; the server drops repeats."},
        "traceparent": {"type": "string", "description": "W3C trace context."},
    },
}


def document() -> dict[str, Any]:
    """The whole document, as JSON values."""
    made = _Document()
    _requests(made)
    for union, stream in ((messages.Fact, "IN"), (messages.Event, "EVENTS")):
        for member in get_args(union):
            _told(made, member, stream)
    _logs(made)
    _api(made)
    _internal(made)
    return made.whole()


class _Document:
    """Grows channel by channel. Schemas are made last, from all types used."""

    def __init__(self) -> None:
        self._channels: dict[str, Any] = {}
        self._operations: dict[str, Any] = {}
        self._types: dict[str, _Struct] = {}

    def channel(self, name: str, address: str | None, types: list[_Struct], about: str) -> None:
        self._types |= {_name(type_): type_ for type_ in types}
        channel: dict[str, Any] = {
            "address": address, "description": about,
            "messages": {_name(type_): {"$ref": f"#/components/messages/{_name(type_)}"} for type_ in types},
        }  # fmt: skip
        found = re.findall(r"\{(\w+)\}", address or "")
        if found:
            channel["parameters"] = {part: {"description": _PARAMETERS[part]} for part in found}
        self._channels[name] = channel

    def operation(self, name: str, action: str, channel: str, types: list[_Struct], about: str, tag: str) -> None:
        self._operations[name] = {
            "action": action, "channel": {"$ref": f"#/channels/{channel}"}, "summary": about,
            "messages": [_in_channel(channel, type_) for type_ in types], "tags": [{"name": tag}],
        }  # fmt: skip

    def reply(self, operation: str, channel: str, types: list[_Struct]) -> None:
        self._operations[operation]["reply"] = {
            "address": {"location": "$message.header#/reply", "description": "The NATS reply subject."},
            "channel": {"$ref": f"#/channels/{channel}"},
            "messages": [_in_channel(channel, type_) for type_ in types],
        }  # fmt: skip

    def whole(self) -> dict[str, Any]:
        types = list(self._types.values())
        _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
        return {
            "asyncapi": "3.0.0",
            "info": {"title": "Pitstop", "version": "1.0.0", "description": _ABOUT, "license": {"name": "Apache-2.0"}},
            "defaultContentType": "application/json",
            "channels": self._channels,
            "operations": self._operations,
            "components": {
                "schemas": schemas,
                "messages": {name: _message(type_) for name, type_ in self._types.items()},
            },
        }  # fmt: skip


def _message(type_: _Struct) -> dict[str, Any]:
    tag = type_.__struct_config__.tag
    return {
        "name": str(tag) if tag else type_.__name__,
        "description": inspect.getdoc(type_) or "",
        "headers": _HEADERS,
        "payload": {"$ref": f"#/components/schemas/{type_.__name__}"},
    }  # fmt: skip


def _name(type_: _Struct) -> str:
    return type_.__name__[0].lower() + type_.__name__[1:]


def _in_channel(channel: str, type_: _Struct) -> dict[str, str]:
    return {"$ref": f"#/channels/{channel}/messages/{_name(type_)}"}


def _camel(text: str) -> str:
    first, *others = re.split(r"[.-]", text)
    return first + "".join(part.capitalize() for part in others)


def _requests(made: _Document) -> None:
    made.channel("runRequested", subjects.RUN_REQUESTED, [RunRequest], "Stored in REQ.")
    about = "Stored in REQ_ORG, and heard again on `run.requested`."
    made.channel("runRequestedOfOrg", subjects.requested_by("{org}"), [RunRequest], about)
    for name in ("runRequested", "runRequestedOfOrg"):
        made.operation(f"take.{name}", "receive", name, [RunRequest], "Take in a request for a run.", "requests")


def _told(made: _Document, type_: _Struct, stream: str) -> None:
    tag = str(type_.__struct_config__.tag)
    name = _camel(tag)
    heard = f"The stored feed of {stream}: each `{tag}` once it is stored, of all orgs and runs."
    made.channel(name, tag, [type_], heard)
    made.channel(f"{name}OfRun", subjects.about(tag, "{org}", "{run}"), [type_], f"Stored in {stream}.")
    summary = (inspect.getdoc(type_) or "").split("\n\n", 1)[0].replace("\n", " ")
    kind = "facts" if stream == "IN" else "events"
    made.operation(f"tell.{name}", "send", name, [type_], summary, kind)
    made.operation(f"store.{name}", "send", f"{name}OfRun", [type_], summary, kind)


def _logs(made: _Document) -> None:
    address = subjects.logs("{org}", "{run}", "{job}")
    made.channel("logs", address, [messages.LogChunk], "Stored in LOGS for 7 days.")
    made.operation("tell.logs", "send", "logs", [messages.LogChunk], "The output of steps, as it comes.", "logs")

    address = subjects.cast("{org}", "{run}", "{job}", "{recording}")
    made.channel("casts", address, [messages.CastChunk], "Stored in CASTS for 7 days.")
    made.operation(
        "tell.casts", "send", "casts", [messages.CastChunk], "Recorded terminals, as they are shown.", "logs"
    )


def _api(made: _Document) -> None:
    for verb, bodies in api.VERBS.items():
        name = _camel(f"api-{verb}")
        made.channel(name, subjects.api("{org}", "{actor}", verb), [bodies.request], "A NATS service endpoint.")
        replies: list[_Struct] = [bodies.reply, api.ApiError]
        made.channel(f"{name}Reply", None, replies, "The reply subject of the request.")
        made.operation(f"answer.{name}", "receive", name, [bodies.request], f"Answer `{verb}`.", "api")
        made.reply(f"answer.{name}", f"{name}Reply", replies)


def _internal(made: _Document) -> None:
    m = messages
    made.channel("work", subjects.work("{pool}"), [m.Start], "Stored in WORK; each is taken by one host.")
    made.operation("start", "send", "work", [m.Start], "Start an attempt of a job.", "internal")
    commands: list[_Struct] = [m.Stop, m.Resume, m.Warn, m.Pause, m.Drain]
    made.channel("workOfHost", subjects.work_of_host("{host}"), commands, "Stored in WORK.")
    made.operation(
        "command",
        "send",
        "workOfHost",
        commands,
        "End a job or its pause, warn the people inside, or take no new job.",
        "internal",
    )
    for name, address, request, reply, summary in (
        ("svcAccess", subjects.service("access"), m.AccessRequest, m.AccessReply, "Say who may enter a job."),
        (
            "svcSecrets",
            subjects.service("secrets"),
            m.SecretsRequest,
            m.SecretsReply,
            "Give the secrets of a job to its claimant.",
        ),
        ("linkDial", subjects.dial("{host}"), m.DialRequest, m.DialReply, "Dial a relay worker."),
        ("hostSweep", subjects.sweep("{host}"), m.SweepRequest, m.SweepReply, "End and remove what has no owner."),
    ):
        made.channel(name, address, [request], "A request between services; people's credentials do not reach it.")
        made.channel(f"{name}Reply", None, [reply], "The reply subject of the request.")
        made.operation(f"answer.{name}", "receive", name, [request], summary, "internal")
        made.reply(f"answer.{name}", f"{name}Reply", [reply])
