"""Pass the spans of workers that reach no collector on to it."""

import asyncio
import os
import time
from collections.abc import Mapping

import httpx
import structlog

from servery_common.backoff import full_jitter
from servery_common.contracts.replicas import WorkerSpans

log = structlog.get_logger()

SEND_SECONDS = 5.0
PATIENCE_SECONDS = 10.0
"""As long as OpenTelemetry's own exporters try."""
MOST_BYTES = 1024 * 1024


def traces_url(environment: Mapping[str, str]) -> str | None:
    """Return where OpenTelemetry's own variables say that traces go; None: nowhere."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    own = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip()
    base = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    return own or (f"{base.rstrip('/')}/v1/traces" if base else None)


class SpanRelay:
    """Hears spans and posts them. A collector that is away costs spans and a line in the log, not more.

    ``patience``: for how many seconds the same spans are tried again.
    """

    def __init__(self, web: httpx.AsyncClient, url: str | None, patience: float = PATIENCE_SECONDS) -> None:
        self._web = web
        self._url = url
        self._patience = patience
        self._failing = False

    @classmethod
    def of_environment(cls, web: httpx.AsyncClient) -> "SpanRelay":
        """Return one that posts where this process' own spans go."""
        return cls(web, traces_url(os.environ))

    async def heard(self, spans: WorkerSpans) -> None:
        """Post them, for some seconds again and again: a collector that is restarted, or just starting, gets them.

        One that stays away is not waited for: what comes after is tried once, or ever more would wait here.
        """
        if self._url is None or len(spans.otlp) > MOST_BYTES:
            return
        patient_until = time.monotonic() + (0.0 if self._failing else self._patience)
        pauses = full_jitter(0.5, 2.0)
        while (problem := await self._post(self._url, spans.otlp)) is not None:
            if not _may_pass(problem) or time.monotonic() > patient_until:
                if not self._failing:
                    log.warning("spans_not_passed_on", worker_id=spans.worker_id, reason=repr(problem))
                self._failing = True
                return
            await asyncio.sleep(next(pauses))
        self._failing = False

    async def _post(self, url: str, otlp: bytes) -> httpx.HTTPError | None:
        try:
            answer = await self._web.post(
                url, content=otlp, headers={"content-type": "application/x-protobuf"}, timeout=SEND_SECONDS
            )
            answer.raise_for_status()
        except httpx.HTTPError as error:
            return error
        return None


def _may_pass(problem: httpx.HTTPError) -> bool:
    """Whether to try again, by OTLP's rules: https://opentelemetry.io/docs/specs/otlp/#failures."""
    if isinstance(problem, httpx.HTTPStatusError):
        return problem.response.status_code in (429, 502, 503, 504)
    return isinstance(problem, httpx.TransportError)
