"""Find out, before anything is made or started, why a stack could not run as asked.

Run before a new data directory is made, so that a refused start leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Mapping

from servery_local import mlflow, ports
from servery_local.data_directory import DataDirectory


def external_mlflow(directory: DataDirectory, environ: Mapping[str, str]) -> str | None:
    """Return the tracking URI of an MLflow that is not this stack's own; None if there is none.

    After `eval "$(servery env)"` the variable names the MLflow this stack ran itself, which is not external.
    """
    uri = environ.get(mlflow.VARIABLE)
    return None if not uri or mlflow.is_own(uri, directory.load_ports().get(mlflow.NAME)) else uri


def check(directory: DataDirectory, host: str, port: int, environ: Mapping[str, str]) -> None:
    """Raise a `LocalError` if the gateway cannot have its address or the external MLflow does not answer."""
    ports.require_free(port, host)
    uri = external_mlflow(directory, environ)
    if uri is not None:
        mlflow.require_answering(uri)
