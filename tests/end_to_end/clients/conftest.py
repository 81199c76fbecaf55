"""The clients in their versions: the newest, from this environment, and those of a year ago, from one of their own."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.client import Client, Registered
from tests.models import zoo

ROOT = Path(__file__).parents[3]

A_YEAR_AGO = ("databricks-sdk==0.73.0", "mlflow-skinny==3.6.0")
"""The newest of November 2025. Installed by uv when the tests run; the newest of today are in this environment."""

Report = dict[str, Any]


@pytest.fixture(scope="session")
def pythons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | str]:
    """A Python with each generation of clients, or the reason why there is none."""
    directory = tmp_path_factory.mktemp("clients") / "a-year-ago"
    uv = Path(sys.executable).with_name("uv")
    old = directory / "bin" / "python"
    for command in (
        (uv, "venv", "--quiet", "--python", sys.executable, directory),
        (uv, "pip", "install", "--quiet", "--python", old, *A_YEAR_AGO),
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            reason = f"{' '.join(A_YEAR_AGO)} cannot be installed: {done.stderr.strip()[-500:]}"
            return {"newest": Path(sys.executable), "a year ago": reason}
    return {"newest": Path(sys.executable), "a year ago": old}


@pytest.fixture(scope="session")
def reports(
    pythons: dict[str, Path | str], client: Client, register: Registered
) -> Iterator[Callable[[str, str], Report]]:
    """Runs every scenario with every generation at the same time; returns the report of one of them."""
    versions = (register(zoo.IRIS_CLASSIFIER), register(zoo.IRIS_CLASSIFIER, variant="second"))
    numbers = itertools.count(1)
    running: dict[tuple[str, str], subprocess.Popen[str]] = {}
    ended: dict[tuple[str, str], Report] = {}
    for generation, python in pythons.items():
        for script in ("sdk_scenario", "mlflow_scenario"):
            if isinstance(python, Path):
                world = {
                    "host": client.access.host,
                    "token": client.access.token,
                    "model": "iris_classifier",
                    "versions": versions,
                    "prefix": f"client-{next(numbers)}",
                }
                running[generation, script] = _start(python, script, world)

    def report(generation: str, script: str) -> Report:
        key = generation, script
        if isinstance(reason := pythons[generation], str):
            pytest.fail(reason)
        if key not in ended:
            out, err = running[key].communicate(timeout=300)
            assert running[key].returncode == 0, err
            ended[key] = json.loads(out.splitlines()[-1])
        return ended[key]

    yield report
    for process in running.values():
        if process.poll() is None:
            process.kill()
        process.communicate()


def _start(python: Path, script: str, world: dict[str, Any]) -> subprocess.Popen[str]:
    foreign = ("SERVERY_", "DATABRICKS_", "MLFLOW_", "OTEL_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return subprocess.Popen(
        [str(python), "-m", f"tests.end_to_end.clients.{script}", json.dumps(world)],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
