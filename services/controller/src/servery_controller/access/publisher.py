"""Tells gateways who may call, from where and how much: keeps five buckets equal to Postgres (``contracts.access``,
``ip_access``, ``quotas``).

Any controller publishes what it changed before it answers, so that a revoked token is refused from then on. All of
it is compared again at the start, when NATS comes back, when somebody else wrote to a bucket and from time to time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import structlog

from servery_common.contracts import subjects
from servery_common.contracts.access import Identity, SigningKey, TokenGrant
from servery_common.contracts.ip_access import WorkspaceIpAccess
from servery_common.contracts.quotas import WorkspaceQuota
from servery_common.errors import ServeryError
from servery_common.messaging.port import Bus
from servery_common.postgres.pool import OUTAGE, Pool
from servery_controller.access import credential_store, identity_store, ip_access_store, quota_store
from servery_controller.access.identity_store import Identities
from servery_controller.access.mirror import Mirror

log = structlog.get_logger(__name__)

_ATTEMPTS = 5
_RETRY_SECONDS = 0.05
"""How long news of another controller's write is under way, roughly; doubled at each attempt."""


class AccessPublisher:
    """Publishes identities, tokens, public signing keys, quotas and restrictions of addresses."""

    def __init__(self, bus: Bus, pool: Pool, identities: Identities, repair_seconds: float) -> None:
        self._pool = pool
        self._reader = identities
        self._repair_seconds = repair_seconds
        self._dirty = asyncio.Event()
        self._writing = asyncio.Lock()
        self._identities = Mirror(bus, subjects.PRINCIPALS_BUCKET, Identity, self._dirty.set)
        self._tokens = Mirror(bus, subjects.TOKENS_BUCKET, TokenGrant, self._dirty.set)
        self._keys = Mirror(bus, subjects.SIGNING_KEYS_BUCKET, SigningKey, self._dirty.set)
        self._quotas = Mirror(bus, subjects.QUOTAS_BUCKET, WorkspaceQuota, self._dirty.set)
        self._ip_access = Mirror(bus, subjects.IP_ACCESS_BUCKET, WorkspaceIpAccess, self._dirty.set)
        bus.on_reconnect(self._dirty.set)
        self.published = asyncio.Event()
        """Set once gateways know everything that Postgres knew at the start."""

    async def run(self) -> None:
        """Follow the buckets and repair them, for ever."""
        async with asyncio.TaskGroup() as tasks:
            for mirror in (self._identities, self._tokens, self._keys, self._quotas, self._ip_access):
                tasks.create_task(mirror.follow())
            tasks.create_task(self._repair())

    async def workspace_changed(
        self, workspace_id: str, *, gone_tokens: Iterable[str] = (), gone_principals: Iterable[str] = ()
    ) -> None:
        """Publish what is true of a workspace now; call after the commit.

        What is gone is named, too: this process may not have heard yet that another one had published it.
        Raises nothing: the change is committed, and what could not be published now is published as soon as
        NATS is back, before which no gateway could have heard it anyway.
        """
        try:
            for sha256 in gone_tokens:
                await self._tokens.delete(sha256)
            for principal_id in gone_principals:
                await self._identities.delete(principal_id)
            await self._retried(lambda: self._write(workspace_id))
        except (ServeryError, *OUTAGE) as error:
            log.warning("access_not_published", workspace_id=workspace_id, error=str(error))
            self._dirty.set()

    async def token_added(self, sha256: str) -> None:
        """Publish one token of a principal that is published; call after the commit. Raises nothing, as above."""
        try:
            await self._retried(lambda: self._write_token(sha256))
        except (ServeryError, *OUTAGE) as error:
            log.warning("token_not_published", error=str(error))
            self._dirty.set()

    async def token_revoked(self, sha256: str) -> None:
        """Withdraw one token; call after the commit. Raises nothing, as above."""
        try:
            await self._tokens.delete(sha256)
        except ServeryError as error:
            log.warning("token_not_withdrawn", error=str(error))
            self._dirty.set()

    async def quota_changed(self, workspace_id: str) -> None:
        """Publish the quota of a workspace; call after the commit. Raises nothing, as above."""
        try:
            await self._retried(lambda: self._write_quotas(workspace_id))
        except (ServeryError, *OUTAGE) as error:
            log.warning("quota_not_published", workspace_id=workspace_id, error=str(error))
            self._dirty.set()

    async def ip_access_changed(self, workspace_id: str) -> None:
        """Publish from where a workspace may be reached; call after the commit. Raises nothing, as above."""
        try:
            await self._retried(lambda: self._write_ip_access(workspace_id))
        except (ServeryError, *OUTAGE) as error:
            log.warning("ip_access_not_published", workspace_id=workspace_id, error=str(error))
            self._dirty.set()

    async def keys_changed(self) -> None:
        """Publish the public signing keys. Raises Unavailable: a key nobody knows must not be used."""
        async with self._writing:
            await self._keys.caught_up.wait()
            before = self._keys.snapshot()
            wanted = await credential_store.find_public_keys(self._pool)
            if not await self._keys.write(before, wanted, lambda key, value: True):
                self._dirty.set()

    async def _retried(self, write: Callable[[], Awaitable[bool]]) -> None:
        async with self._writing:
            for mirror in (self._identities, self._tokens, self._quotas, self._ip_access):
                await mirror.caught_up.wait()
            for attempt in range(_ATTEMPTS):
                if await write():
                    return
                await asyncio.sleep(_RETRY_SECONDS * 2**attempt)
        self._dirty.set()

    async def _write_token(self, sha256: str) -> bool:
        known = self._tokens.snapshot()
        grants = await identity_store.find_grants(self._pool, sha256=sha256)
        return await self._tokens.write(known, grants, lambda key, _: key == sha256)

    async def _write_quotas(self, workspace_id: str | None) -> bool:
        known = self._quotas.snapshot()
        quotas = await quota_store.published_quotas(self._pool, workspace_id)
        return await self._quotas.write(known, quotas, lambda key, _: workspace_id in (None, key))

    async def _write_ip_access(self, workspace_id: str | None) -> bool:
        known = self._ip_access.snapshot()
        told = await ip_access_store.published_ip_access(self._pool, workspace_id)
        return await self._ip_access.write(known, told, lambda key, _: workspace_id in (None, key))

    async def _write(self, workspace_id: str | None) -> bool:
        undisturbed = await self._write_ip_access(workspace_id)
        undisturbed &= await self._write_quotas(workspace_id)
        known_identities, known_tokens = self._identities.snapshot(), self._tokens.snapshot()
        if workspace_id is None:
            identities = await self._reader.all(self._pool)
        else:
            identities = await self._reader.of_workspace(self._pool, workspace_id)
        grants = await identity_store.find_grants(self._pool, workspace_id=workspace_id)
        principals = set(identities) | {
            key for key, known in known_identities.values.items() if known.workspace_id == workspace_id
        }

        def concerned(identity: Identity) -> bool:
            return workspace_id is None or identity.workspace_id == workspace_id

        # Identities first: a token that leads to nobody would be refused.
        undisturbed &= await self._identities.write(
            known_identities, identities, lambda _, known: concerned(known)
        )
        undisturbed &= await self._tokens.write(
            known_tokens,
            grants,
            lambda _, known: workspace_id is None or known.principal_id in principals,
        )
        return undisturbed

    async def _repair(self) -> None:
        while True:
            self._dirty.clear()
            try:
                await credential_store.delete_expired(self._pool)
                await self._retried(lambda: self._write(None))
                await self.keys_changed()
            except (ServeryError, *OUTAGE) as error:
                log.warning("access_not_published", error=str(error))
                await asyncio.sleep(1.0)
                continue
            self.published.set()
            try:
                async with asyncio.timeout(self._repair_seconds):
                    await self._dirty.wait()
            except TimeoutError:
                pass
