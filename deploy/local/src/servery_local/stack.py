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

from servery_local import mlflow, nats, ports, postgres, services
from servery_local.child import ChildSpec
from servery_local.data_directory import DataDirectory, Secrets
from servery_local.leftovers import end_leftovers
from servery_local.logs import RotatingLog
from servery_local.postgres_place import prepare_place
from servery_local.processes import STACK_VARIABLE, ProcessIdentity, identify
from servery_local.reporter import Reporter
from servery_local.state import Phase, StackState
from servery_local.supervisor import Supervisor

SUPERVISOR_LOG = "supervisor.log"
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
    directory.create()
    reporter = Reporter(console)
    with directory.locked(), closing(RotatingLog(directory.logs / SUPERVISOR_LOG)) as output:
        configure_logging(output)
        ended = end_leftovers(directory)
        if ended:
            reporter.cleaned_up(ended)
        ports.require_free(options.gateway_port, options.gateway_host)
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
    chosen = _choose_ports(directory, options.gateway_port)
    external_mlflow = environ.get("MLFLOW_TRACKING_URI")
    own_database = directory.component(postgres.NAME)
    place = prepare_place(own_database, runtime / postgres.NAME, secrets.stack_id)
    if place.data != own_database:
        reporter.database_elsewhere(str(place.data))
    addresses = services.Addresses(
        gateway_host=options.gateway_host,
        gateway_port=options.gateway_port,
        nats_url=nats.url(chosen[nats.NAME]),
        postgres_url=postgres.url(place.sockets),
        mlflow_url=external_mlflow or mlflow.url(chosen[mlflow.NAME]),
    )
    specs = [
        postgres.component(place, environ),
        nats.component(directory.component(nats.NAME), chosen[nats.NAME], secrets.nats_password, environ),
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
            gateway_url=gateway_url(options),
            mlflow_url=mlflow.without_secrets(addresses.mlflow_url),
            database=str(place.data),
            database_socket=str(place.sockets),
        ),
        reporter=reporter,
        hint='Use it from another shell:  eval "$(servery env)"',
    )
    await supervisor.run()


def gateway_url(options: StackOptions) -> str:
    """Return the address at which clients on this machine find the gateway."""
    host = ports.LOOPBACK if options.gateway_host in ANY_ADDRESS else options.gateway_host
    return f"http://{f'[{host}]' if ':' in host else host}:{options.gateway_port}"


def _choose_ports(directory: DataDirectory, gateway_port: int) -> dict[str, int]:
    """Keep the ports of the last run where they are free: clients may have written them down."""
    last = directory.load_ports()
    nats_port = ports.pick(last.get(nats.NAME), avoid=frozenset({gateway_port}))
    taken = frozenset({gateway_port, nats_port})
    mlflow_port = ports.pick(last.get(mlflow.NAME), mlflow.DEFAULT_PORT, avoid=taken)
    chosen = {nats.NAME: nats_port, mlflow.NAME: mlflow_port}
    directory.save_ports(chosen)
    return chosen


def _marked(spec: ChildSpec, secrets: Secrets) -> ChildSpec:
    return replace(spec, env={**spec.env, STACK_VARIABLE: secrets.stack_id})


def _own_identity() -> ProcessIdentity:
    identity = identify(os.getpid())
    assert identity is not None, "a running process exists"
    return identity


def _encode(event: Any, **options: Any) -> bytes:
    return json.dumps(event, **options).encode()
