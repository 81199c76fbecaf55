"""Run an MLflow tracking server and model registry on the loopback interface.

Runs, models and their files lie in the data directory; clients reach the files through the server.
The server's job runner is switched off: it is for MLflow's own evaluation jobs, and its eight extra
processes cost 1.3 GB of memory and most of the time of the start.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from servery_local.child import ChildSpec
from servery_local.environment import STORE_PREFIXES, inherit
from servery_local.errors import LocalError
from servery_local.ports import LOOPBACK
from servery_local.probes import http_ok

NAME = "mlflow"
VARIABLE = "MLFLOW_TRACKING_URI"
DEFAULT_PORT = 5000
ANSWER_WITHIN = 5.0
THIS_MACHINE = frozenset({LOOPBACK, "localhost", "::1"})
HEALTH_PATHS = ("/health", "/version")
CLOSED = frozenset({401, 403})
"""Statuses of a server that wants credentials first."""


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
            # A client's variable: here it could only name another server, or this one as it was before.
            **{name: value for name, value in inherit(environ, STORE_PREFIXES).items() if name != VARIABLE},
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


def is_own(uri: str, port: int | None) -> bool:
    """Tell whether `uri` is where a stack that had `port` ran its own server."""
    parts = _split(uri)
    return (
        port is not None
        and parts is not None
        and (parts.hostname, parts.port) in {(host, port) for host in THIS_MACHINE}
        and parts.path in {"", "/"}
    )


def require_answering(uri: str) -> None:
    """Raise a `LocalError` in one sentence unless an MLflow answers at `uri` within some seconds."""
    shown = without_secrets(uri)
    way_out = f"correct it, or `unset {VARIABLE}` to let Servery run an MLflow of its own."
    if _split(uri) is None:
        raise LocalError(
            f"{VARIABLE} is {shown}, but Servery needs the http(s) address of an MLflow server: {way_out}"
        )
    problem = _why_not(uri)
    if problem is not None:
        raise LocalError(f"{VARIABLE} is {shown}, but {problem}: {way_out}")


def _why_not(uri: str) -> str | None:
    """Return why there is no MLflow at `uri`; None if there is one."""
    import httpx

    # Only whether it answers is asked. So no password is sent, and whose certificate it has does not matter here.
    address = httpx.URL(uri).copy_with(userinfo=b"", query=None, fragment=None)
    base = str(address).rstrip("/")
    status = 0
    try:
        with httpx.Client(
            timeout=ANSWER_WITHIN,
            verify=False,
            follow_redirects=True,
            trust_env=address.host not in THIS_MACHINE,
        ) as client:
            for path in HEALTH_PATHS:
                status = client.get(base + path).status_code
                if status < 300 or status in CLOSED:
                    return None
    except httpx.HTTPError as error:
        return f"nothing answers there ({str(error) or type(error).__name__})"
    return f"what answers there is no MLflow that works (HTTP {status} to {HEALTH_PATHS[0]})"


def _split(uri: str) -> SplitResult | None:
    """Return the parts of an http(s) address; None for anything else."""
    try:
        parts = urlsplit(uri)
        return parts if parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0 else None
    except ValueError:  # such as a port that is no number
        return None


def without_secrets(uri: str) -> str:
    """Return a tracking URI as it may be shown: without user, password and secrets among its parameters."""
    shown = re.sub(r"(?<=://)[^/?#]*@", "***@", uri)
    return re.sub(r"(?i)([?&][^=&#]*(?:password|passwd|pwd|secret|token|key)[^=&#]*=)[^&#]*", r"\1***", shown)
