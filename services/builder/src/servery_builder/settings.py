"""The builder's settings (``SERVERY_BUILDER_…``), and the two it shares with others.

How uv reaches packages is uv's own matter: every ``UV_*`` variable (``UV_DEFAULT_INDEX``, ``UV_INDEX``,
``UV_CACHE_DIR``, ``UV_PYTHON_INSTALL_DIR``, ``UV_OFFLINE`` …), the proxy variables and ``SSL_CERT_FILE`` are passed on.
"""

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class BuilderSettings(BaseSettings):
    """What can be set about building."""

    model_config = SettingsConfigDict(env_prefix="SERVERY_BUILDER_", populate_by_name=True)

    artifacts_dir: Path = Field(validation_alias="SERVERY_ARTIFACTS_DIR")
    """Where environments and models are kept; workers see the same files under the same path."""

    mlflow_tracking_uri: str = Field(validation_alias="MLFLOW_TRACKING_URI", repr=False)
    """The MLflow tracking server and registry. Not shown: it may hold a password."""

    concurrency: int = Field(default=2, ge=1)
    """Builds at the same time. Installing is bound by disk and network, so more than a few gain little."""

    build_timeout: timedelta = timedelta(minutes=30)
    """Longest a build may take, from its first start, waiting for a worker included. Large frameworks take minutes
    to download; a build that takes longer than this hangs."""

    lease: timedelta = timedelta(seconds=10)
    """How long a silent builder keeps its build. Longer delays the takeover when a builder dies; shorter risks
    building twice when the database is slow."""

    max_attempts: int = Field(default=3, ge=1)
    """How often a build is started when the builder dies under it, before the build is taken for the cause."""

    poll_interval: timedelta = timedelta(seconds=1)
    """How often to look for builds nobody announced: ones of a builder that died, or whose hint was lost."""

    resolve_timeout: timedelta = timedelta(seconds=5)
    """Longest to wait for MLflow when a request asks which version a name means; a client waits meanwhile."""

    registry_patience: timedelta = timedelta(minutes=2)
    """How long a running build tries again while MLflow does not answer, so that a restart of MLflow fails no build."""

    engine_patience: timedelta = timedelta(minutes=5)
    """How long a running build waits for a Docker engine that cannot be reached, from when it was missed: its restart
    fails no build, nor does a socket that is mounted late. Within ``build_timeout``."""

    log_limit_bytes: int = Field(default=1024 * 1024, ge=64 * 1024)
    """Bytes of log kept per build: the first and the last half."""

    wheels_only: bool = False
    """Take packages as wheels and build none from source: building one runs its code, as this builder. To be set where
    the builder has an engine's socket."""

    images: Literal["none", "docker"] = "none"
    """``docker``: each model version becomes an image of the engine at ``DOCKER_HOST`` or its usual socket."""

    image_base: str = "servery-worker:0.1.0"
    """The worker's image, on which a model's environment and files are put. Its Python is the builder's."""

    image_installation: str = "servery"
    """Label of everything this installation makes on an engine, which others may use, too."""

    image_buildx: str | None = None
    """Path of ``docker-buildx``; by default looked for on the path and among Docker's plugins."""

    image_cache_bytes: int = Field(default=50 * 1024**3, ge=0)
    """What images of models and environments may take together. Beyond it those that no endpoint needs are removed, the
    oldest first."""

    engine_cache_bytes: int = Field(default=20 * 1024**3, ge=0)
    """What BuildKit may keep on the engine of what it has made images from. Beyond it the least recently used goes, of
    whoever builds on that engine."""

    image_prune_interval: timedelta = timedelta(minutes=10)
    """How often to look what they take."""

    verification_memory_bytes: int | None = Field(default=None, ge=256 * 1024**2)
    """What a model may hold while it is verified in a container; by default what its ``workload_type`` gives."""

    compile_bytecode: bool = True
    """Compile a new environment's packages after its first build. Starting from compiled packages is two to three times
    as fast; compiling takes longer than installing, so it happens afterwards, at low priority."""
