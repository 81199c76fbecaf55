"""A real Prometheus that scrapes an embedded stack with the rules and the jobs that the release has."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml
from tests.infrastructure import free_port, wait_for_port

DEPLOY = Path(__file__).parents[2] / "deploy"
SCRAPE_SECONDS = 1


class Prometheus:
    """Its HTTP API."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=f"{url}/api/v1", timeout=20)

    def get(self, path: str, **parameters: Any) -> Any:
        """The data of an answer that must be a success."""
        answer = self._http.get(path, params=parameters)
        assert answer.status_code == 200, f"{path} {parameters}: {answer.text}"
        return answer.json()["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series an expression returns now."""
        return self.get("/query", query=expression)["result"]

    def exemplars(self, expression: str) -> list[dict[str, Any]]:
        """The exemplars of the last minutes of the series of an expression."""
        now = time.time()
        series = self.get("/query_exemplars", query=expression, start=now - 600, end=now)
        return [exemplar for one in series for exemplar in one["exemplars"]]

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def found() -> str | None:
    """The path of the server's program; None where it is not installed."""
    return shutil.which("prometheus")


@contextlib.contextmanager
def running_prometheus(directory: Path, ports: Mapping[str, int]) -> Iterator[Prometheus]:
    """Scrape what the release's configuration scrapes, each job at its port of this machine."""
    program = found()
    assert program is not None
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"}
    config["rule_files"] = [str(DEPLOY / "prometheus" / pattern) for pattern in config["rule_files"]]
    jobs = [job for job in config["scrape_configs"] if job["job_name"] in ports]
    assert {job["job_name"] for job in jobs} == set(ports)
    config["scrape_configs"] = [
        {
            "job_name": job["job_name"],
            "static_configs": [{"targets": [f"127.0.0.1:{ports[job['job_name']]}"]}],
        }
        for job in jobs
    ]
    written = directory / "prometheus.yml"
    written.write_text(json.dumps(config))  # JSON is YAML
    port = free_port()
    with (directory / "prometheus.log").open("wb") as output:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={written}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--enable-feature=exemplar-storage",
                "--log.level=warn",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_for_port(port, process)
            client = Prometheus(f"http://127.0.0.1:{port}")
            yield client
            client.close()
        finally:
            process.terminate()
            process.wait(20)
