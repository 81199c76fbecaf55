"""Claim builds and run them, a few at a time.

A claimed build is kept by a heartbeat. A builder that dies stops beating, and when its lease ends another builder
starts the build over; what the dead one finished is in the caches, so starting over is quick. A builder that
stops on purpose gives its builds back.
"""

import asyncio
from datetime import timedelta

import structlog
from opentelemetry import trace

from servery_builder.build_log import BuildLog
from servery_builder.domain.build import BuildError, Failure, Success
from servery_builder.operator_metrics import count_result
from servery_builder.pipeline import Pipeline
from servery_builder.settings import BuilderSettings
from servery_builder.store import BuildStore, Claim
from servery_common.backoff import full_jitter
from servery_common.contracts.builds import FailureCode
from servery_common.postgres import OUTAGE
from servery_common.redaction import Redactor
from servery_common.service import wait_any
from servery_common.tracing import extract

log = structlog.get_logger(__name__)
_tracer = trace.get_tracer(__name__)

_BEATS_PER_LEASE = 3


class BuildRunner:
    """The builds of this process."""

    def __init__(
        self,
        store: BuildStore,
        pipeline: Pipeline,
        settings: BuilderSettings,
        secrets: tuple[str, ...],
        ordered: asyncio.Event,
        outbox_hint: asyncio.Event,
    ) -> None:
        """``ordered`` hints at a new build; ``secrets`` are values that must not appear in any log."""
        self._store = store
        self._pipeline = pipeline
        self._settings = settings
        self._secrets = secrets
        self._ordered = ordered
        self._outbox_hint = outbox_hint
        self._running: set[asyncio.Task[None]] = set()
        self._slot_freed = asyncio.Event()

    async def run(self, stopping: asyncio.Event) -> None:
        """Claim and run builds until ``stopping``; then give the unfinished ones back."""
        try:
            while not stopping.is_set():
                self._ordered.clear()
                self._slot_freed.clear()
                await self._fill()
                full = len(self._running) >= self._settings.concurrency
                hints = [self._slot_freed] if full else [self._slot_freed, self._ordered]
                await wait_any(stopping, self._settings.poll_interval, *hints)
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _fill(self) -> None:
        while len(self._running) < self._settings.concurrency:
            try:
                claim = await self._store.claim(self._settings.lease)
            except OUTAGE as error:
                log.warning("claim_failed", error=repr(error))
                return
            if claim is None:
                return
            self._outbox_hint.set()
            task = asyncio.create_task(self._work(claim), name=f"build-{claim.build.build_id}")
            self._running.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._slot_freed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its lease runs out and the build is taken again.
            log.error("build_abandoned", task=task.get_name(), exc_info=error)

    async def _work(self, claim: Claim) -> None:
        build = claim.build
        log.info(
            "build_claimed", build_id=build.build_id, attempt=build.attempts, taken_over=claim.taken_over
        )
        redact = Redactor(self._secrets)
        build_log = BuildLog(self._store, claim, redact, self._settings.log_limit_bytes)
        beating = asyncio.create_task(self._keep(claim), name=f"lease-{build.build_id}")
        logging = asyncio.create_task(build_log.run(), name=f"log-{build.build_id}")
        making = asyncio.create_task(self._make(claim, build_log, redact), name=f"make-{build.build_id}")
        try:
            await asyncio.wait({beating, making}, return_when=asyncio.FIRST_COMPLETED)
            if not making.done():
                beating.result()
                log.warning("build_lost", build_id=build.build_id)
                return
            await self._finish(claim, making.result(), build_log)
        except asyncio.CancelledError:
            await self._give_back(claim, making, build_log)
            raise
        finally:
            for task in (making, beating, logging):
                task.cancel()
            await asyncio.gather(making, beating, logging, return_exceptions=True)

    async def _make(self, claim: Claim, build_log: BuildLog, redact: Redactor) -> Success | Failure:
        settings = self._settings
        build = claim.build
        if claim.taken_over:
            build_log.say(
                f"The builder that worked on this is gone: starting over (attempt {build.attempts})."
            )
        if build.attempts > settings.max_attempts:
            return Failure(
                FailureCode.INTERNAL_ERROR,
                f"{settings.max_attempts} builders died one after the other during this build: installing the model's"
                " packages probably needs more memory than a builder has.",
            )
        step = "Starting"

        async def on_step(new: str) -> None:
            nonlocal step
            step = new
            try:
                await self._store.set_step(claim, new)
            except OUTAGE as error:
                log.warning("step_not_stored", build_id=build.build_id, error=repr(error))

        seconds_left = settings.build_timeout.total_seconds() - claim.age_seconds
        try:
            with _tracer.start_as_current_span(
                "build", context=extract(claim.trace_context), attributes={"servery.build_id": build.build_id}
            ):
                async with asyncio.timeout(max(seconds_left, 0.0)):
                    return await self._pipeline.run(build, seconds_left, build_log.say, on_step, redact.hide)
        except BuildError as error:
            failure = error.failure
        except TimeoutError:
            failure = Failure(
                FailureCode.TIMED_OUT,
                f"The build did not finish within {_minutes(settings.build_timeout)}; it was at: {step}.",
            )
        except Exception as error:
            log.exception("build_crashed", build_id=build.build_id)
            failure = Failure(
                FailureCode.INTERNAL_ERROR,
                f"The builder failed unexpectedly ({type(error).__name__}: {' '.join(str(error).split())[:200]}).",
            )
        return Failure(failure.code, redact(failure.reason))

    async def _finish(self, claim: Claim, result: Success | Failure, build_log: BuildLog) -> None:
        build_id = claim.build.build_id
        if isinstance(result, Success):
            build_log.say(f"The build succeeded in {result.seconds:.2f} s.")
        else:
            build_log.say(f"The build failed: {result.reason}")
        delays = full_jitter(0.2, 5.0)
        while True:
            try:
                await build_log.flush()
                stored = await self._store.finish(claim, result)
                break
            except OUTAGE as error:
                log.warning("result_not_stored", build_id=build_id, error=repr(error))
                await asyncio.sleep(next(delays))
        self._outbox_hint.set()
        if not stored:
            log.warning("build_result_dropped", build_id=build_id)
            return
        count_result(result)
        if isinstance(result, Success):
            log.info(
                "build_succeeded", build_id=build_id, seconds=result.seconds, cached=result.environment_cached
            )
        else:
            log.info("build_failed", build_id=build_id, code=result.code, reason=result.reason)

    async def _give_back(
        self, claim: Claim, making: asyncio.Task[Success | Failure], build_log: BuildLog
    ) -> None:
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)
        build_log.say("This builder is stopping: the build is given to another one.")
        try:
            await build_log.flush()
            await self._store.release(claim)
        except OUTAGE as error:
            # The lease runs out by itself.
            log.warning("build_not_released", build_id=claim.build.build_id, error=repr(error))
        else:
            log.info("build_released", build_id=claim.build.build_id)

    async def _keep(self, claim: Claim) -> None:
        """Extend the lease until it is somebody else's."""
        while True:
            await asyncio.sleep(self._settings.lease.total_seconds() / _BEATS_PER_LEASE)
            try:
                if not await self._store.extend(claim, self._settings.lease):
                    return
            except OUTAGE as error:
                log.warning("lease_not_extended", build_id=claim.build.build_id, error=repr(error))


def _minutes(duration: timedelta) -> str:
    seconds = duration.total_seconds()
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"
