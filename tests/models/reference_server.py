"""MLflow's own scoring server for many models: ``python -m tests.models.reference_server PATH=PORT…``.

``mlflow models serve --env-manager local`` does two things: it names the model in the environment variable
``__pyfunc_model_path__`` and executes ``uvicorn --workers 1 mlflow.pyfunc.scoring_server.app:app``. So does
this, once per model, but each server is forked from one process that has done the imports: 8 s of imports
are paid once instead of twenty times. The application, the HTTP server and their settings are the genuine
ones.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys

_IMPORTS = (
    "mlflow.pyfunc.scoring_server",
    "mlflow.sklearn",
    "mlflow.lightgbm",
    "mlflow.pyfunc.model",
    "lightgbm",
    "pandas",
    "skops.io",
    "sklearn.ensemble",
    "sklearn.pipeline",
    "uvicorn",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
    "fastapi",
)


_MODEL_PATH = "__pyfunc_model_path__"


def main(arguments: list[str]) -> None:
    """Serve each ``PATH=PORT`` in a process of its own until terminated."""
    for name in _IMPORTS:
        importlib.import_module(name)
    _list_what_is_installed()
    children = [_fork_server(*argument.rsplit("=", 1)) for argument in arguments]

    def stop(*_: object) -> None:
        for child in children:
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    for child in children:
        os.waitpid(child, 0)


def _list_what_is_installed() -> None:
    """Let MLflow find out which package has which module: it keeps that, and needs it for every model it loads."""
    from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

    warn_dependency_requirement_mismatches(["mlflow"])


def _fork_server(path: str, port: str) -> int:
    child = os.fork()
    if child:
        return child
    import uvicorn

    os.environ[_MODEL_PATH] = path
    uvicorn.run(
        "mlflow.pyfunc.scoring_server.app:app",
        host="127.0.0.1",
        port=int(port),
        workers=1,
        log_level="warning",
    )
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
