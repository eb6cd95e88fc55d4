"""Messages as JSON, and back."""

from __future__ import annotations

import msgspec

from pitstop_common.messages.events import Event
from pitstop_common.messages.facts import Fact
from pitstop_common.messages.logs import LogChunk
from pitstop_common.messages.parts import JobReport
from pitstop_common.messages.views import JobView, ReportView, RerunView, RunView
from pitstop_common.messages.work import HostCommand, Start


def encode(message: msgspec.Struct) -> bytes:
    """A message as JSON."""
    return _encoder.encode(message)


_encoder = msgspec.json.Encoder()
decode_fact = msgspec.json.Decoder(Fact).decode
decode_event = msgspec.json.Decoder(Event).decode
decode_command = msgspec.json.Decoder(HostCommand).decode
decode_start = msgspec.json.Decoder(Start).decode
decode_chunk = msgspec.json.Decoder(LogChunk).decode
decode_report = msgspec.json.Decoder(JobReport).decode
decode_run_view = msgspec.json.Decoder(RunView).decode
decode_job_view = msgspec.json.Decoder(JobView).decode
decode_rerun_view = msgspec.json.Decoder(RerunView).decode
decode_report_view = msgspec.json.Decoder(ReportView).decode
