"""An endpoint's scaling as the management API answers it. Pure."""

from typing import Any

from servery_common.contracts.scaling import EntityScaling
from servery_controller.domain.capacity import Scope, ScopeKind
from servery_controller.domain.endpoint import ServedEntity
from servery_controller.domain.lifecycle import DEPLOYMENT_STATE
from servery_controller.domain.replica_counts import replica_counts
from servery_controller.domain.sizes import SLOTS_PER_REPLICA
from servery_controller.scaling.scaling_report import ScalingReport
from servery_controller.scaling.scaling_store import KeptDecision


def presented(report: ScalingReport) -> dict[str, Any]:
    """The whole answer. Times are epoch milliseconds."""
    deployment = report.deployment
    scaler: dict[str, Any] = {"answered": not report.scaler_problem}
    if report.scaler_problem:
        scaler["message"] = report.scaler_problem
    return {
        "name": deployment.endpoint.name,
        "id": deployment.endpoint.id,
        "scale_to_zero_seconds": report.scale_to_zero_seconds,
        "scaler": scaler,
        "compute": [_scope(scope) for scope in report.scopes],
        "served_entities": [
            _entity(entity, report)
            for config in report.configs
            for entity in deployment.entities_of(config.version)
        ],
        "decisions": [_decision(kept) for kept in report.decisions],
    }


def _entity(entity: ServedEntity, report: ScalingReport) -> dict[str, Any]:
    counts = replica_counts(report.deployment, report.seen, entity.id)
    explained = report.explained.get(entity.id)
    pinned = report.options.target_concurrency
    learned = explained.target_concurrency if explained else None
    return {
        "name": entity.spec.name,
        "id": entity.id,
        "config_version": entity.config_version,
        "state": {
            "deployment": DEPLOYMENT_STATE[entity.phase],
            "deployment_state_message": entity.message,
        },
        "slots_per_replica": SLOTS_PER_REPLICA,
        "scale_to_zero_enabled": entity.spec.scale_to_zero_enabled,
        "min_replicas": entity.min_replicas,
        "max_replicas": entity.max_replicas,
        "desired_replicas": entity.desired_replicas,
        # While not every worker was heard of, fewer are seen than there are.
        "ready_replicas": counts.ready if report.seen.complete else None,
        "starting_replicas": counts.starting if report.seen.complete else None,
        "waiting_replicas": counts.waiting,
        "stopping_replicas": counts.stopping,
        "target_concurrency": learned if pinned is None else pinned,
        "target_concurrency_is": "pinned" if pinned is not None else "learned",
        "last_decision": _explained(explained) if explained else None,
    }


def _explained(explained: EntityScaling) -> dict[str, Any]:
    return {
        "desired_replicas": explained.desired_replicas,
        "reason": explained.reason,
        "seen": explained.seen,
        "decided_at": explained.decided_at_ms,
    }


def _scope(scope: Scope) -> dict[str, Any]:
    answer: dict[str, Any] = {"kind": scope.kind, "slots": scope.slots, "used": scope.used}
    return answer if scope.kind is ScopeKind.WORKERS else answer | {"name": scope.key}


def _decision(kept: KeptDecision) -> dict[str, Any]:
    decision = kept.decision
    return {
        "served_entity_name": decision.served_entity_name,
        "served_entity_id": decision.served_entity_id,
        "config_version": decision.config_version,
        "before": decision.before,
        "after": decision.after,
        "reason": decision.reason,
        "decided_by": decision.decided_by,
        "seen": dict(decision.seen),
        "decided_at": int(kept.decided_at.timestamp() * 1000),
    }
