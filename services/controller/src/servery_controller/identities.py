"""Publishes who may call: one entry per token, by its SHA-256, to the KV bucket gateways authenticate from."""

import hashlib

from servery_common.contracts import subjects
from servery_common.contracts.routes import Identity
from servery_common.messaging.port import Bus


class IdentityPublisher:
    """The bootstrap administrator's token. Others revoke by vanishing from the bucket."""

    def __init__(self, bus: Bus, *, token: str, user_name: str, workspace_id: str) -> None:
        self._bus = bus
        self._identity = Identity(
            token_sha256=hashlib.sha256(token.encode()).hexdigest(),
            user_name=user_name,
            workspace_id=workspace_id,
            admin=True,
        )

    async def publish(self) -> None:
        """Make the bucket hold exactly the known identities. Repeating it changes nothing."""
        known = self._identity.token_sha256
        stale = [k for k in await self._bus.kv_keys(subjects.IDENTITIES_BUCKET) if k != known]
        await self._bus.kv_put(subjects.IDENTITIES_BUCKET, known, self._identity)
        for key in stale:
            await self._bus.kv_delete(subjects.IDENTITIES_BUCKET, key)
