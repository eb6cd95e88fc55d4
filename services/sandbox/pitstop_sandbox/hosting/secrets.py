"""The secrets of a job, fetched by its claimant: sealed on the way, in memory here, and nowhere else."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import msgspec

from pitstop_common.errors import PitstopError, Unavailable
from pitstop_common.messages import SecretsRequest, Start
from pitstop_common.sealing import BadSeal, HostKey, for_attempt
from pitstop_sandbox.hosting.scheduler import Scheduler, SecretsRefused

log = logging.getLogger(__name__)

FRESH_PATIENCE: Final = 90.0
"""For a job that begins, seconds: an outage that is shorter ends no job."""
ADOPTED_PATIENCE: Final = 40.0
"""For one that is taken over, after ASK_PATIENCE: its holder is alone for less than ORPHAN_GRACE."""
_AGAIN: Final = 0.1

_decode = msgspec.json.Decoder(dict[str, str]).decode


class NoSecrets(PitstopError):
    """The job cannot have its secrets, and so cannot run. `reason` is that of its end."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Fetching:
    """Asks for the secrets of the jobs of one host process."""

    def __init__(self, scheduler: Scheduler, key: HostKey, host: str, incarnation: str) -> None:
        self.key = key.public
        """What this host's claims say."""
        self._scheduler, self._key = scheduler, key
        self._host, self._incarnation = host, incarnation

    async def fetch(self, start: Start, patience: float) -> dict[str, str]:
        """Names and values. Asks again until the log has confirmed the claim. Raises NoSecrets."""
        deadline = asyncio.get_running_loop().time() + patience
        asked = SecretsRequest(
            job=start.job, attempt=start.attempt, host=self._host, incarnation=self._incarnation
        )  # fmt: skip
        while True:
            try:
                return await self._ask(asked)
            except SecretsRefused as error:
                if not error.later:
                    raise NoSecrets("secrets_refused", f"The job may not have its secrets: {error}.") from error
                last: PitstopError = error
            except Unavailable as error:
                last = error
            if asyncio.get_running_loop().time() > deadline:
                text = f"The job's secrets could not be had within {patience:g} s: {last}. Run it again."
                raise NoSecrets("secrets_unavailable", text) from last
            await asyncio.sleep(_AGAIN)

    async def _ask(self, asked: SecretsRequest) -> dict[str, str]:
        reply = await self._scheduler.secrets(asked)
        if reply.key != self._key.public:
            text = "they are sealed to another key than this host has now: its folder was changed. Run it again"
            raise SecretsRefused(text, later=False)
        purpose = for_attempt(asked.job, asked.attempt, asked.host, asked.incarnation)
        try:
            return _decode(self._key.open(reply.sealed, purpose))
        except (BadSeal, msgspec.MsgspecError):
            raise SecretsRefused("what came does not open with the key of this host", later=False) from None
