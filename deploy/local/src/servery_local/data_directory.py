"""Where everything of one embedded stack lies on disk, and the secrets and the lock kept there.

    .servery/
      supervisor.lock   held by the running supervisor
      state.json        what runs, for `status`, `down` and the next `up`
      secrets.json      generated once: admin token, passwords, keys, id of the stack  (0600)
      ports.json        ports kept between runs
      tracking.json     the address of the MLflow in use, with its password if it has one   (0600)
      run/              sockets, only while running
      logs/  postgres/  nats/  mlflow/  artifacts/  services/<name>/

The lock is an flock: the kernel lets go of it when the supervisor dies, whatever the way.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from servery_local.errors import AlreadyRunning, LocalError
from servery_local.invocation import command

LONGEST_SOCKET_PATH = 103
"""Bytes of a unix socket path that every kernel takes (macOS: 104 with the final zero, Linux 108)."""
LONGEST_SOCKET_NAME = "/postgres/.s.PGSQL.5432"
RUNTIME_PREFIX = "servery-"


@dataclass(frozen=True)
class Secrets:
    """What is generated once per data directory."""

    admin_token: str
    nats_password: str
    stack_id: str
    encryption_key: str
    """32 bytes in Base64: what the controller encrypts secrets with before they reach the database."""

    @classmethod
    def generate(cls) -> Secrets:
        """Make new ones; the token looks like a personal access token of Databricks."""
        return cls(
            admin_token=f"dapi{secrets.token_hex(16)}",
            nats_password=secrets.token_hex(16),
            stack_id=secrets.token_hex(8),
            encryption_key=base64.b64encode(secrets.token_bytes(32)).decode(),
        )


@dataclass(frozen=True)
class DataDirectory:
    """The paths inside `root`, which is absolute."""

    root: Path

    @property
    def lock(self) -> Path:
        """The file the supervisor locks."""
        return self.root / "supervisor.lock"

    @property
    def state(self) -> Path:
        """What the supervisor says about itself and its children."""
        return self.root / "state.json"

    @property
    def secrets(self) -> Path:
        """Generated secrets, readable by the owner only."""
        return self.root / "secrets.json"

    @property
    def ports(self) -> Path:
        """Ports that were free once and are tried again first."""
        return self.root / "ports.json"

    @property
    def tracking(self) -> Path:
        """The MLflow that is used, readable by the owner only."""
        return self.root / "tracking.json"

    @property
    def logs(self) -> Path:
        """One log per component, and the supervisor's own."""
        return self.root / "logs"

    @property
    def artifacts(self) -> Path:
        """Built environments and downloaded models."""
        return self.root / "artifacts"

    def component(self, name: str) -> Path:
        """Where Postgres, NATS and MLflow keep their data."""
        return self.root / name

    def service(self, name: str) -> Path:
        """Where a service may keep state of its own."""
        return self.root / "services" / name

    def create(self) -> None:
        """Make the directory, closed to other users; as root others may pass through it.

        The database server refuses to run as root, so its own user must be able to reach its files.
        Raises `LocalError` if it cannot be made.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.root.chmod(0o711 if os.geteuid() == 0 else 0o700)
            for private in (self.logs, self.artifacts, self.root / "services"):
                private.mkdir(mode=0o700, exist_ok=True)
            ignore = self.root / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
        except OSError as error:
            raise LocalError(f"cannot use {self.root} as data directory: {error.strerror}") from error

    @contextmanager
    def locked(self) -> Generator[None]:
        """Hold the directory for one supervisor; `AlreadyRunning` if another one does."""
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunning(
                    f"Servery already runs on {self.root}, or is just starting there.\n"
                    f"See it with `{command(self.root, 'status')}`, stop it with "
                    f"`{command(self.root, 'down')}`, or choose another directory with --data-dir."
                ) from None
            yield
        finally:
            os.close(descriptor)

    def is_locked(self) -> bool:
        """Tell whether a supervisor holds this directory."""
        if not self.lock.exists():
            return False
        try:
            with self.locked():
                return False
        except AlreadyRunning:
            return True

    def load_secrets(self) -> Secrets:
        """Return the secrets, generating them the first time."""
        known = read_json(self.secrets) if self.secrets.exists() else {}
        # A directory from before a secret existed gets the new one and keeps the others.
        complete = asdict(Secrets.generate()) | known
        if complete != known:
            write_json(self.secrets, complete)
        return Secrets(**complete)

    def load_ports(self) -> dict[str, int]:
        """Return the ports of the last run by component; empty before the first."""
        return read_json(self.ports) if self.ports.exists() else {}

    def save_ports(self, ports: Mapping[str, int]) -> None:
        """Remember the ports for the next run."""
        write_json(self.ports, dict(ports))

    def load_tracking_uri(self) -> str:
        """Return the address of MLflow as clients need it."""
        return read_json(self.tracking)["uri"]

    def save_tracking_uri(self, uri: str) -> None:
        """Keep the address of MLflow, which may hold a password, for `servery env` alone."""
        write_json(self.tracking, {"uri": uri})

    def create_runtime(self) -> Path:
        """Make an empty directory for sockets: `run/`, or a short one elsewhere if that is too long.

        Other users may pass through it but not list it; what needs more care has its own directory.
        """
        runtime = self.root / "run"
        if fits_socket(runtime):
            shutil.rmtree(runtime, ignore_errors=True)
            runtime.mkdir()
        else:
            short = fits_socket(Path(tempfile.gettempdir()) / f"{RUNTIME_PREFIX}12345678")
            place = None if short else "/tmp"
            runtime = Path(tempfile.mkdtemp(prefix=RUNTIME_PREFIX, dir=place))
        runtime.chmod(0o711 if os.geteuid() == 0 else 0o700)
        return runtime

    def remove_runtime(self, runtime: Path) -> None:
        """Remove a directory that `create_runtime` made; anything else is left alone."""
        made_elsewhere = runtime.name.startswith(RUNTIME_PREFIX) and not runtime.is_symlink()
        if runtime == self.root / "run" or made_elsewhere:
            shutil.rmtree(runtime, ignore_errors=True)


def fits_socket(runtime: Path) -> bool:
    """Tell whether the longest socket name still fits below `runtime`."""
    return len(os.fsencode(runtime)) + len(LONGEST_SOCKET_NAME) <= LONGEST_SOCKET_PATH


def read_json(path: Path) -> dict[str, Any]:
    """Return the object stored at `path`."""
    return json.loads(path.read_text())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace `path` in one step by `value`, readable by the owner only."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
