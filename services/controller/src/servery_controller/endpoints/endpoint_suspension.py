"""Use cases that stop an endpoint and start it again.

A stopped endpoint keeps its config and has no replicas. Requests that were accepted before are answered: the
reconciler first tells gateways to send nothing more, then drains the replicas. Starting makes a new config version
of the stopped one, with the same model versions. An update of a stopped endpoint's config starts it, too: clients
that wait for the end of an update (Terraform, ``update_config_and_wait``) get what they asked for.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

from servery_common.contracts.access import Identity
from servery_common.errors import BadRequest, Conflict
from servery_common.postgres.pool import Pool
from servery_controller.domain.endpoint import Config, ConfigPhase, Deployment, EntityPhase, ServedEntity
from servery_controller.domain.happenings import EndpointEvent, EventStatus, EventType
from servery_controller.domain.judging import give_up
from servery_controller.domain.lifecycle import ConfigEvent, advance_config
from servery_controller.domain.permissions import PermissionLevel
from servery_controller.endpoints import config_store, config_versions, endpoint_access, events, store


class EndpointSuspension:
    """The use cases; ``hint`` wakes the reconciler for one endpoint id."""

    def __init__(self, pool: Pool, hint: Callable[[str], None]) -> None:
        self._pool = pool
        self._hint = hint

    async def stop(self, name: str, caller: Identity) -> Deployment:
        """Stop what serves; repeating it changes nothing. Raises Conflict during an update, or BadRequest."""
        async with self._pool.acquire() as conn, conn.transaction():
            deployment = await endpoint_access.locked(conn, name, caller, PermissionLevel.CAN_MANAGE)
            _refuse_during_update(deployment, "stop")
            if deployment.stopped is not None:
                return deployment
            endpoint_id, active = deployment.endpoint.id, deployment.active
            if active is None:
                raise BadRequest(f"Endpoint '{name}' has no active config: there is nothing to stop.")
            await config_versions.retire_ended(conn, deployment)
            stopped = advance_config(active.phase, ConfigEvent.STOPPED)
            await config_store.update_config_phase(conn, endpoint_id, active.version, stopped)
            for entity in deployment.entities_of(active.version):
                await config_store.update_entity(conn, give_up(entity, "The endpoint is stopped."))
            message = f"Endpoint stopped by {caller.user_name}."
            event = EndpointEvent(
                EventType.ENDPOINT_STOP, EventStatus.SUCCEEDED, message, config_version=active.version
            )
            await events.record(conn, endpoint_id, [event])
            await store.touch_endpoint(conn, endpoint_id)
            deployment = (await store.load_deployments(conn, [endpoint_id]))[endpoint_id]
        self._hint(endpoint_id)
        return deployment

    async def start(self, name: str, caller: Identity) -> Deployment:
        """Deploy the stopped config again as a new version. Raises Conflict during an update, or BadRequest."""
        async with self._pool.acquire() as conn, conn.transaction():
            deployment = await endpoint_access.locked(conn, name, caller, PermissionLevel.CAN_MANAGE)
            _refuse_during_update(deployment, "start")
            endpoint_id, stopped = deployment.endpoint.id, deployment.stopped
            if stopped is None:
                raise BadRequest(f"Endpoint '{name}' is not stopped: there is nothing to start.")
            await config_versions.retire_ended(conn, deployment)
            version, now = await config_store.next_config_version(conn, endpoint_id), datetime.now(UTC)
            config = Config(version, ConfigPhase.PENDING, stopped.routes, now)
            entities = [_again(entity, version, now) for entity in deployment.entities_of(stopped.version)]
            await config_versions.add(conn, endpoint_id, config, entities)
            message = f"Endpoint started by {caller.user_name}."
            event = EndpointEvent(
                EventType.ENDPOINT_START, EventStatus.IN_PROGRESS, message, config_version=version
            )
            await events.record(conn, endpoint_id, [event])
            await store.touch_endpoint(conn, endpoint_id)
            deployment = (await store.load_deployments(conn, [endpoint_id]))[endpoint_id]
        self._hint(endpoint_id)
        return deployment


def _refuse_during_update(deployment: Deployment, verb: str) -> None:
    if deployment.updating and deployment.newest is not None:
        raise Conflict(
            f"Endpoint '{deployment.endpoint.name}' is being updated to config version "
            f"{deployment.newest.version}. Wait until config_update is no longer IN_PROGRESS, or cancel it, then "
            f"{verb} the endpoint again."
        )


def _again(entity: ServedEntity, version: int, now: datetime) -> ServedEntity:
    """The same served entity for another config version, to be built and started from the beginning."""
    return replace(
        entity,
        id=uuid4().hex,
        config_version=version,
        desired_replicas=max(1, entity.min_replicas),
        build_id=uuid4().hex,
        build_requested_at=now,
        artifacts=None,
        phase=EntityPhase.BUILDING,
        message="Waiting for the builder.",
        created_at=now,
    )
