"""Try again for a while what failed because something the builder needs did not answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from servery_builder.domain.build import BuildError
from servery_common.backoff import full_jitter
from servery_common.contracts.builds import FailureCode
from servery_common.errors import Unavailable

T = TypeVar("T")

_FIRST_SECONDS = 1.0
_LONGEST_SECONDS = 10.0


@dataclass(frozen=True)
class Patience:
    """How long is waited for something, and what is said when that was not enough."""

    seconds: float
    """From the first failure."""
    code: FailureCode
    advice: str
    """What to do, as the end of the sentence that says what does not answer."""


async def patiently(
    attempt: Callable[[], Awaitable[T]],
    patience: Patience,
    on_wait: Callable[[str], Awaitable[None]],
    *,
    waits_for: type[Unavailable] = Unavailable,
) -> T:
    """Return what ``attempt`` returns, tried again after each ``waits_for``; other errors are passed on.

    ``on_wait`` is told before each pause why there is one. Raises BuildError when the patience is over.
    """
    delays = full_jitter(_FIRST_SECONDS, _LONGEST_SECONDS)
    away_since: float | None = None
    while True:
        began = time.monotonic()
        try:
            return await attempt()
        except waits_for as error:
            now = time.monotonic()
            # One that went on for so long had its answers to begin with: the time is counted from here.
            if away_since is None or now - began > patience.seconds:
                away_since = now
            if now - away_since >= patience.seconds:
                raise BuildError(patience.code, f"{error.message.rstrip('.')}{patience.advice}.") from error
            await on_wait(error.message)
        await asyncio.sleep(next(delays))
