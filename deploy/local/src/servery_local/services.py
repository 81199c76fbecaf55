"""The five services of Servery as child processes, each with the variables it needs and no others.

The names of the variables are the same in Compose and on Kubernetes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from servery_local import environment, nats
from servery_local.child import ChildSpec
from servery_local.data_directory import DataDirectory, Secrets
from servery_local.errors import LocalError

DRAIN_WITHIN = 6.0
"""Seconds for requests in flight to end: the person who typed `servery down` is waiting."""


@dataclass(frozen=True)
class Addresses:
    """Where the services find everything."""

    gateway_host: str
    gateway_port: int
    gateway_url: str
    """Where clients on this machine find it."""
    nats_url: str
    nats_monitoring_url: str
    postgres_url: str
    mlflow_url: str


@dataclass(frozen=True)
class Service:
    """What one service is given beyond what all are."""

    name: str
    inherits: tuple[str, ...] = ()
    has_database: bool = False
    stop_grace: float = 10.0
    stop_stage: int = 1


METRICS_PORT = "SERVERY_METRICS_PORT"
METRICS_ORDER = ("controller", "builder", "scaler", "worker", "gateway")
"""Which service serves its metrics on which port, counted from the one that was set; the gateway last, as each of its
processes has one of its own."""

SERVICES = (
    # First to stop: it lets requests in flight end while there still are workers to answer them.
    Service("gateway", stop_stage=0, stop_grace=8.0),
    Service("controller", has_database=True, inherits=environment.DEVICE_PREFIXES),
    Service(
        "builder",
        has_database=True,
        inherits=environment.PACKAGE_PREFIXES + environment.STORE_PREFIXES,
    ),
    Service("scaler"),
    Service("worker", inherits=environment.DEVICE_PREFIXES),
)


def components(
    directory: DataDirectory,
    secrets: Secrets,
    addresses: Addresses,
    environ: Mapping[str, str],
) -> list[ChildSpec]:
    """Return how to run the services; makes the directory each may keep files in."""
    specs: list[ChildSpec] = []
    for service in SERVICES:
        own = directory.service(service.name)
        own.mkdir(mode=0o700, exist_ok=True)
        specs.append(
            ChildSpec(
                name=service.name,
                argv=(sys.executable, "-m", f"servery_{service.name}"),
                env=variables(service, own, directory.artifacts, secrets, addresses, environ),
                cwd=own,
                stop_grace=service.stop_grace,
                stop_stage=service.stop_stage,
            )
        )
    return specs


def metrics_port(written: str) -> int:
    """Return the first port on which the services serve metrics. Raises LocalError for what is none."""
    last = 65535 - len(METRICS_ORDER)
    if not (written.isascii() and written.isdigit() and 0 < int(written) <= last):
        raise LocalError(
            f"{METRICS_PORT}={written} is not a port from 1 to {last}: set one, such as 9464, or unset it"
        )
    return int(written)


def variables(
    service: Service,
    own: Path,
    artifacts: Path,
    secrets: Secrets,
    addresses: Addresses,
    environ: Mapping[str, str],
) -> dict[str, str]:
    """Return the whole environment of one service."""
    env = {
        **environment.inherit(environ, environment.SERVICE_PREFIXES + service.inherits),
        "SERVERY_NATS_URL": addresses.nats_url,
        "SERVERY_NATS_USER": nats.USER,
        "SERVERY_NATS_PASSWORD": secrets.nats_password,
        "SERVERY_DATA_DIR": str(own),
        "PYTHONUNBUFFERED": "1",
    }
    if METRICS_PORT in env:
        # One variable for all of them, which cannot share a port.
        env[METRICS_PORT] = str(metrics_port(env[METRICS_PORT]) + METRICS_ORDER.index(service.name))
        env["SERVERY_NATS_MONITORING_URL"] = addresses.nats_monitoring_url
    if service.has_database:
        env["SERVERY_POSTGRES_URL"] = addresses.postgres_url
        env["SERVERY_POSTGRES_TLS"] = "off"  # it is a socket; what the shell says is for compose
    match service.name:
        case "gateway":
            env["SERVERY_GATEWAY_HOST"] = addresses.gateway_host
            env["SERVERY_GATEWAY_PORT"] = str(addresses.gateway_port)
            env["SERVERY_GATEWAY_STOP_GRACE"] = str(DRAIN_WITHIN)
        case "controller":
            env["SERVERY_ADMIN_TOKEN"] = secrets.admin_token
            env["SERVERY_ENCRYPTION_KEY"] = secrets.encryption_key
            env |= {name: environ[name] for name in environment.NOTIFICATIONS if name in environ}
            # Whoever has a name for the gateway that other machines know, too, has set it.
            env.setdefault("SERVERY_PUBLIC_URL", addresses.gateway_url)
        case "builder":
            env["SERVERY_ARTIFACTS_DIR"] = str(artifacts)
            env["MLFLOW_TRACKING_URI"] = addresses.mlflow_url
        case "worker":
            env["SERVERY_ARTIFACTS_DIR"] = str(artifacts)
            env["SERVERY_WORKER_DRAIN_GRACE_SECONDS"] = str(DRAIN_WITHIN)
        case _:
            pass
    return env
