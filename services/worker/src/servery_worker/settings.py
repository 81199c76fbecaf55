"""The worker's settings (``SERVERY_WORKER_…``; the data directory has the name all services share)."""

import os
import uuid
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from servery_worker.usage import read_limits

SLOTS_PER_CPU = 32
LEAST_MODEL_MEMORY = 512 * 1024 * 1024
"""Python with MLflow, pandas and scikit-learn holds half of it before it has loaded anything."""


def _default_capacity() -> int:
    return max(2, os.cpu_count() or 1) * SLOTS_PER_CPU


def _default_model_memory() -> int:
    return max(LEAST_MODEL_MEMORY, read_limits().memory_bytes // 2)


def _default_warm_memory() -> int:
    return read_limits().memory_bytes // 4


class WorkerSettings(BaseSettings):
    """Limits and patience of one worker process."""

    model_config = SettingsConfigDict(env_prefix="SERVERY_WORKER_", populate_by_name=True)

    data_dir: Path = Field(validation_alias="SERVERY_DATA_DIR")
    """This worker's own state: its id, the runner overlay, scratch directories of replicas."""
    id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9]{1,32}$")
    """This worker's id, where whoever starts it knows it by one; by default one that stays with the data directory."""
    incarnation: str = Field(default_factory=lambda: uuid.uuid4().hex)
    """Another one for each life of the worker, which is known by it and its id."""
    serves_one: bool = False
    """In a container of one replica: it verifies no models for the builder, and asks for no tokens for its model, which
    could show them to nobody."""
    capacity_slots: int = Field(default_factory=_default_capacity, ge=1)
    """Slots of all replicas together. A slot is a thread that mostly waits for traffic, so many more fit
    than there are cores; memory for the models is what ends first, hence 32 per core and not hundreds."""
    warm_memory_bytes: int = Field(default_factory=_default_warm_memory, ge=0)
    """What warm parents that no replica needs now may hold together. Each makes the next start of its environment
    take a tenth of a second instead of an import (7 s for scikit-learn on two cores), and holds 100 to 500 MB.
    Beyond this the least recently used go first; those with replicas are not counted and not ended. By default a
    quarter of what the machine or its control group has; 0 keeps none. Measured is what the kernel cannot take back
    while the parent lives: resident memory without mapped files (``RssAnon`` and ``RssShmem``). It shares that with
    nobody, as it has no runners."""
    warm_up_timeout_seconds: float = 180.0
    """Longest a warm parent may import. A cold disk cache makes large frameworks take minutes."""
    load_timeout_seconds: float = 600.0
    """Longest a model may load before its start counts as failed. Weights of several GB are read in this time."""
    deadline_grace_seconds: float = 2.0
    """How long past its deadline a request may compute before its runner is killed and replaced. The caller
    has its answer by then; a little patience saves the other requests of that runner from dying with it."""
    drain_grace_seconds: float = 25.0
    """How long accepted requests may finish after SIGTERM. Kubernetes sends SIGKILL after 30 s by default."""
    model_memory_bytes: int = Field(default_factory=_default_model_memory, ge=LEAST_MODEL_MEMORY)
    """What the process of one replica may hold, its imported packages included. A request that wants more is
    answered 400 with the reason; a process that holds more all the same, in memory it shares, is replaced. By default
    half of what the machine or its control group has: on 8 GiB that is the 4 GB Databricks gives a model on CPU, and
    no single model takes the memory of the others and of the services. A limit per replica, not for their sum."""
    max_answer_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    """Longest answer a model may give; a longer one is answered 400 and never leaves the model's process. Not lower
    than the gateways' ``max_answer_bytes``, or theirs cannot be reached. Streamed answers may be longer."""
    heartbeat_seconds: float = 1.0
    """Pause between heartbeats; a change of state is told at once. The controller counts missed ones."""
    kept_logs: int = Field(default=50, ge=0)
    """Logs of replicas that are gone, kept for whoever asks why they are."""

    def worker_id(self) -> str:
        """The given id, or that of this data directory, made at the first call: the same after a restart."""
        if self.id is not None:
            return self.id
        path = self.data_dir / "worker_id"
        if not path.exists():
            self.data_dir.mkdir(parents=True, exist_ok=True)
            fresh = path.with_suffix(f".{os.getpid()}")
            fresh.write_text(uuid.uuid4().hex)
            fresh.replace(path)
        return path.read_text().strip()
