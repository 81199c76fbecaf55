"""Publishes who may call to the KV buckets gateways authenticate from (``contracts.access``)."""

import hashlib

from servery_common.contracts import subjects
from servery_common.contracts.access import Identity, TokenGrant
from servery_common.messaging.port import Bus

BOOTSTRAP_PRINCIPAL = "0" * 32


class IdentityPublisher:
    """The bootstrap administrator and their token. Others revoke by vanishing from the buckets."""

    def __init__(self, bus: Bus, *, token: str, user_name: str, workspace_id: str) -> None:
        self._bus = bus
        self.administrator = Identity(
            principal_id=BOOTSTRAP_PRINCIPAL,
            user_name=user_name,
            workspace_id=workspace_id,
            groups=("admins",),
            admin=True,
            operator=True,
        )
        self._grant = TokenGrant(
            token_sha256=hashlib.sha256(token.encode()).hexdigest(), principal_id=BOOTSTRAP_PRINCIPAL
        )

    async def publish(self) -> None:
        """Make the buckets hold exactly what is known. Repeating it changes nothing."""
        known = self._grant.token_sha256
        stale = [k for k in await self._bus.kv_keys(subjects.TOKENS_BUCKET) if k != known]
        await self._bus.kv_put(subjects.IDENTITIES_BUCKET, BOOTSTRAP_PRINCIPAL, self.administrator)
        await self._bus.kv_put(subjects.TOKENS_BUCKET, known, self._grant)
        for key in stale:
            await self._bus.kv_delete(subjects.TOKENS_BUCKET, key)
