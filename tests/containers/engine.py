"""Whether containers can be tested here, and the images they are made of."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BUILD_SECONDS = 600


@functools.cache
def why_no_engine() -> str | None:
    """Return why containers cannot be tested here."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            return f"{' '.join(command)}: {done.stderr.strip()[:200]}"
    return None


def composed(**environment: str) -> Mapping[str, Any]:
    """Return the services of the compose file as Compose reads it, with these variables and nobody's ``.env``."""
    plain = {
        name: value for name, value in os.environ.items() if not name.startswith(("SERVERY_", "COMPOSE_"))
    }
    command = ("docker", "compose", "--file", "docker-compose.yml", "--env-file", os.devnull)
    told = run(*command, "config", "--format", "json", environment={**plain, **environment})
    return json.loads(told)["services"]


def address_of_bridge() -> str:
    """Return this machine's address in the engine's own network, which an engine tells from its second start on."""
    [network] = json.loads(run("docker", "network", "inspect", "bridge"))
    told = next(one for one in network["IPAM"]["Config"] if ":" not in one["Subnet"])
    return told.get("Gateway") or str(ip_network(told["Subnet"], strict=False)[1])


def can_do_tls(image: str) -> bool:
    """Whether the Postgres in an image was built with TLS."""
    asked = ("-C", "ssl_library", "-D", "/tmp", "--config-file=/dev/null")
    return bool(
        run("docker", "run", "--rm", "--network", "none", "--entrypoint", "postgres", image, *asked).strip()
    )


@contextlib.contextmanager
def postgres_with_tls() -> Iterator[str]:
    """The compose file's image of Postgres, or Debian's if what has that name here cannot do TLS."""
    image = composed()["postgres"]["image"]
    if can_do_tls(image):
        yield image
        return
    with built("servery-test-postgres", Path(__file__).parent / "postgres") as stand_in:
        yield stand_in


@contextlib.contextmanager
def built(name: str, context: Path, *options: str) -> Iterator[str]:
    """An image for the time of the block."""
    image = f"{name}:{uuid.uuid4().hex[:8]}"
    run("docker", "buildx", "build", "--quiet", "--load", "--tag", image, *options, str(context))
    try:
        yield image
    finally:
        run("docker", "rmi", "--force", image)


def run(*command: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a program; return what it prints."""
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout
