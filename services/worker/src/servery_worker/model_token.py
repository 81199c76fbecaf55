"""Short-lived tokens with which models act as the creator of their served entity.

The controller issues them; this worker keeps one for each served entity and asks for the next at half of its
lifetime. Without a controller a model keeps the token it has, and a replica that never had one starts without.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from servery_common.contracts import subjects
from servery_common.contracts.access import IssueModelToken, ModelTokenIssued
from servery_common.errors import ServeryError
from servery_common.messaging.port import Bus

log = structlog.get_logger(__name__)

ISSUE_SECONDS = 2.0
"""How long the start of a runner waits for a token. Without a controller on the bus it does not wait at all."""


@dataclass(frozen=True, slots=True)
class ModelToken:
    """A token, where it is for, and when it is due to be replaced. Times are epoch seconds."""

    value: str
    host: str
    renew_at: float
    expires_at: float


class TokenSource(Protocol):
    """Where models' tokens come from."""

    async def get(self, served_entity_id: str) -> ModelToken | None:
        """Return the token of a served entity, or None when there is none."""
        ...


class NoTokens:
    """For a worker whose models reach nobody they could show a token to."""

    async def get(self, served_entity_id: str) -> ModelToken | None:
        """Return None."""
        return None


class ModelTokens:
    """The newest token of each served entity that has runners here."""

    def __init__(self, bus: Bus, now: Callable[[], float] = time.time) -> None:
        self._bus = bus
        self._now = now
        self._tokens: dict[str, ModelToken] = {}

    async def get(self, served_entity_id: str) -> ModelToken | None:
        """Return a token: a new one when the last is due, the last when there is no new one, None when neither."""
        now = self._now()
        self._tokens = {entity: token for entity, token in self._tokens.items() if token.expires_at > now}
        known = self._tokens.get(served_entity_id)
        if known is not None and known.renew_at > now:
            return known
        try:
            issued = await self._bus.request(
                subjects.controller_issue_model_token(),
                IssueModelToken(served_entity_id=served_entity_id),
                ModelTokenIssued,
                timeout=ISSUE_SECONDS,
            )
        except ServeryError as error:
            log.warning(
                "model_token_not_issued",
                served_entity_id=served_entity_id,
                reason=error.message,
                keeps_the_last=known is not None,
            )
            return known
        fresh = self._tokens[served_entity_id] = _token(issued, self._now())
        return fresh


def _token(issued: ModelTokenIssued, now: float) -> ModelToken:
    expires_at = issued.expires_at_ms / 1000
    return ModelToken(
        value=issued.token, host=issued.host, renew_at=now + (expires_at - now) / 2, expires_at=expires_at
    )
