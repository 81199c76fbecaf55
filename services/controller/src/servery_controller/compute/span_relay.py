"""Pass the spans of workers that reach no collector on to it."""

import os
from collections.abc import Mapping

import httpx
import structlog

from servery_common.contracts.replicas import WorkerSpans

log = structlog.get_logger()

SEND_SECONDS = 5.0
MOST_BYTES = 1024 * 1024


def traces_url(environment: Mapping[str, str]) -> str | None:
    """Return where OpenTelemetry's own variables say that traces go; None: nowhere."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    own = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip()
    base = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    return own or (f"{base.rstrip('/')}/v1/traces" if base else None)


class SpanRelay:
    """Hears spans and posts them. A collector that is away costs spans and a line in the log, not more."""

    def __init__(self, web: httpx.AsyncClient, url: str | None) -> None:
        self._web = web
        self._url = url
        self._failing = False

    @classmethod
    def of_environment(cls, web: httpx.AsyncClient) -> "SpanRelay":
        """Return one that posts where this process' own spans go."""
        return cls(web, traces_url(os.environ))

    async def heard(self, spans: WorkerSpans) -> None:
        """Post them once."""
        if self._url is None or len(spans.otlp) > MOST_BYTES:
            return
        try:
            answer = await self._web.post(
                self._url,
                content=spans.otlp,
                headers={"content-type": "application/x-protobuf"},
                timeout=SEND_SECONDS,
            )
            answer.raise_for_status()
        except httpx.HTTPError as error:
            if not self._failing:
                log.warning("spans_not_passed_on", worker_id=spans.worker_id, reason=repr(error))
            self._failing = True
        else:
            self._failing = False
