"""One endpoint."""

from deploy.grafana.boards.panels import (
    Panels,
    board,
    graph,
    refusals,
    requests_under_way,
    variable,
    with_rows,
)
from deploy.grafana.boards.queries import RATE, Query, quantiles, rate
from grafana_foundation_sdk.builders.dashboard import Dashboard

ENDPOINT = 'workspace="$workspace", endpoint="$endpoint"'
ENTITY = f'{ENDPOINT}, served_entity=~"$served_entity"'
REQUESTS = "servery_gateway_requests_total"
DURATION = "servery_gateway_request_duration_seconds"


def endpoint() -> Dashboard:
    """Return the dashboard."""
    made = board(
        "Servery: one endpoint", "servery-endpoint", "Requests, time, replicas and resources of one endpoint."
    )
    made = (
        made.with_variable(variable("workspace", "Workspace", f"label_values({REQUESTS}, workspace)"))
        .with_variable(
            variable("endpoint", "Endpoint", f'label_values({REQUESTS}{{workspace="$workspace"}}, endpoint)')
        )
        .with_variable(
            variable(
                "served_entity",
                "Served entity",
                f"label_values({REQUESTS}{{{ENDPOINT}}}, served_entity)",
                several=True,
            )
        )
    )
    return with_rows(
        made, (("Requests", _requests()), ("Time", _time()), ("Replicas", _replicas()), ("Models", _models()))
    )


def _requests() -> Panels:
    return (
        graph(
            "Requests per second",
            "Answers by served entity and status.",
            "reqps",
            [rate(REQUESTS, ENTITY, "served_entity, status", "{{served_entity}} {{status}}")],
            stacked=True,
        ),
        graph(
            "Error ratio",
            "Share of 4xx and 5xx. 4xx: see what callers send; 5xx: see the model's log (servery logs --endpoint).",
            "percentunit",
            [
                Query(
                    f'sum(rate({REQUESTS}{{{ENTITY}, status="{status}"}}[{RATE}])) /'
                    f" sum(rate({REQUESTS}{{{ENTITY}}}[{RATE}]))",
                    status,
                )
                for status in ("4xx", "5xx")
            ],
            highest=1,
        ),
        refusals(
            "Answers of Servery's own. queue_full, queue_wait: too few replicas; quota, rate_limit: a limit of yours;"
            " replica_died: see the model's log.",
            ENDPOINT,
        ),
    )


def _time() -> Panels:
    titles = (
        (
            "total",
            "Latency",
            "From a request's headers to its answer. A dot is a traced request: click it for its trace.",
        ),
        (
            "queue",
            "Wait for a replica",
            "More than milliseconds: more replicas (min_provisioned_concurrency) are needed.",
        ),
        (
            "predict",
            "Time of the model",
            "The model's predict alone. What is in the latency beside it is Servery's.",
        ),
    )
    return tuple(
        graph(title, told, "s", quantiles(DURATION, f'{ENTITY}, phase="{phase}"'), exemplars=True)
        for phase, title, told in titles
    )


def _replicas() -> Panels:
    names = "served_entity"
    return (
        graph(
            "Replicas",
            "wanted: what the controller aims at; ready: what takes requests. Apart for long: see its events.",
            "short",
            [
                Query(
                    f"max by ({names}) (servery_controller_replicas_desired{{{ENTITY}}})",
                    "{{served_entity}} wanted",
                ),
                Query(
                    f'max by ({names}) (servery_replicas{{{ENTITY}, state="ready"}})',
                    "{{served_entity}} ready",
                ),
                Query(
                    f"max by ({names}) (servery_scaler_desired_replicas{{{ENTITY}}})",
                    "{{served_entity}} by the scaler",
                ),
            ],
        ),
        requests_under_way(
            "Queue",
            "At replicas, waiting for a slot, and held for a first replica, in all gateways.",
            ENTITY,
            held="held",
        ),
        graph(
            "Slots in use",
            "Requests at replicas, of those that the replicas take at a time. Near 1 requests wait.",
            "percentunit",
            [
                Query(
                    f"sum by ({names}) (servery_gateway_requests_in_flight{{{ENTITY}}}) /"
                    f" max by ({names}) (servery_gateway_slots{{{ENTITY}}} > 0)",
                    "{{served_entity}}",
                )
            ],
        ),
    )


def _models() -> Panels:
    replica = "served_entity, replica"
    return (
        graph(
            "Requests predicted together",
            "Batch sizes that requests were part of. 1: they do not wait for each other, or may not be batched.",
            "short",
            quantiles("servery_replica_batch_size", ENTITY),
        ),
        graph(
            "Processors",
            "Of all processors a replica may use. Near 1: replicas take each other's time; add workers.",
            "percentunit",
            [Query(f"max by ({replica}) (servery_replica_cpu_ratio{{{ENTITY}}})", "{{replica}}")],
        ),
        graph(
            "Memory",
            "Of a replica's model process. At the limit it is replaced (SERVERY_WORKER_MODEL_MEMORY_BYTES).",
            "bytes",
            [
                Query(f"max by ({replica}) (servery_replica_memory_bytes{{{ENTITY}}})", "{{replica}}"),
                Query(f"max(servery_replica_memory_limit_bytes{{{ENTITY}}})", "limit"),
            ],
        ),
        graph(
            "Restarts",
            "Model processes replaced in an hour: they died, or went over memory or time. See the model's log.",
            "short",
            [
                Query(
                    f"max by ({replica}) (increase(servery_replica_restarts_total{{{ENTITY}}}[1h]))",
                    "{{replica}}",
                )
            ],
        ),
    )
