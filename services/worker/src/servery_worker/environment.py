"""The environment variables a runner process starts with: a short list, so that nothing secret gets through."""

from collections.abc import Mapping
from pathlib import Path

PASSED_ON = frozenset(
    {
        "CUDA_VISIBLE_DEVICES",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "LANG",
        "LD_LIBRARY_PATH",
        "NO_PROXY",
        "NVIDIA_DRIVER_CAPABILITIES",
        "NVIDIA_VISIBLE_DEVICES",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "PATH",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "TMPDIR",
        "TZ",
    }
)
"""Names a runner gets from the worker's own environment. Everything else stays here: addresses and passwords of
Servery's services, tracking server credentials, cloud keys, telemetry endpoints."""


def for_runner(own: Mapping[str, str], *, home: Path, environment_path: Path) -> dict[str, str]:
    """The variables a warm parent or a runner starts with; the model's own are added when it loads."""
    kept = {name: value for name, value in own.items() if name in PASSED_ON or name.startswith("LC_")}
    binaries = environment_path / "bin"
    return kept | {
        "HOME": str(home),
        "PATH": f"{binaries}:{kept['PATH']}" if kept.get("PATH") else str(binaries),
        "VIRTUAL_ENV": str(environment_path),
        # Print whole lines at once, and never wait in a buffer that a killed process takes with it.
        "PYTHONUNBUFFERED": "1",
        # Models share an environment: none of them may leave bytecode there that another one would run. The
        # builder compiles environments.
        "PYTHONDONTWRITEBYTECODE": "1",
        # Serving must not start MLflow's telemetry thread: a warm parent has to be without threads.
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
