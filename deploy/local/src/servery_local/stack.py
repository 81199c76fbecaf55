"""Compose the embedded stack and run it: the composition root of the supervisor."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
from rich.console import Console

from servery_local import invocation, mlflow, nats, ports, postgres, preflight, services
from servery_local.child import ChildSpec
from servery_local.data_directory import DataDirectory, Secrets
from servery_local.errors import LocalError
from servery_local.leftovers import end_leftovers
from servery_local.logs import RotatingLog
from servery_local.postgres_place import prepare_place
from servery_local.processes import STACK_VARIABLE, ProcessIdentity, identify
from servery_local.reporter import Reporter
from servery_local.state import Phase, StackState
from servery_local.supervisor import Supervisor

SUPERVISOR_LOG = "supervisor.log"
ENDPOINTS_WITHIN = 2.0
ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # the addresses to listen on, not to call


@dataclass(frozen=True)
class StackOptions:
    """What the person who starts the stack decides."""

    gateway_host: str = ports.LOOPBACK
    gateway_port: int = 8080


def run_stack(
    directory: DataDirectory, options: StackOptions, environ: Mapping[str, str], console: Console
) -> None:
    """Run the stack until it is told to stop. Raises a `LocalError` if it cannot run."""
    if not directory.root.exists():
        preflight.check(directory, options.gateway_host, options.gateway_port, environ)
    directory.create()
    reporter = Reporter(console)
    with directory.locked(), closing(RotatingLog(directory.logs / SUPERVISOR_LOG)) as output:
        configure_logging(output)
        ended = end_leftovers(directory)
        if ended:
            reporter.cleaned_up(ended)
        preflight.check(directory, options.gateway_host, options.gateway_port, environ)
        runtime = directory.create_runtime()
        try:
            asyncio.run(_supervise(directory, options, dict(environ), runtime, reporter))
        finally:
            directory.remove_runtime(runtime)


def configure_logging(output: RotatingLog) -> None:
    """Write the supervisor's own events as JSON lines to `output`."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_encode),
        ],
        logger_factory=structlog.BytesLoggerFactory(output),  # pyright: ignore[reportArgumentType]
        cache_logger_on_first_use=False,
    )


async def _supervise(
    directory: DataDirectory,
    options: StackOptions,
    environ: dict[str, str],
    runtime: Path,
    reporter: Reporter,
) -> None:
    secrets = directory.load_secrets()
    external_mlflow = preflight.external_mlflow(directory, environ)
    last = directory.load_ports()
    chosen = _choose_ports(last, options.gateway_port, own_mlflow=external_mlflow is None)
    directory.save_ports(chosen)
    if external_mlflow:
        reporter.external_mlflow(mlflow.without_secrets(external_mlflow))
    elif chosen[mlflow.NAME] != (wanted := last.get(mlflow.NAME, mlflow.DEFAULT_PORT)):
        reporter.mlflow_elsewhere(wanted, chosen[mlflow.NAME])
    own_database = directory.component(postgres.NAME)
    place = prepare_place(own_database, runtime / postgres.NAME, secrets.stack_id)
    if place.data != own_database:
        reporter.database_elsewhere(str(place.data))
    addresses = services.Addresses(
        gateway_host=options.gateway_host,
        gateway_port=options.gateway_port,
        gateway_url=gateway_url(options),
        nats_url=nats.url(chosen[nats.NAME]),
        nats_monitoring_url=nats.monitoring_url(chosen[nats.MONITORING]),
        postgres_url=postgres.url(place.sockets),
        mlflow_url=external_mlflow or mlflow.url(chosen[mlflow.NAME]),
    )
    specs = [
        postgres.component(place, environ),
        nats.component(
            directory.component(nats.NAME),
            chosen[nats.NAME],
            chosen[nats.MONITORING],
            secrets.nats_password,
            environ,
        ),
        *services.components(directory, secrets, addresses, environ),
    ]
    if not external_mlflow:
        own = directory.component(mlflow.NAME)
        specs.append(mlflow.component(own, chosen[mlflow.NAME], environ))
    directory.save_tracking_uri(addresses.mlflow_url)
    supervisor = Supervisor(
        directory,
        [_marked(spec, secrets) for spec in specs],
        state=StackState(
            phase=Phase.STARTING,
            supervisor=_own_identity(),
            runtime=str(runtime),
            gateway_url=addresses.gateway_url,
            mlflow_url=mlflow.without_secrets(addresses.mlflow_url),
            database=str(place.data),
            database_socket=str(place.sockets),
        ),
        reporter=reporter,
        hint=f"Use it from another shell:  {invocation.eval_env(directory.root)}",
        count_starting=lambda: _count_starting(addresses.gateway_url, secrets.admin_token),
    )
    await supervisor.run()


async def _count_starting(url: str, token: str) -> int:
    """Return how many endpoints are on their way to serve; 0 if the API does not say so quickly."""
    from servery_local.client import Credentials, EndpointsClient
    from servery_local.deployment import is_starting

    def count() -> int:
        client = EndpointsClient.connect(Credentials(url, token), timeout=ENDPOINTS_WITHIN)
        return sum(map(is_starting, client.list().get("endpoints", ())))

    try:
        return await asyncio.to_thread(count)
    except (LocalError, ValueError):  # no answer, or not one of the API
        return 0


def gateway_url(options: StackOptions) -> str:
    """Return the address at which clients on this machine find the gateway."""
    host = ports.LOOPBACK if options.gateway_host in ANY_ADDRESS else options.gateway_host
    return f"http://{f'[{host}]' if ':' in host else host}:{options.gateway_port}"


def _choose_ports(last: Mapping[str, int], gateway_port: int, *, own_mlflow: bool) -> dict[str, int]:
    """Keep the ports of the last run where they are free: clients may have written them down.

    A port of MLflow is only ever recorded for one that was run: by it the stack knows its own address again.
    """
    nats_port = ports.pick(last.get(nats.NAME), avoid=frozenset({gateway_port}))
    taken = frozenset({gateway_port, nats_port})
    monitoring_port = ports.pick(last.get(nats.MONITORING), avoid=taken)
    chosen = {**last, nats.NAME: nats_port, nats.MONITORING: monitoring_port}
    if own_mlflow:
        taken |= {monitoring_port}
        chosen[mlflow.NAME] = ports.pick(last.get(mlflow.NAME, mlflow.DEFAULT_PORT), avoid=taken)
    return chosen


def _marked(spec: ChildSpec, secrets: Secrets) -> ChildSpec:
    return replace(spec, env={**spec.env, STACK_VARIABLE: secrets.stack_id})


def _own_identity() -> ProcessIdentity:
    identity = identify(os.getpid())
    assert identity is not None, "a running process exists"
    return identity


def _encode(event: Any, **options: Any) -> bytes:
    return json.dumps(event, **options).encode()
