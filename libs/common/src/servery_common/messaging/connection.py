"""Connections to NATS: made once, kept for ever.

A service may start before NATS and outlive any number of its restarts. Connecting therefore returns only when a
connection stands, and what it returns never gives up. Losses are logged once when they begin and once when they end,
not per attempt.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

import structlog
from nats import errors

from servery_common.backoff import full_jitter
from servery_common.messaging.client import ResilientClient
from servery_common.messaging.inference import InferenceClient
from servery_common.metering import NatsMeter
from servery_common.settings import NatsSettings
from servery_common.tls import tls_context

log = structlog.get_logger(__name__)

C = TypeVar("C", bound=ResilientClient)

ATTEMPT_SECONDS = 15.0
"""One attempt to connect (nats-py itself tries several times within it) before starting from nothing."""
QUIET_SECONDS = 10.0


async def connect_inference(
    settings: NatsSettings, *, name: str, on_disconnect: Callable[[], None]
) -> InferenceClient:
    """Return a connection for scoring frames; the caller closes it. Waits until NATS answers.

    ``on_disconnect`` is called each time the connection is lost: fail what is in flight, nobody else will. Nothing is
    kept while disconnected. There is no back-pressure: the caller has to bound the bytes it has under way.
    """
    client = await _connect(
        InferenceClient, settings, name=name, pending_size=0, meter=NatsMeter("inference")
    )
    client.disconnect_callbacks.append(on_disconnect)
    return client


@contextlib.asynccontextmanager
async def client_connection(settings: NatsSettings, *, name: str) -> AsyncGenerator[ResilientClient]:
    """A connection for everything but scoring frames, closed at the end after what is buffered went out."""
    meter = NatsMeter("bus")
    client = await _connect(ResilientClient, settings, name=name, pending_size=2 * 1024 * 1024, meter=meter)
    try:
        yield client
    finally:
        await client.settle()
        await client.close()


async def _connect(
    kind: type[C], settings: NatsSettings, *, name: str, pending_size: int, meter: NatsMeter
) -> C:
    """Connect, trying until it works."""
    delays = full_jitter(0.25, 2.0)
    while True:
        client = kind()
        _tell_losses(client, name, meter)
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                await client.connect(**_options(settings, name, pending_size, client, meter))
        except asyncio.CancelledError:
            await _discard(client)
            raise
        except (errors.Error, OSError, TimeoutError) as error:
            meter.failed()
            log.warning("nats_connect_failed", connection=name, error=repr(error))
            await _discard(client)
            await asyncio.sleep(next(delays))
        else:
            if _is_cancelled():
                await _discard(client)
                raise asyncio.CancelledError
            client.start_watchdog()
            meter.connected()
            log.info("nats_connected", connection=name, server=str(client.connected_server_version))
            return client


def _is_cancelled() -> bool:
    """Whether this task was cancelled and did not hear of it.

    nats-py connects with ``asyncio.wait_for``, which on Python 3.11 swallows a cancellation that comes just when what
    it waits for is there: whoever cancelled would wait for this task for ever.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _options(
    settings: NatsSettings, name: str, pending_size: int, client: ResilientClient, meter: NatsMeter
) -> dict[str, Any]:
    failures = _Failures(name)

    async def on_error(error: Exception) -> None:
        meter.failed()
        failures.note(error)

    async def on_reconnect() -> None:
        for callback in client.reconnect_callbacks:
            callback()

    return {
        "servers": [url.strip() for url in settings.url.split(",")],
        "name": name,
        "user": settings.user,
        "password": settings.password.get_secret_value() if settings.password else None,
        "user_credentials": settings.credentials,
        "inbox_prefix": settings.inbox_prefix,
        "tls": tls_context(settings.tls_ca, settings.tls_cert, settings.tls_key),
        "max_reconnect_attempts": -1,
        # Not the same for everyone: a restarted NATS should not meet all services in one instant.
        "reconnect_time_wait": 0.25 * random.uniform(0.8, 1.2),
        "connect_timeout": 2,
        "ping_interval": 5,
        "max_outstanding_pings": 2,
        "pending_size": pending_size,
        "error_cb": on_error,
        "reconnected_cb": on_reconnect,
    }


class _Failures:
    """Logs errors of a connection, each kind at most every ten seconds, with how many there were.

    It is called from inside nats-py's loops, which die of an exception here: nothing in it can raise.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._counts: dict[str, int] = {}
        self._quiet_until: dict[str, float] = {}

    def note(self, error: Exception) -> None:
        kind, now = type(error).__name__, time.monotonic()
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if now >= self._quiet_until.get(kind, 0.0):
            self._quiet_until[kind] = now + QUIET_SECONDS
            count = self._counts.pop(kind)
            log.warning("nats_error", connection=self._name, kind=kind, error=str(error), count=count)


def _tell_losses(client: ResilientClient, name: str, meter: NatsMeter) -> None:
    lost_at = 0.0

    def lost() -> None:
        nonlocal lost_at
        lost_at = time.monotonic()
        meter.lost()
        log.warning("nats_connection_lost", connection=name)

    def back() -> None:
        seconds = round(time.monotonic() - lost_at, 3)
        meter.connected()
        log.info("nats_connection_restored", connection=name, seconds=seconds)

    client.disconnect_callbacks.append(lost)
    client.reconnect_callbacks.append(back)


async def _discard(client: ResilientClient) -> None:
    with contextlib.suppress(errors.Error, OSError, TimeoutError, AssertionError):
        await asyncio.wait_for(client.close(), 1.0)
