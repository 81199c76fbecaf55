"""Have a worker load the model and predict its input example.

The builder never runs model code. It asks whichever worker is free, passes on what the worker prints, and tells
apart a model that does not work, which is final, from a worker that is not there or died, which is not.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from servery_builder.domain.build import BuildError
from servery_common.contracts import subjects
from servery_common.contracts.builds import FailureCode, ModelEnvironment, ReadModelEnvironment
from servery_common.contracts.replicas import ModelVerified, VerifyModel, VerifyProgress
from servery_common.errors import ServeryError
from servery_common.messaging.port import Bus

SILENCE_SECONDS = 15.0
"""A verifying worker says something every two seconds; after this long without, it is gone."""

ENVIRONMENT_SECONDS = 5.0

_MOST_DEATHS = 3
_RETRY_SECONDS = 1.0
_REMIND_SECONDS = 30.0


class Verifier(Protocol):
    """Finds out whether a model loads and predicts, where no harm is done."""

    async def verify(self, request: VerifyModel, say: Callable[[str], None]) -> ModelVerified:
        """Return what was found. Raises BuildError when it could not be found out."""
        ...


class ModelEnvironments:
    """Asks the controller what a model is given."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def environment_of(self, served_entity_id: str) -> ModelEnvironment:
        """Return the variables the model is given, secrets resolved, and what its replicas may use.

        Raises a ServeryError: Unavailable as long as no controller answers, others when a secret is missing.
        """
        request = ReadModelEnvironment(served_entity_id=served_entity_id)
        return await self._bus.request(
            subjects.controller_model_environment(), request, ModelEnvironment, timeout=ENVIRONMENT_SECONDS
        )


class WorkerVerifier:
    """Asks workers to verify models."""

    def __init__(self, bus: Bus, *, retry_seconds: float = _RETRY_SECONDS) -> None:
        self._bus = bus
        self._retry_seconds = retry_seconds

    async def verify(self, request: VerifyModel, say: Callable[[str], None]) -> ModelVerified:
        """Return what a worker found; waits for one for as long as the caller lets it.

        Raises ``BuildError`` when one worker after the other died over this model.
        """
        loop = asyncio.get_running_loop()
        deaths = 0
        reminded_at: float | None = None
        while True:
            answer = await self._ask(request, say)
            if isinstance(answer, ModelVerified):
                return answer
            if answer.heard:
                deaths += 1
                say(f"The worker that verified the model is gone: {answer.reason}")
                if deaths == _MOST_DEATHS:
                    raise BuildError(
                        FailureCode.LOAD_FAILED,
                        f"{_MOST_DEATHS} workers died one after the other while they loaded the model: it probably"
                        " needs more memory than a worker has.",
                    )
                reminded_at = None
            elif reminded_at is None or loop.time() - reminded_at >= _REMIND_SECONDS:
                say(f"Waiting for a worker: {answer.reason}")
                reminded_at = loop.time()
            await asyncio.sleep(self._retry_seconds)

    async def _ask(self, request: VerifyModel, say: Callable[[str], None]) -> "ModelVerified | _Lost":
        heard = False
        try:
            async for message in self._bus.request_stream(
                subjects.worker_verify(), request, [VerifyProgress, ModelVerified], silence=SILENCE_SECONDS
            ):
                heard = True
                if isinstance(message, ModelVerified):
                    return message
                if isinstance(message, VerifyProgress) and message.line is not None:
                    say(message.line)
        except ServeryError as error:
            return _Lost(heard, error.message)
        return _Lost(heard, "it ended without a result")


class _Lost:
    def __init__(self, heard: bool, reason: str) -> None:
        self.heard = heard
        self.reason = reason
