"""What the container of a replica is: its name, its labels, what it may use. Pure.

Options are those of docker-py's ``containers.create``.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from servery_common.contracts.permissions import inbox_prefix
from servery_common.contracts.replicas import ReplicaLaunch
from servery_common.workload_types import GIB, memory_of, model_memory_of

INSTALLATION, REPLICA, ENDPOINT, SERVED_ENTITY, WORKSPACE = (
    f"servery.{name}" for name in ("installation", "replica", "endpoint", "served_entity", "workspace")
)
"""Labels."""
USER = "10001:10001"
INCARNATION = "container"
"""A container has one life: it is never started again."""


@dataclass(frozen=True, slots=True)
class Access:
    """How a replica gets into NATS. Without ``credentials`` and certificates: a NATS that asks for none."""

    nats_url: str
    credentials: str = ""
    ca: str = ""
    certificate: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the engine's machine has."""

    cpus: int
    memory_bytes: int


def container_name(installation: str, replica_id: str) -> str:
    """Return the name of a replica's container, and of its network."""
    return f"{installation}-replica-{replica_id}"


def node_of(replica_id: str) -> str:
    """Return the node that a replica's container is."""
    return f"{replica_id}/{INCARNATION}"


def container_options(
    installation: str, launch: ReplicaLaunch, network: str, access: Access, machine: Machine, cpus: float
) -> dict[str, Any]:
    """Return everything about a replica's container but its image. ``cpus``: 0 is no limit."""
    memory = memory_of(launch.workload_type, machine.memory_bytes)
    environment = {
        "SERVERY_NATS_URL": access.nats_url,
        "SERVERY_NATS_INBOX_PREFIX": inbox_prefix(launch.replica_id),
        "SERVERY_DATA_DIR": "/tmp/worker",
        "SERVERY_WORKER_ID": launch.replica_id,
        "SERVERY_WORKER_INCARNATION": INCARNATION,
        "SERVERY_WORKER_CAPACITY_SLOTS": str(launch.slots),
        "SERVERY_WORKER_SERVES_ONE": "true",
        "SERVERY_WORKER_WARM_MEMORY_BYTES": "0",
        "SERVERY_WORKER_MODEL_MEMORY_BYTES": str(model_memory_of(memory)),
    }
    # The entry point makes files of them, on tmpfs.
    secrets = {
        "SERVERY_REPLICA_NATS_CREDENTIALS": access.credentials,
        "SERVERY_REPLICA_CA": access.ca,
        "SERVERY_REPLICA_CERTIFICATE": access.certificate,
    }
    return {
        "name": container_name(installation, launch.replica_id),
        "labels": labels_of(installation, launch),
        "environment": environment | {name: value for name, value in secrets.items() if value},
        "network": network,
        # A model that looks for other names finds none, and should say so soon, not after the resolver's many tries.
        "dns_opt": ["timeout:2", "attempts:1"],
        "user": USER,
        "read_only": True,
        "tmpfs": {"/tmp": "mode=1777,size=1g"},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "mem_limit": memory,
        "memswap_limit": memory,
        "nano_cpus": int(min(cpus, machine.cpus) * 1e9),
        "pids_limit": 1024,
        "init": True,
        "restart_policy": {"Name": "no"},
        "healthcheck": {"test": ["NONE"]},
        "log_config": {"type": "json-file", "config": {"max-size": "10m", "max-file": "2"}},
        "stop_signal": "SIGTERM",
    }


def labels_of(installation: str, launch: ReplicaLaunch) -> Mapping[str, str]:
    """Return what a container and its network tell of themselves to a controller that did not make them."""
    return {
        INSTALLATION: installation,
        REPLICA: launch.replica_id,
        ENDPOINT: launch.endpoint_id,
        SERVED_ENTITY: launch.served_entity_id,
        WORKSPACE: launch.workspace_id,
    }


def verdict(state: Mapping[str, Any], memory_bytes: int, last_lines: str) -> str:
    """Return why a container has ended, for people. ``state`` is the engine's, ``memory_bytes`` its limit."""
    code = state.get("ExitCode")
    if state.get("OOMKilled"):
        size = f"{memory_bytes / GIB:.1f} GiB" if memory_bytes else "memory"
        return (
            f"The replica's container was ended by the kernel: it needed more than its {size}. Choose a larger"
            " workload_type, or serve a smaller model."
        )
    if state.get("Error"):
        return f"The replica's container could not be started: {' '.join(str(state['Error']).split())[:300]}"
    if code == 137:
        return "The replica's container was killed (exit code 137)."
    return f"The replica's container ended with code {code}: {_last_words(last_lines)}"


def _last_words(lines: str) -> str:
    """The exception a worker ended with, else the last line."""
    said = lines.strip().splitlines()
    for line in reversed(said):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and (traceback := str(cast(dict[str, Any], event).get("exception") or "")):
            said = traceback.strip().splitlines()
            break
    return " ".join(said[-1].split())[:300] if said else "nothing was printed"
