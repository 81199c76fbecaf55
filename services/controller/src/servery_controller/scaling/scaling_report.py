"""What is to be said about an endpoint's replicas: how many there are, what is decided about them, by whom and why."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from servery_common.contracts.access import Identity
from servery_common.contracts.scaling import EntityScaling
from servery_common.errors import ServeryError
from servery_common.postgres.pool import Pool
from servery_controller.compute import compute_store
from servery_controller.compute.backend import ComputeBackend
from servery_controller.compute.placer import ComputeQuotas
from servery_controller.domain.capacity import Scope, scopes_of
from servery_controller.domain.endpoint import Config, ConfigPhase, Deployment, Observation
from servery_controller.domain.endpoint_options import EndpointOptions, options_of
from servery_controller.domain.sizes import SLOTS_PER_REPLICA
from servery_controller.endpoints.endpoint_service import EndpointService
from servery_controller.scaling import scaling_store
from servery_controller.scaling.scaler_client import ScalerClient
from servery_controller.scaling.scaling_store import KeptDecision

_WANTED = (ConfigPhase.ACTIVE, ConfigPhase.ROLLING, ConfigPhase.PENDING)


@dataclass(frozen=True, slots=True)
class ScalingReport:
    """Everything about one endpoint's replicas now."""

    deployment: Deployment
    configs: tuple[Config, ...]
    """What serves or is to; of an endpoint without such the one that a person asked for last."""
    options: EndpointOptions
    scale_to_zero_seconds: float
    seen: Observation
    explained: Mapping[str, EntityScaling]
    """What the scaler says, by served entity id."""
    scaler_problem: str
    """Why the scaler said nothing; empty when it answered."""
    scopes: Sequence[Scope]
    decisions: Sequence[KeptDecision]
    """Newest first."""


class ScalingReports:
    """Makes reports. ``scale_to_zero_seconds`` and ``quotas`` are the installation's own."""

    def __init__(
        self,
        pool: Pool,
        endpoints: EndpointService,
        backend: ComputeBackend,
        scaler: ScalerClient,
        quotas: ComputeQuotas,
        scale_to_zero_seconds: float,
    ) -> None:
        self._pool = pool
        self._endpoints = endpoints
        self._backend = backend
        self._scaler = scaler
        self._quotas = quotas
        self._scale_to_zero_seconds = scale_to_zero_seconds

    async def make(self, name: str, limit: int, caller: Identity) -> ScalingReport:
        """Return the report with the ``limit`` newest decisions. Raises NotFound, PermissionDenied."""
        deployment = await self._endpoints.get(name, caller)
        endpoint = deployment.endpoint
        (explained, problem), decisions, usage = await asyncio.gather(
            self._explain(endpoint.id),
            scaling_store.newest(self._pool, endpoint.id, limit),
            compute_store.load_usage(self._pool, self._quotas.workspace, self._quotas.regions),
        )
        options = options_of(endpoint.tags)
        return ScalingReport(
            deployment=deployment,
            configs=_shown(deployment),
            options=options,
            scale_to_zero_seconds=options.scale_to_zero_seconds or self._scale_to_zero_seconds,
            seen=self._backend.observe(),
            explained=explained,
            scaler_problem=problem,
            scopes=scopes_of(usage, endpoint.workspace_id, self._backend.room(SLOTS_PER_REPLICA)),
            decisions=decisions,
        )

    async def _explain(self, endpoint_id: str) -> tuple[Mapping[str, EntityScaling], str]:
        try:
            explained = await self._scaler.explain(endpoint_id)
        except ServeryError as error:
            return {}, error.message
        return {entity.served_entity_id: entity for entity in explained.entities}, ""


def _shown(deployment: Deployment) -> tuple[Config, ...]:
    wanted = tuple(config for config in deployment.configs if config.phase in _WANTED)
    if wanted or deployment.newest is None:
        return wanted
    return (deployment.newest,)
