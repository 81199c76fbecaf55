"""How the whole installation is."""

from deploy.grafana.boards.panels import (
    Panels,
    board,
    graph,
    number,
    processes,
    refusals,
    requests_under_way,
    with_rows,
)
from deploy.grafana.boards.queries import RATE, Query, quantile, quantiles, rate
from grafana_foundation_sdk.builders.dashboard import Dashboard

REQUESTS = "servery_gateway_requests_total"
TOTAL = 'phase="total"'
SERVICES = 'job=~"gateway|controller|builder|scaler"'


def overview() -> Dashboard:
    """Return the dashboard."""
    made = board(
        "Servery: installation", "servery-overview", "All endpoints together, and the services themselves."
    )
    return with_rows(
        made,
        (
            ("Now", _now()),
            ("Requests", _requests()),
            ("Endpoints and replicas", _replicas()),
            ("Control plane", _control()),
            ("Services", _services()),
        ),
    )


def _now() -> Panels:
    return (
        number("Requests per second", "Answered by all gateways.", "reqps", f"sum(rate({REQUESTS}[{RATE}]))"),
        number(
            "Server errors",
            "Share of answers with 5xx. Above 1 %: look at refusals by reason below.",
            "percentunit",
            f'sum(rate({REQUESTS}{{status="5xx"}}[{RATE}])) / sum(rate({REQUESTS}[{RATE}]))',
            warn=0.01,
        ),
        number(
            "p99 latency",
            "From a request's headers to its answer.",
            "s",
            f"histogram_quantile(0.99, sum by (le) (rate(servery_gateway_request_duration_seconds_bucket{{{TOTAL}}}"
            f"[{RATE}])))",
        ),
        number(
            "Gateways ready",
            "Gateways that can take work. None: nobody is served; see their logs.",
            "short",
            "sum(servery_gateway_ready)",
            warn=1,
            low=True,
        ),
        number(
            "Leaders",
            "Controllers that reconcile: one. None: nothing is deployed or repaired; see the controllers' logs and"
            " Postgres.",
            "short",
            "sum(servery_controller_leader)",
            warn=1,
            low=True,
        ),
        number(
            "Replicas missing",
            "Replicas wanted and not ready. Not zero for minutes: see the endpoint's events and the room on workers.",
            "short",
            "sum(max by (workspace, endpoint, served_entity) (servery_controller_replicas_desired)) -"
            ' sum(max by (workspace, endpoint, served_entity) (servery_replicas{state="ready"}))',
            warn=1,
        ),
    )


def _requests() -> Panels:
    return (
        graph(
            "Requests by status",
            "4xx are the callers' mistakes and limits, 5xx the models' and the platform's.",
            "reqps",
            [rate(REQUESTS, "", "status", "{{status}}")],
            stacked=True,
        ),
        graph(
            "Latency",
            "All endpoints. A dot is a traced request: click it for its trace.",
            "s",
            quantiles("servery_gateway_request_duration_seconds", TOTAL),
            exemplars=True,
        ),
        refusals(
            "Requests that Servery answered itself; docs/metrics.md says what each reason means and what to do."
        ),
        requests_under_way(
            "Under way",
            "At replicas, waiting for one, and waiting for the first one of an endpoint at zero.",
            held="held for a first replica",
        ),
        graph(
            "Busiest endpoints",
            "The ten with the most requests.",
            "reqps",
            [
                Query(
                    f"topk(10, sum by (workspace, endpoint) (rate({REQUESTS}[{RATE}])))",
                    "{{workspace}}/{{endpoint}}",
                )
            ],
        ),
        graph(
            "Stages of traced requests (p95)",
            "Where the time of sampled requests goes: admission, waiting, and from the gateway to the model and back.",
            "s",
            [quantile(0.95, "servery_gateway_sampled_stage_duration_seconds", "stage")],
            exemplars=True,
        ),
    )


def _replicas() -> Panels:
    names = "workspace, endpoint, served_entity"
    return (
        graph(
            "Endpoints by state",
            "failed: never served, and needs a change by a person. update_failed: serves the config before.",
            "short",
            [Query("max by (state) (servery_controller_endpoints)", "{{state}}")],
            stacked=True,
        ),
        graph(
            "Replicas",
            "Wanted, ready and starting. Ready below wanted for long: models that do not start, or no room.",
            "short",
            [
                Query(f"sum(max by ({names}) (servery_controller_replicas_desired))", "wanted"),
                Query(f'sum(max by ({names}) (servery_replicas{{state="ready"}}))', "ready"),
                Query(f'sum(max by ({names}) (servery_replicas{{state="starting"}}))', "starting"),
            ],
        ),
        graph(
            "Slots of workers",
            "Used of those there are. Full: new replicas find no place; add a worker, or raise its slots.",
            "short",
            [
                Query("sum(max by (worker) (servery_worker_slots_used))", "used"),
                Query("sum(max by (worker) (servery_worker_slots))", "there are"),
            ],
        ),
        graph(
            "Warm environments",
            "Environments in which a replica starts in a fraction of a second, and the memory that takes.",
            "bytes",
            [Query("max by (worker) (servery_worker_warm_parent_bytes)", "{{worker}}")],
        ),
        graph(
            "Scaling decisions",
            "Changes of replica counts. Up and down in turn: the load swings faster than replicas start.",
            "ops",
            [rate("servery_scaler_decisions_total", 'direction!="none"', "direction", "{{direction}}")],
        ),
        graph(
            "Heartbeats of workers",
            "Since each was heard. Above 3 s it gets no replicas, at 10 s it is taken for dead.",
            "s",
            [Query("min by (worker) (servery_worker_heartbeat_age_seconds)", "{{worker}}")],
        ),
    )


def _control() -> Panels:
    return (
        graph(
            "Reconcile steps",
            "postponed: tried again, now and then normal. failed: a fault of Servery's; the controller's log has it.",
            "ops",
            [rate("servery_controller_reconcile_duration_seconds_count", "", "result", "{{result}}")],
        ),
        graph(
            "Time of a reconcile step",
            "Grows with a slow Postgres, and with workers that do not answer orders.",
            "s",
            quantiles("servery_controller_reconcile_duration_seconds"),
        ),
        graph(
            "Outbox",
            "How long the oldest message waits to be sent. Seconds at most, else NATS does not take it.",
            "s",
            [Query("max by (owner) (servery_controller_outbox_oldest_seconds)", "{{owner}}")],
        ),
        graph(
            "Time of a scaling round",
            "Nothing else is decided meanwhile: above a second there are too many busy endpoints for one scaler.",
            "s",
            quantiles("servery_scaler_tick_duration_seconds"),
        ),
        graph(
            "Notifications waiting",
            "Mails and webhooks that were not delivered. Growing: the sink does not take them.",
            "short",
            [Query("max by (sink) (servery_controller_notifications_pending)", "{{sink}}")],
        ),
        graph(
            "Refused writes of overtaken controllers",
            "lease and worker: a leader was paused for longer than its lease. Nothing was lost; see docs/metrics.md.",
            "ops",
            [rate("servery_stale_writes_refused_total", "", "fence", "{{fence}}")],
        ),
    )


def _services() -> Panels:
    return (
        graph(
            "Event loop of gateways (p99 lag)",
            "Above 100 ms for long the gateway refuses requests: give it more processes or more machines.",
            "s",
            [quantile(0.99, "servery_gateway_loop_lag_seconds", "instance")],
        ),
        graph(
            "Bodies held by gateways",
            "Of what each may hold (SERVERY_GATEWAY_MAX_HELD_BODY_BYTES). Near it, requests are answered 503.",
            "percentunit",
            [Query("servery_gateway_body_bytes / servery_gateway_body_bytes_limit", "{{instance}}")],
            highest=1,
        ),
        graph(
            "Clients connected",
            "Connections of clients to each gateway.",
            "short",
            [Query("servery_gateway_client_connections", "{{instance}}")],
        ),
        *processes(
            SERVICES,
            "{{job}} {{instance}}",
            processors="Of each process: 1 is a whole processor, which is the most one gateway process can use.",
            memory="Resident memory of each process. Growing without end: a leak; restart it and report it.",
        ),
        graph(
            "Open files",
            "Of those a process may have open. At 1 it takes no more connections: raise the limit.",
            "percentunit",
            [
                Query(
                    f"process_open_fds{{{SERVICES}}} / process_max_fds{{{SERVICES}}}", "{{job}} {{instance}}"
                )
            ],
            highest=1,
        ),
    )
