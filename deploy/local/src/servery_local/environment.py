"""Decide which variables of the caller's environment each child sees.

Children get what is listed here and nothing else: the shell from which `servery up` is called may
hold credentials that are none of a child's business.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

SYSTEM = frozenset(
    {
        "CURL_CA_BUNDLE", "HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LOGNAME", "PATH",
        "PYTHONPATH", "REQUESTS_CA_BUNDLE", "SHELL", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "TZ",
        "USER", "VIRTUAL_ENV", "ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "all_proxy",
        "http_proxy", "https_proxy", "no_proxy",
    }
)  # fmt: skip
SYSTEM_PREFIXES = ("LC_", "XDG_")
SERVICE_PREFIXES = ("OTEL_", "SERVERY_")
PACKAGE_PREFIXES = ("PIP_", "UV_")
"""Where and how packages are installed from."""
STORE_PREFIXES = ("AWS_", "AZURE_", "GOOGLE_", "MLFLOW_")
"""Access to the model registry and to the storage behind it."""
DEVICE_PREFIXES = ("CUDA_", "NVIDIA_", "OMP_", "MKL_", "OPENBLAS_")

NOTIFICATIONS = ("SERVERY_NOTIFICATIONS_SMTP_URL", "SERVERY_NOTIFICATIONS_WEBHOOK_URL")
"""Where the controller sends notifications; such addresses hold passwords and keys."""
SECRET = frozenset(
    {
        "SERVERY_ADMIN_TOKEN",
        "SERVERY_ENCRYPTION_KEY",
        "SERVERY_NATS_PASSWORD",
        "SERVERY_POSTGRES_URL",
        *NOTIFICATIONS,
    }
)
"""Never inherited: given to those components that need them, by name."""


def inherit(environ: Mapping[str, str], prefixes: Collection[str] = ()) -> dict[str, str]:
    """Return the part of `environ` that a child sees: the system's variables and the prefixes'."""
    taken = (*SYSTEM_PREFIXES, *prefixes)
    return {
        name: value
        for name, value in environ.items()
        if (name in SYSTEM or name.startswith(taken)) and name not in SECRET
    }
