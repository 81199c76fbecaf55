"""One log for everything: structlog events, one JSON object per line on standard output.

Standard-library loggers (uvicorn, nats, asyncpg) go through the same pipeline, so every line has the
service, a UTC timestamp, a level, the ids of the current span, and what was bound to the context, such as
``request_id``.
"""

import logging
import sys

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

from servery_common.settings import LogSettings

_OWN_HANDLERS = ("uvicorn", "uvicorn.access", "uvicorn.error", "nats", "asyncpg", "asyncio")


def configure_logging(
    service: str, settings: LogSettings | None = None, *, process: int | None = None
) -> None:
    """Set up the log of this process. Call once, before anything logs; calling again replaces the set-up.

    ``process`` is its number among several that are one service.
    """
    settings = settings or LogSettings()
    level = getattr(logging, settings.level.upper())

    def add_service(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event.setdefault("service", service)
        if process is not None:
            event.setdefault("process", process)
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        add_service,
        _add_span,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        _drop_colors,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(settings),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _OWN_HANDLERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def _renderers(settings: LogSettings) -> list[Processor]:
    if settings.format == "console":
        return [structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]


def _drop_colors(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    event.pop("color_message", None)  # uvicorn's second copy of its messages, for terminals
    return event


def _add_span(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    if "trace_id" in event:
        return event  # the line is about another trace than the one its task belongs to
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
        event["span_id"] = trace.format_span_id(context.span_id)
    return event
