"""Use cases of the management API: create, update, delete, read. One transaction and its outbox each.

A model version is resolved through the builder before the transaction starts, never inside it. What was
answered 2xx is in Postgres; the reconciler does the rest and is only hinted at.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol
from uuid import uuid4

from servery_common.contracts.access import Identity
from servery_common.contracts.builds import ModelResolved
from servery_common.contracts.routes import RateLimit
from servery_common.errors import BadRequest, Conflict, NotFound, Unauthenticated
from servery_common.postgres.pool import Connection, Pool
from servery_controller.domain.adoption import adoptable, adopting
from servery_controller.domain.endpoint import (
    Config,
    ConfigPhase,
    Deployment,
    EmailNotifications,
    Endpoint,
    EntityPhase,
    EntitySpec,
    ServedEntity,
)
from servery_controller.domain.endpoint_options import check_shadow_names
from servery_controller.domain.happenings import EndpointEvent, EventStatus, EventType
from servery_controller.domain.judging import give_up
from servery_controller.domain.lifecycle import ConfigEvent, advance_config
from servery_controller.domain.permissions import Grantee, PermissionLevel
from servery_controller.domain.request import (
    ConfigRequest,
    EntityRequest,
    check_config,
    check_endpoint_name,
    resolve_routes,
)
from servery_controller.domain.settings_rules import (
    check_email_notifications,
    check_rate_limits,
    check_tags,
    check_texts,
)
from servery_controller.domain.sizes import replica_range
from servery_controller.endpoints import (
    config_store,
    config_versions,
    endpoint_access,
    endpoint_grants,
    events,
    settings_store,
    store,
)


class ModelRegistry(Protocol):
    """What the controller needs to know of the model registry."""

    async def resolve(self, name: str, version: str) -> ModelResolved:
        """Return the version meant. Raises NotFound, or Unavailable when the registry cannot be asked."""
        ...


class SecretReferences(Protocol):
    """What the use cases need to know of secrets."""

    async def check(self, variables: Mapping[str, str], caller: Identity) -> None:
        """Raise InvalidParameter unless the caller may read every secret the variables refer to."""
        ...


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """A new endpoint as asked for."""

    name: str
    config: ConfigRequest | None
    description: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    route_optimized: bool = False
    rate_limits: tuple[RateLimit, ...] = ()
    email_notifications: EmailNotifications = field(default_factory=EmailNotifications)
    budget_policy_id: str | None = None


class EndpointService:
    """The use cases.

    ``hint`` wakes the reconciler for one endpoint id; ``published`` waits until gateways were told of endpoints at
    these generations, by their ids.
    """

    def __init__(
        self,
        pool: Pool,
        registry: ModelRegistry,
        secrets: SecretReferences,
        hint: Callable[[str], None],
        published: Callable[[Mapping[str, int]], Awaitable[None]],
        timeout_seconds: float,
        max_endpoints: int,
    ) -> None:
        self._pool = pool
        self._registry = registry
        self._secrets = secrets
        self._hint = hint
        self._published = published
        self._timeout_seconds = timeout_seconds
        self._max_endpoints = max_endpoints

    async def create(self, request: CreateRequest, caller: Identity) -> Deployment:
        """Create an endpoint, with or without a config.

        Raises AlreadyExists, InvalidParameter, NotFound; Unauthenticated when the caller was deleted meanwhile.
        """
        check_endpoint_name(request.name)
        check_texts(request.description, request.budget_policy_id)
        now = datetime.now(UTC)
        endpoint = Endpoint(
            id=uuid4().hex,
            workspace_id=caller.workspace_id,
            name=request.name,
            creator=caller.user_name,
            created_at=now,
            updated_at=now,
            generation=1,
            observed_generation=0,
            deleted=False,
            description=request.description,
            tags=check_tags(request.tags),
            route_optimized=request.route_optimized,
            timeout_seconds=self._timeout_seconds,
            rate_limits=check_rate_limits(request.rate_limits),
            email_notifications=check_email_notifications(request.email_notifications),
            budget_policy_id=request.budget_policy_id,
            creator_kind=caller.kind,
            creator_display_name=caller.display_name,
        )
        resolved = await self._resolve(request.config, caller) if request.config else None
        if request.config and resolved:
            check_shadow_names(request.tags, _served_names(request.config, resolved))
        async with self._pool.acquire() as conn, conn.transaction():
            # The caller was confirmed before models were resolved: much may have been deleted since.
            if not await settings_store.hold_workspace(conn, caller.workspace_id):
                raise Unauthenticated("Your workspace was deleted.")
            await store.insert_endpoint(conn, endpoint)
            if not await endpoint_grants.put(
                conn, endpoint.id, Grantee.of(caller), PermissionLevel.CAN_MANAGE
            ):
                raise Unauthenticated(
                    "Your user or service principal was deleted. Ask an administrator of the workspace."
                )
            if await settings_store.count_live_endpoints(conn, caller.workspace_id) > self._max_endpoints:
                raise BadRequest(
                    f"The workspace has {self._max_endpoints} endpoints, which is the limit. Delete one, then "
                    "create this one again."
                )
            await events.record(conn, endpoint.id, [_created(caller)])
            if request.config and resolved:
                await self._add_config(conn, endpoint.id, request.config, resolved, caller, now)
        return await self._changed(endpoint.id)

    async def update_config(self, name: str, config: ConfigRequest, caller: Identity) -> Deployment:
        """Start a new config version; the active one serves until it is ready. Raises Conflict during an update."""
        await endpoint_access.find(self._pool, name, caller, PermissionLevel.CAN_MANAGE)
        resolved = await self._resolve(config, caller)
        async with self._pool.acquire() as conn, conn.transaction():
            deployment = await endpoint_access.locked(conn, name, caller, PermissionLevel.CAN_MANAGE)
            endpoint_id, newest = deployment.endpoint.id, deployment.newest
            if newest is not None and deployment.updating:
                raise Conflict(
                    f"Endpoint '{name}' is being updated to config version {newest.version}. "
                    "Wait until config_update is no longer IN_PROGRESS, or cancel it (servery cancel, or "
                    "POST …/config:cancel), then update again."
                )
            await config_versions.retire_ended(conn, deployment)
            await self._add_config(conn, endpoint_id, config, resolved, caller, datetime.now(UTC), deployment)
            await store.touch_endpoint(conn, endpoint_id)
        return await self._changed(endpoint_id)

    async def cancel_update(self, name: str, caller: Identity) -> Deployment:
        """Give up the update under way; the active config stays. Raises Conflict when there is none.

        When it is answered gateways were told: what the new version had of the traffic is with the active one again.
        Where nobody tells them, as no controller leads, it is answered all the same after two seconds.
        """
        async with self._pool.acquire() as conn, conn.transaction():
            deployment = await endpoint_access.locked(conn, name, caller, PermissionLevel.CAN_MANAGE)
            endpoint_id, newest = deployment.endpoint.id, deployment.newest
            if newest is None or not deployment.updating:
                raise Conflict(f"Endpoint '{name}' has no update in progress to cancel.")
            canceled = advance_config(newest.phase, ConfigEvent.CANCELED)
            await config_store.update_config_phase(conn, endpoint_id, newest.version, canceled)
            for entity in deployment.entities_of(newest.version):
                await config_store.update_entity(conn, give_up(entity, "The update was canceled."))
            begun = await events.begun(conn, endpoint_id, [newest.version])
            event = EndpointEvent(
                begun.get(newest.version, EventType.ENDPOINT_UPDATE),
                EventStatus.CANCELED,
                f"Canceled by {caller.user_name}.",
                config_version=newest.version,
            )
            await events.record(conn, endpoint_id, [event])
            generation = await store.touch_endpoint(conn, endpoint_id)
        await self._published({endpoint_id: generation})
        return await self._load(endpoint_id)

    async def delete(self, name: str, caller: Identity) -> str:
        """Delete an endpoint and return its id. Its name is free at once; requests in flight are answered."""
        async with self._pool.acquire() as conn, conn.transaction():
            deployment = await endpoint_access.locked(conn, name, caller, PermissionLevel.CAN_MANAGE)
            endpoint_id = deployment.endpoint.id
            await store.mark_deleted(conn, endpoint_id)
        self._hint(endpoint_id)
        return endpoint_id

    async def get(self, name: str, caller: Identity) -> Deployment:
        """Return one endpoint of the caller's workspace. Raises NotFound, PermissionDenied."""
        endpoint_id = await endpoint_access.find(self._pool, name, caller, PermissionLevel.CAN_VIEW)
        return await self._load(endpoint_id)

    async def find_all(self, caller: Identity) -> list[Deployment]:
        """Return the endpoints the caller may view, by name."""
        ids = await endpoint_grants.visible_endpoint_ids(self._pool, caller)
        loaded = await store.load_deployments(self._pool, ids)
        return [loaded[i] for i in ids if i in loaded]

    async def served_entity(
        self, endpoint_name: str, name: str, config_version: int | None, caller: Identity
    ) -> tuple[Deployment, ServedEntity]:
        """Return a served entity by name, of one config version or the newest that has it. Raises NotFound."""
        deployment = await self.get(endpoint_name, caller)
        entity = await store.find_served_entity(self._pool, deployment.endpoint.id, name, config_version)
        if entity is None:
            of_version = f" in config version {config_version}" if config_version is not None else ""
            raise NotFound(f"Endpoint '{endpoint_name}' has no served entity '{name}'{of_version}.")
        return deployment, entity

    async def _resolve(self, config: ConfigRequest, caller: Identity) -> list[ModelResolved]:
        check_config(config)
        for entity in config.entities:
            await self._secrets.check(entity.environment_vars, caller)
        tasks = [self._registry.resolve(e.entity_name, e.entity_version) for e in config.entities]
        resolved = await asyncio.gather(*tasks)
        resolve_routes(_served_names(config, resolved), config.routes)
        return resolved

    async def _add_config(
        self,
        conn: Connection,
        endpoint_id: str,
        request: ConfigRequest,
        resolved: list[ModelResolved],
        caller: Identity,
        now: datetime,
        deployment: Deployment | None = None,
    ) -> None:
        version = await config_store.next_config_version(conn, endpoint_id)
        entities = [
            _new_entity(asked, model, version, caller, now)
            for asked, model in zip(request.entities, resolved, strict=True)
        ]
        routes = resolve_routes([e.spec.name for e in entities], request.routes)
        config = Config(version=version, phase=ConfigPhase.PENDING, routes=routes, created_at=now)
        if deployment is not None:
            sources = adoptable([e.spec for e in entities], routes, deployment)
            entities = [adopting(e, sources[e.spec.name]) if e.spec.name in sources else e for e in entities]
        await config_versions.add(conn, endpoint_id, config, entities)
        message = f"Update to config version {version} started by {caller.user_name}."
        event = EndpointEvent(EventType.ENDPOINT_UPDATE, EventStatus.IN_PROGRESS, message, version)
        await events.record(conn, endpoint_id, [event])

    async def _load(self, endpoint_id: str) -> Deployment:
        loaded = (await store.load_deployments(self._pool, [endpoint_id])).get(endpoint_id)
        if loaded is None:
            raise NotFound(f"Endpoint with id '{endpoint_id}' does not exist any more.")
        return loaded

    async def _changed(self, endpoint_id: str) -> Deployment:
        self._hint(endpoint_id)
        return await self._load(endpoint_id)


def _served_names(config: ConfigRequest, resolved: list[ModelResolved]) -> list[str]:
    return [e.served_name(m.version) for e, m in zip(config.entities, resolved, strict=True)]


def _created(caller: Identity) -> EndpointEvent:
    return EndpointEvent(
        EventType.ENDPOINT_CREATION, EventStatus.SUCCEEDED, f"Endpoint created by {caller.user_name}."
    )


def _new_entity(
    asked: EntityRequest, model: ModelResolved, config_version: int, caller: Identity, now: datetime
) -> ServedEntity:
    replicas = replica_range(
        asked.workload_size,
        asked.min_provisioned_concurrency,
        asked.max_provisioned_concurrency,
        scale_to_zero=asked.scale_to_zero_enabled,
    )
    return ServedEntity(
        id=uuid4().hex,
        config_version=config_version,
        spec=EntitySpec(
            name=asked.served_name(model.version),
            entity_name=asked.entity_name,
            entity_version=model.version,
            entity_type=model.registry_type,
            workload_size=asked.workload_size,
            workload_type=asked.workload_type,
            scale_to_zero_enabled=asked.scale_to_zero_enabled,
            min_provisioned_concurrency=asked.min_provisioned_concurrency,
            max_provisioned_concurrency=asked.max_provisioned_concurrency,
            environment_vars=asked.environment_vars,
            instance_profile_arn=asked.instance_profile_arn,
        ),
        min_replicas=replicas.low,
        max_replicas=replicas.high,
        # A new entity starts with what it is promised, at least one: it must be seen to work before it may sleep.
        desired_replicas=max(1, replicas.low),
        build_id=uuid4().hex,
        build_requested_at=now,
        artifacts=None,
        phase=EntityPhase.BUILDING,
        message="Waiting for the builder.",
        created_at=now,
        creator=caller.user_name,
        creator_id=caller.principal_id,
    )
