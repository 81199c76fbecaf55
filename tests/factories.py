"""Domain objects of the controller with defaults: a test says only what it is about."""

from dataclasses import replace
from datetime import UTC, datetime

from servery_common.contracts.builds import Artifacts, BuildStatus
from servery_common.contracts.replicas import ReplicaObservation
from servery_common.contracts.states import BuildState, ReplicaState
from servery_controller.domain.endpoint import (
    Config,
    ConfigPhase,
    Deployment,
    Endpoint,
    EntityPhase,
    EntitySpec,
    Observation,
    Replica,
    Route,
    ServedEntity,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ARTIFACTS = Artifacts(model_path="m", environment_path="e", python="e/bin/python", environment_key="k1")


def endpoint(**changes) -> Endpoint:
    return replace(
        Endpoint(
            id="ep1",
            workspace_id="1",
            name="iris",
            creator="admin",
            created_at=NOW,
            updated_at=NOW,
            generation=1,
            observed_generation=0,
            deleted=False,
            description="",
            tags=(),
            route_optimized=False,
            timeout_seconds=60,
        ),
        **changes,
    )


def spec(**changes) -> EntitySpec:
    return replace(
        EntitySpec(
            name="iris-1",
            entity_name="iris",
            entity_version="1",
            entity_type="WORKSPACE_MODEL",
            workload_size="Small",
            workload_type="CPU",
            scale_to_zero_enabled=False,
            min_provisioned_concurrency=None,
            max_provisioned_concurrency=None,
        ),
        **changes,
    )


def entity(
    id="e1", *, version=1, phase=EntityPhase.BUILDING, desired=1, name="iris-1", **changes
) -> ServedEntity:
    built = phase not in (EntityPhase.BUILDING, EntityPhase.FAILED)
    return replace(
        ServedEntity(
            id=id,
            config_version=version,
            spec=spec(name=name),
            min_replicas=1,
            max_replicas=4,
            desired_replicas=desired,
            build_id=f"build{id}",
            build_requested_at=NOW,
            artifacts=ARTIFACTS if built else None,
            phase=phase,
            message="",
            created_at=NOW,
            creator="admin",
            creator_id="0" * 32,
        ),
        **changes,
    )


ALL_TO_IRIS = (Route("iris-1", 100),)


def config(version=1, phase=ConfigPhase.PENDING, routes=ALL_TO_IRIS) -> Config:
    return Config(version=version, phase=phase, routes=routes, created_at=NOW)


def replica(id="r1", entity_id="e1", *, stopping=False, node="w1") -> Replica:
    return Replica(id=id, served_entity_id=entity_id, node=node, stopping=stopping, created_at=NOW)


def deployment(*parts, **changes) -> Deployment:
    """Sort any number of configs, entities and replicas into a deployment."""
    return Deployment(
        endpoint=endpoint(**changes),
        configs=tuple(p for p in parts if isinstance(p, Config)),
        entities=tuple(p for p in parts if isinstance(p, ServedEntity)),
        replicas=tuple(p for p in parts if isinstance(p, Replica)),
    )


def observed(id="r1", state=ReplicaState.READY, *, entity_id="e1", reason="", slots=4) -> ReplicaObservation:
    return ReplicaObservation(
        replica_id=id, endpoint_id="ep1", served_entity_id=entity_id, state=state, reason=reason, slots=slots
    )


def build(id="builde1", state: BuildState | None = BuildState.SUCCEEDED, **changes) -> BuildStatus:
    artifacts = ARTIFACTS if state is BuildState.SUCCEEDED else None
    return BuildStatus(build_id=id, state=state, artifacts=artifacts, **changes)


def seen(*parts, complete=True, nodes=("w1",)) -> Observation:
    """Sort any number of replica observations and build states into an observation."""
    return Observation(
        replicas={p.replica_id: p for p in parts if isinstance(p, ReplicaObservation)},
        complete=complete,
        nodes=frozenset(nodes),
        builds={p.build_id: p for p in parts if isinstance(p, BuildStatus)},
    )
