"""An installation made by the compose file, under a project name and on ports of its own."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from pathlib import Path
from typing import Any

import httpx
from tests.infrastructure import free_port

ROOT = Path(__file__).parents[3]
LONG = 600


class Installation:
    """Comes up with ``up`` and goes with ``down``, replicas included."""

    def __init__(self, override: Path | None = None) -> None:
        """``override`` is a compose file that is read after the project's own."""
        own = uuid.uuid4().hex[:8]
        self.project = f"servery-test-{own}"
        self.version = f"test-{own}"
        """Tag of the images: another run on this engine may be of other sources."""
        self.gateway_port, self.mlflow_port = free_port(), free_port()
        self.environment = {
            **os.environ,
            "SERVERY_VERSION": self.version,
            "SERVERY_GATEWAY_PORT": str(self.gateway_port),
            "SERVERY_MLFLOW_PORT": str(self.mlflow_port),
            "SERVERY_PUBLIC_URL": f"http://localhost:{self.gateway_port}",
            "SERVERY_POSTGRES_TLS": "on",
            "COMPOSE_PROJECT_NAME": self.project,
        }
        if override is not None:
            self.environment["COMPOSE_FILE"] = os.pathsep.join(("docker-compose.yml", str(override)))
        self.mlflow = f"http://localhost:{self.mlflow_port}"

    def up(self) -> None:
        """Build what changed, start what scoring needs, and wait until it is healthy."""
        self.compose("up", "--detach", "--build", "--wait", "--wait-timeout", "300", "gateway")

    def down(self, *options: str) -> None:
        """Take everything down."""
        self._run(str(ROOT / "deploy" / "docker" / "down.sh"), self.project, *options)
        if "-v" in options:
            images = self.docker(
                "images", "--filter", f"reference=*:{self.version}", "--format", "{{.Repository}}"
            ).split()
            self.docker("rmi", *(f"{image}:{self.version}" for image in images))

    def compose(self, *arguments: str) -> str:
        """Run docker compose."""
        return self._run("docker", "compose", *arguments)

    def client(self) -> httpx.Client:
        """A client with the administrator's token, taken as the documentation says."""
        token = self.compose(
            "exec", "-T", "credentials", "cat", "/credentials/controller/env/SERVERY_ADMIN_TOKEN"
        ).strip()
        return httpx.Client(
            base_url=f"http://localhost:{self.gateway_port}",
            headers={"authorization": f"Bearer {token}"},
            timeout=60,
        )

    def start_collector(self) -> str:
        """Start what plays the collector's part, at its address; return the container's name."""
        name = f"{self.project}-collector"
        script = Path(__file__).with_name("collector.py")
        self.docker(
            "run", "--detach", "--name", name, "--network", f"{self.project}_telemetry",
            "--network-alias", "otel-collector", "--volume", f"{script}:/collector.py:ro",
            "--label", f"servery.installation={self.project}", "--entrypoint", "python",
            f"servery-gateway:{self.version}", "/collector.py",
        )  # fmt: skip
        return name

    def replicas(self) -> list[str]:
        """The names of running replica containers."""
        return self.docker(
            "ps", "--filter", f"label=servery.installation={self.project}", "--filter", "label=servery.replica",
            "--format", "{{.Names}}",
        ).split()  # fmt: skip

    def replica_networks(self) -> dict[str, set[str]]:
        """The names of replicas' networks, and the containers in each."""
        ours = ("--filter", f"label=servery.installation={self.project}")
        found = self.docker("network", "ls", "--quiet", *ours).split()
        told = json.loads(self.docker("network", "inspect", *found)) if found else []
        return {one["Name"]: {inside["Name"] for inside in one["Containers"].values()} for one in told}

    def left(self) -> dict[str, list[str]]:
        """What the engine still has of this installation."""
        ours = f"label=servery.installation={self.project}"
        composed = f"label=com.docker.compose.project={self.project}"
        return {
            "containers": self.docker("ps", "-aq", "--filter", ours).split()
            + self.docker("ps", "-aq", "--filter", composed).split(),
            "networks": self.docker("network", "ls", "-q", "--filter", ours).split()
            + self.docker("network", "ls", "-q", "--filter", composed).split(),
            "volumes": self.docker("volume", "ls", "-q", "--filter", composed).split(),
            "images": self.docker("images", "-q", "--filter", ours).split(),
        }

    def inspect(self, container: str) -> dict[str, Any]:
        """What the engine tells of a container."""
        return json.loads(self.docker("inspect", container))[0]

    def inside(self, container: str, script: str) -> Any:
        """Run Python in a container and return the JSON it prints."""
        return json.loads(self.docker("exec", container, "python", "-c", script))

    def docker(self, *arguments: str) -> str:
        """Run docker."""
        return self._run("docker", *arguments)

    def logs(self) -> str:
        """The last lines of every service, for a failed test."""
        return self.compose("logs", "--no-color", "--tail", "40")

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=LONG, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout
