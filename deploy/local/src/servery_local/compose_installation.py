"""Find installations in containers (docs/compose.md), for whoever asks commands about `servery up` for them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

ANSWERS_WITHIN = 5.0
"""Seconds after which a Docker engine is not waited for any longer: what it knows is only a hint."""
LIST = (
    *("docker", "ps", "--filter", "label=com.docker.compose.project"),
    *("--format", '{{.Label "com.docker.compose.project"}}\t{{.Image}}\t{{.Ports}}'),
)
TOKEN_FILE = "/credentials/controller/env/SERVERY_ADMIN_TOKEN"
_PUBLISHED = re.compile(r"(?P<address>[\d.]+):(?P<port>\d+)->")


@dataclass(frozen=True)
class ComposeInstallation:
    """One whose gateway runs. An address is empty where none is published."""

    project: str
    gateway_url: str = ""
    mlflow_url: str = ""

    def describe(self) -> str:
        """Say where it is, how to look after it, and with which variables clients find it."""
        compose = f"docker compose -p {self.project}"
        variables = {"DATABRICKS_HOST": self.gateway_url, "MLFLOW_TRACKING_URI": self.mlflow_url}
        variables["DATABRICKS_TOKEN"] = f"$({compose} exec -T credentials cat {TOKEN_FILE})"
        exports = "".join(f"\n    export {name}={value}" for name, value in variables.items() if value)
        return (
            f"It runs in containers, as the compose project {self.project}. `{compose} ps` shows its services,"
            f" `{compose} logs SERVICE` what one printed, and `deploy/docker/down.sh {self.project}` takes it down;"
            f" clients find it with{exports}"
        )


def find_installations() -> list[ComposeInstallation]:
    """Return those that the Docker engine of the environment runs; none if there is no engine to ask."""
    try:
        done = subprocess.run(LIST, capture_output=True, text=True, timeout=ANSWERS_WITHIN, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return parse(done.stdout.splitlines())


def parse(lines: Iterable[str]) -> list[ComposeInstallation]:
    """Return the installations among containers, which `docker ps` told with their project, image and ports."""
    urls: dict[tuple[str, str], str] = {}
    for line in lines:
        project, image, ports = line.split("\t")
        service = image.rpartition("/")[2].partition(":")[0]
        urls[project, service] = _url(ports)
    return [
        ComposeInstallation(project, url, urls.get((project, "servery-mlflow"), ""))
        for (project, service), url in urls.items()
        if service == "servery-gateway"
    ]


def _url(ports: str) -> str:
    published = _PUBLISHED.search(ports)
    if published is None:
        return ""
    address = "127.0.0.1" if published["address"] == "0.0.0.0" else published["address"]
    return f"http://{address}:{published['port']}"
