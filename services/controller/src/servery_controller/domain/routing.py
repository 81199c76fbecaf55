"""What gateways are told about one endpoint, from what is wanted and what is seen. Pure."""

from datetime import timedelta

from servery_common.contracts.replicas import ReplicaObservation
from servery_common.contracts.routes import EndpointRoute, ReplicaRoute, RouteStatus, ServedEntityRoute
from servery_common.contracts.states import ReplicaState
from servery_controller.domain.endpoint import (
    Config,
    ConfigPhase,
    Deployment,
    Endpoint,
    EntityPhase,
    Observation,
    ServedEntity,
)
from servery_controller.domain.endpoint_options import SCALE_TO_ZERO_SECONDS, options_of
from servery_controller.domain.permissions import query_grantees
from servery_controller.domain.rebuilding import has_failed, is_rebuilt
from servery_controller.domain.rollout import traffic_shares
from servery_controller.domain.sightings import observed_replicas
from servery_controller.domain.sizes import SLOTS_PER_REPLICA

QUEUE_PER_SLOT = 10
"""Requests that may wait per slot: long enough for a scaler to react, short enough to be worth the wait (Knative)."""


def route_of(
    deployment: Deployment,
    seen: Observation,
    longest_stream: timedelta,
    scale_to_zero: timedelta = timedelta(seconds=SCALE_TO_ZERO_SECONDS),
) -> EndpointRoute | None:
    """Return the snapshot for gateways, or None while too little is seen to replace the published one.

    ``scale_to_zero`` is for endpoints that do not say after which time without a request they are scaled to zero.
    """
    endpoint = deployment.endpoint
    active = deployment.active
    if active is None:
        status, message = _why_not_serving(deployment)
        return EndpointRoute(
            endpoint_id=endpoint.id,
            workspace_id=endpoint.workspace_id,
            name=endpoint.name,
            created_at_ms=_created_at_ms(endpoint),
            status=status,
            message=message,
            timeout_seconds=endpoint.timeout_seconds,
            max_stream_seconds=longest_stream.total_seconds(),
            rate_limits=endpoint.rate_limits,
            query_grantees=query_grantees(deployment.grants),
        )
    if not seen.complete:
        # A controller that has just started has not heard every worker: an absent replica proves nothing.
        return None
    options = options_of(endpoint.tags)
    shares = traffic_shares(deployment, options.rollout)
    shadows = dict(options.shadows)
    entities = [e for e in deployment.entities if e.id in shares]
    return EndpointRoute(
        endpoint_id=endpoint.id,
        workspace_id=endpoint.workspace_id,
        name=endpoint.name,
        created_at_ms=_created_at_ms(endpoint),
        status="serving",
        served_entities=tuple(
            ServedEntityRoute(
                served_entity_id=e.id,
                name=e.spec.name,
                traffic_percentage=shares[e.id],
                replicas=_replicas(e, deployment, seen),
                # While traffic moves from one to the other neither gets fewer: it may have to move back.
                min_replicas=e.min_replicas if deployment.rolling is None else e.desired_replicas,
                max_replicas=e.max_replicas,
                desired_replicas=e.desired_replicas,
                slots_per_replica=SLOTS_PER_REPLICA,
                holds=_holds(e, deployment, seen),
                problem=_problem(e, deployment, seen),
                scale_to_zero_seconds=options.scale_to_zero_seconds or scale_to_zero.total_seconds(),
                target_concurrency=options.target_concurrency,
                shadow_percentage=shadows.get(e.spec.name, 0),
            )
            for e in entities
        ),
        timeout_seconds=endpoint.timeout_seconds,
        max_stream_seconds=longest_stream.total_seconds(),
        rate_limits=endpoint.rate_limits,
        max_queued=QUEUE_PER_SLOT * SLOTS_PER_REPLICA * max(1, sum(e.desired_replicas for e in entities)),
        query_grantees=query_grantees(deployment.grants),
    )


def _replicas(entity: ServedEntity, deployment: Deployment, seen: Observation) -> tuple[ReplicaRoute, ...]:
    ready: list[ReplicaRoute] = []
    for replica in deployment.replicas_of(entity.id):
        observed = seen.replicas.get(replica.id)
        if observed is not None and not replica.stopping and observed.state is ReplicaState.READY:
            slots = max(observed.slots, observed.max_in_flight)
            ready.append(ReplicaRoute(replica_id=replica.id, slots=slots))
    return tuple(ready)


def _holds(entity: ServedEntity, deployment: Deployment, seen: Observation) -> bool:
    """Whether requests are worth holding until a first replica is there.

    It is at zero and comes when it is asked for, or it lost all replicas with their worker and others are starting, of
    which nothing bad is known. One whose process dies again and again (RESTARTING) may take long: its clients are told.
    """
    if entity.phase is EntityPhase.IDLE:
        return True
    if entity.phase is not EntityPhase.RECOVERING:
        return False
    if is_rebuilt(entity):
        return not has_failed(entity, seen)
    states = {o.state for o in observed_replicas(entity, deployment, seen)}
    # One with a place that nobody shows yet was just ordered; without any, there may be no room for long.
    coming = any(r.node is not None and not r.stopping for r in deployment.replicas_of(entity.id))
    return coming and states <= {ReplicaState.STARTING}


def _problem(entity: ServedEntity, deployment: Deployment, seen: Observation) -> str:
    """Why nobody should wait for a replica: the starts failed, and nothing says that the next one will not."""
    if entity.phase is not EntityPhase.RECOVERING:
        return ""
    if is_rebuilt(entity):
        return entity.message if has_failed(entity, seen) else ""
    told = (o.reason for o in observed_replicas(entity, deployment, seen) if _cannot_start(o))
    return " ".join(dict.fromkeys(filter(None, told)))


def _cannot_start(replica: ReplicaObservation) -> bool:
    """Whether it was tried in vain, and never served. One that is started once more is still one of these."""
    restarting = replica.state is ReplicaState.RESTARTING and replica.never_ready
    return replica.state is ReplicaState.FAILED or restarting


def _why_not_serving(deployment: Deployment) -> tuple[RouteStatus, str]:
    newest = deployment.newest
    if newest is None:
        return "failed", "The endpoint has no config. Update its config with at least one served entity."
    if deployment.updating:
        return "deploying", "The endpoint is being deployed and is not ready yet."
    if deployment.stopped is not None:
        return "stopped", _why_not_started(deployment, newest)
    return "failed", f"The endpoint could not be deployed: {_why_entities_failed(deployment, newest)}"


def _why_not_started(deployment: Deployment, newest: Config) -> str:
    if newest.phase in (ConfigPhase.FAILED, ConfigPhase.CANCELED):
        return f"The last try to start it ended: {_why_entities_failed(deployment, newest)}"
    return ""


def _why_entities_failed(deployment: Deployment, config: Config) -> str:
    messages = " ".join(
        e.message for e in deployment.entities_of(config.version) if e.phase is EntityPhase.FAILED
    )
    return messages or "the update was canceled."


def _created_at_ms(endpoint: Endpoint) -> int:
    return int(endpoint.created_at.timestamp() * 1000)
