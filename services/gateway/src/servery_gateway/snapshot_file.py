"""The last-known-good routing snapshot on disk: a gateway that starts while NATS is down scores from it.

It holds no token, only hashes; still the file is readable by its owner alone, since it names users and endpoints.
"""

import asyncio
import os
from pathlib import Path
from typing import Any

import orjson
import structlog
from pydantic import ValidationError

from servery_gateway.routing_table import BUCKETS, Snapshot

FORMAT = 2

log = structlog.get_logger(__name__)


class SnapshotFile:
    """Reads and replaces the file. A write is complete or did not happen."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "routing-snapshot.json"

    def load(self) -> Snapshot:
        """Return what an earlier run left; an empty snapshot when there is nothing or it cannot be read."""
        try:
            return decode(self._path.read_bytes())
        except FileNotFoundError:
            return Snapshot()
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("snapshot_not_read", path=str(self._path), error=str(error))
            return Snapshot()

    def save(self, snapshot: Snapshot) -> None:
        """Replace the file. Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(f".{os.getpid()}.tmp")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(encode(snapshot))
            file.flush()
            os.fsync(descriptor)
        draft.replace(self._path)


class SnapshotWriter:
    """Writes snapshots behind the routing table's back, at most once per ``debounce`` seconds."""

    def __init__(self, file: SnapshotFile, debounce: float) -> None:
        self._file = file
        self._debounce = debounce
        self._newest: Snapshot | None = None
        self._changed = asyncio.Event()

    def note(self, snapshot: Snapshot) -> None:
        """This snapshot should be on disk soon."""
        self._newest = snapshot
        self._changed.set()

    async def run(self) -> None:
        """Write for ever. A disk that is full costs the file, not the service."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self.flush()
            await asyncio.sleep(self._debounce)

    async def flush(self) -> None:
        """Write the newest snapshot if it is not on disk."""
        snapshot, self._newest = self._newest, None
        if snapshot is None:
            return
        try:
            await asyncio.to_thread(self._file.save, snapshot)
        except OSError as error:
            log.error("snapshot_not_written", error=str(error))


def encode(snapshot: Snapshot) -> bytes:
    """Return the file's content."""
    buckets = {
        name: {key: value.model_dump(mode="json") for key, value in getattr(snapshot, name).items()}
        for name in BUCKETS
    }
    return orjson.dumps({"format": FORMAT, "incarnations": dict(snapshot.incarnations), **buckets})


def decode(content: bytes) -> Snapshot:
    """Return the snapshot in a file's content. Raises ValueError, TypeError or KeyError."""
    parsed: dict[str, Any] = orjson.loads(content)
    if parsed["format"] != FORMAT:
        raise ValueError(f"unknown format {parsed['format']!r}")
    try:
        buckets: dict[str, Any] = {
            # A bucket may be missing that the version before did not have.
            name: {key: message.model_validate(value) for key, value in parsed.get(name, {}).items()}
            for name, (_, message) in BUCKETS.items()
        }
        return Snapshot(**buckets, incarnations=dict(parsed["incarnations"]))
    except (ValidationError, AttributeError) as error:
        raise ValueError(str(error)) from error
