"""Run an MLflow tracking server and model registry on the loopback interface.

Runs, models and their files lie in the data directory; clients reach the files through the server.
The server's job runner is switched off: it is for MLflow's own evaluation jobs, and its eight extra
processes cost 1.3 GB of memory and most of the time of the start.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from servery_local.child import ChildSpec
from servery_local.environment import STORE_PREFIXES, inherit
from servery_local.ports import LOOPBACK
from servery_local.probes import http_ok

NAME = "mlflow"
DEFAULT_PORT = 5000


def component(data: Path, port: int, environ: dict[str, str]) -> ChildSpec:
    """Return how to run the server with its database and files in `data`."""
    data.mkdir(mode=0o700, exist_ok=True)
    return ChildSpec(
        name=NAME,
        argv=(
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--backend-store-uri",
            f"sqlite:///{data / 'mlflow.db'}",
            "--serve-artifacts",
            "--artifacts-destination",
            (data / "artifacts").as_uri(),
            "--host",
            LOOPBACK,
            "--port",
            str(port),
            "--workers",
            "1",
        ),
        env={
            **inherit(environ, STORE_PREFIXES),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "PYTHONUNBUFFERED": "1",
        },
        cwd=data,
        stop_stage=2,
        probe=http_ok(port, "/health"),
    )


def url(port: int) -> str:
    """Return the tracking URI of the server."""
    return f"http://{LOOPBACK}:{port}"


def without_secrets(uri: str) -> str:
    """Return a tracking URI as it may be shown: without user, password and secrets among its parameters."""
    shown = re.sub(r"(?<=://)[^/?#]*@", "***@", uri)
    return re.sub(r"(?i)([?&][^=&#]*(?:password|passwd|pwd|secret|token|key)[^=&#]*=)[^&#]*", r"\1***", shown)
