"""Keeps what lets a replica into NATS from ending.

It is renewed at about half of its lifetime: the worker makes a new key pair, asks the controller for a token for it,
and connects anew before the old connections go. Without a controller it asks again and again. Shortly before the end
the worker stops, so that what it has accepted is answered; another replica takes its place.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime

import structlog
from nats.errors import Error as NatsError

from servery_common.backoff import full_jitter
from servery_common.contracts import subjects
from servery_common.contracts.replicas import CredentialsRenewed, RenewCredentials
from servery_common.errors import ServeryError
from servery_common.messaging.port import Bus
from servery_common.nats_credentials import Lifetime, make_user_key
from servery_worker.credential_files import CredentialFiles

log = structlog.get_logger(__name__)

EARLIEST, LATEST = 0.45, 0.55
"""Shares of a lifetime between which it is renewed: replicas that were made together do not ask together."""
LOOK_SECONDS = 60.0
"""A machine that was suspended finds out within so long: timers stand still meanwhile, and certificates do not."""
ASK_SECONDS = 5.0
LONGEST_STOP_SECONDS = 30.0


class CredentialsEnd(Exception):
    """What lets this replica into NATS is about to end, and there is nothing new."""


class Renewal:
    """``lifetime`` is that of the files' present content. ``reconnect`` makes the connections anew and raises what
    ``Links.replace`` does; ``bus`` returns the present one. ``now`` returns epoch seconds."""

    def __init__(
        self,
        replica_id: str,
        files: CredentialFiles,
        lifetime: Lifetime,
        bus: Callable[[], Bus],
        reconnect: Callable[[], Awaitable[None]],
        *,
        now: Callable[[], float] = time.time,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._replica_id = replica_id
        self._files = files
        self._lifetime = lifetime
        self._bus = bus
        self._reconnect = reconnect
        self._now = now
        self._pause = pause
        self._draw = draw
        self._reason = ""

    def left(self) -> float:
        """Return which share of the lifetime is left, 0 to 1."""
        return min(max((self._lifetime.ends - self._now()) / self._lifetime.seconds, 0.0), 1.0)

    async def run(self) -> None:
        """Renew for ever. Raises CredentialsEnd shortly before the end of what could not be renewed."""
        while True:
            await self._until(self._lifetime.begins + self._lifetime.seconds * self._draw(EARLIEST, LATEST))
            delays = _delays(self._lifetime.seconds, self._draw)
            while not await self._renew():
                stop_at = self._lifetime.ends - min(LONGEST_STOP_SECONDS, self._lifetime.seconds / 10)
                await self._until(min(self._now() + next(delays), stop_at))
                if self._now() >= stop_at:
                    ends = datetime.fromtimestamp(self._lifetime.ends, UTC)
                    raise CredentialsEnd(
                        f"The replica's credentials end at {ends:%Y-%m-%d %H:%M:%S} UTC and could not be renewed:"
                        f" {self._reason}"
                    )

    async def _until(self, then: float) -> None:
        while (left := then - self._now()) > 0:
            await self._pause(min(left, LOOK_SECONDS))

    async def _renew(self) -> bool:
        try:
            await self._ask()
            lifetime = self._files.lifetime()
            if lifetime is None:
                raise ValueError("the controller has issued credentials without an end")
            await self._reconnect()
        except (ServeryError, NatsError, OSError, TimeoutError, ValueError) as error:
            self._reason = error.message if isinstance(error, ServeryError) else repr(error)
            left = round(self._lifetime.ends - self._now(), 1)
            log.warning("credentials_not_renewed", reason=self._reason, seconds_left=left)
            return False
        self._lifetime = lifetime
        log.info("credentials_renewed", seconds=round(lifetime.seconds, 1))
        return True

    async def _ask(self) -> None:
        keys = make_user_key()
        renewed = await self._bus().request(
            subjects.controller_renew_credentials(self._replica_id),
            RenewCredentials(
                replica_id=self._replica_id, user_key=keys.public, certificate=self._files.certificate()
            ),
            CredentialsRenewed,
            timeout=ASK_SECONDS,
        )
        self._files.replace(renewed.token, keys.seed, renewed.certificate)


def _delays(seconds: float, draw: Callable[[float, float], float]) -> Iterator[float]:
    """Between attempts: up to a minute, or a twentieth of the lifetime."""
    longest = min(60.0, seconds / 20)
    return full_jitter(longest / 16, longest, draw=draw)
