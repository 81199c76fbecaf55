"""The container NATS runs in, as the engine shows it."""

from typing import Any

import docker.errors

from servery_common.errors import Unavailable


def find_nats_container(client: Any, installation: str, name: str | None) -> Any:
    """Return it by its name; without one the compose project of the installation has it. Raises Unavailable."""
    if name is not None:
        try:
            return client.containers.get(name)
        except docker.errors.NotFound:
            raise Unavailable(f"There is no container {name} that NATS runs in.") from None
    labels = [f"com.docker.compose.project={installation}", "com.docker.compose.service=nats"]
    found = client.containers.list(filters={"label": labels})
    if not found:
        raise Unavailable(
            f"The compose project {installation} has no running container of NATS: start it, or name its container"
            " with SERVERY_CONTROLLER_DOCKER_NATS_CONTAINER."
        )
    return found[0]
