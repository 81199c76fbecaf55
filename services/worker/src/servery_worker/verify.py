"""Verify a model for the builder: load it and predict its input example where it will serve later.

The warm parent that is started for it stays, so the deployment that follows starts by fork.
"""

import asyncio
from collections.abc import AsyncIterator

import structlog

from servery_common.contracts.message import Message
from servery_common.contracts.replicas import ModelVerified, VerifyModel, VerifyProgress
from servery_worker.launcher import Launcher
from servery_worker.model_log import ModelLog
from servery_worker.runner import Runner, RunnerFailed

log = structlog.get_logger(__name__)

KEEP_ALIVE_SECONDS = 2.0
"""The builder takes a longer silence for a lost worker."""
LONGEST_BACKLOG = 1000
"""Lines that wait to be sent. A model that prints faster loses some; it must not fill the worker's memory."""


class Verifier:
    """Answers VerifyModel."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    async def verify(self, order: VerifyModel) -> AsyncIterator[Message]:
        """Yield what the model prints, a sign of life every two seconds, and ModelVerified last."""
        lines: asyncio.Queue[str] = asyncio.Queue(LONGEST_BACKLOG)
        verifying = asyncio.create_task(self._verify(order, lines), name="verify")
        try:
            while not (verifying.done() and lines.empty()):
                line = await _next(lines, verifying)
                if line is not None or not verifying.done():
                    yield VerifyProgress(build_id=order.build_id, line=line)
            yield verifying.result()
        finally:
            verifying.cancel()
            await asyncio.wait({verifying})

    async def _verify(self, order: VerifyModel, lines: asyncio.Queue[str]) -> ModelVerified:
        def on_line(line: str) -> None:
            if not lines.full():
                lines.put_nowait(line)

        on_line("Importing the model's environment and loading the model.")
        try:
            async with asyncio.timeout(order.timeout_seconds):
                runner = await self._launcher.start(
                    order.artifacts,
                    ModelLog(on_line),
                    served_entity_id=order.served_entity_id,
                    environment_vars=order.environment_vars,
                    slots=1,
                    verify=True,
                )
        except TimeoutError:
            verdict = _failed(order, "load", f"did not finish within {order.timeout_seconds:g} s")
        except RunnerFailed as failure:
            verdict = _failed(order, failure.stage, failure.error, failure.traceback)
        else:
            await self._launcher.dispose(runner)
            verdict = _verified(order, runner)
        log.info(
            "model_verified",
            build_id=order.build_id,
            ok=verdict.ok,
            stage=verdict.stage,
            error=verdict.error,
        )
        return verdict


async def _next(lines: asyncio.Queue[str], verifying: asyncio.Task[ModelVerified]) -> str | None:
    """The next line; None when it was quiet for too long or the verification ended."""
    getting = asyncio.ensure_future(lines.get())
    try:
        await asyncio.wait(
            {getting, verifying}, timeout=KEEP_ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        return getting.result() if getting.done() else None
    finally:
        getting.cancel()


def _verified(order: VerifyModel, runner: Runner) -> ModelVerified:
    known = runner.description
    return ModelVerified(
        build_id=order.build_id,
        ok=True,
        example_predicted=bool(known.get("example_predicted")),
        python_version=str(known.get("python", "")),
        mlflow_version=str(known.get("mlflow", "")),
    )


def _failed(order: VerifyModel, stage: str, error: str, traceback: str = "") -> ModelVerified:
    return ModelVerified(build_id=order.build_id, ok=False, stage=stage, error=error, traceback=traceback)
