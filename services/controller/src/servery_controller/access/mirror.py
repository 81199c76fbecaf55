"""Keeps a key-value bucket equal to what Postgres says, with several controllers writing to it.

A mirror follows its bucket, so it compares with what is there and writes differences only. Whoever writes takes
a ``snapshot`` *before* reading Postgres: a key is put and deleted only over the revision in the snapshot. So a
controller that read Postgres, was held up and then goes on cannot bring back what another one has removed
meanwhile, nor remove what another one has added or changed.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from servery_common.contracts.message import Message
from servery_common.errors import Conflict
from servery_common.messaging.port import Bus, KvChange
from servery_common.messaging.streams import DELETE_MARKER_SECONDS

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Entry(Generic[M]):
    """A key's last value, None once it was deleted, and its revision."""

    value: M | None
    revision: int
    seen_at: float


class Snapshot(Generic[M]):
    """What a bucket held at one moment."""

    def __init__(self, entries: Mapping[str, Entry[M]]) -> None:
        self._entries = dict(entries)

    @property
    def values(self) -> dict[str, M]:
        """The present values by key."""
        return {key: e.value for key, e in self._entries.items() if e.value is not None}

    def value(self, key: str) -> M | None:
        """The value of one key."""
        entry = self._entries.get(key)
        return entry.value if entry else None

    def revision(self, key: str) -> int:
        """The key's revision; 0 when it never had one."""
        entry = self._entries.get(key)
        return entry.revision if entry else 0


class Mirror(Generic[M]):
    """One bucket. ``changed`` is called when somebody else changed it."""

    def __init__(self, bus: Bus, bucket: str, message: type[M], changed: Callable[[], None]) -> None:
        self._bus = bus
        self._bucket = bucket
        self._message = message
        self._changed = changed
        self._entries: dict[str, Entry[M]] = {}
        self.caught_up = asyncio.Event()
        """Set once the bucket is known."""

    async def follow(self) -> None:
        """Keep up with the bucket, for ever."""
        async for change in self._bus.kv_watch(self._bucket, self._message):
            self._apply(change)

    def snapshot(self) -> Snapshot[M]:
        """What the bucket holds now, as far as this process has heard."""
        forgotten = time.monotonic() - DELETE_MARKER_SECONDS
        for key in [k for k, e in self._entries.items() if e.value is None and e.seen_at < forgotten]:
            del self._entries[key]
        return Snapshot(self._entries)

    async def write(
        self, before: Snapshot[M], desired: Mapping[str, M], within: Callable[[str, M], bool]
    ) -> bool:
        """Make the part of the bucket that is ``within`` hold exactly ``desired``.

        ``before`` was taken before ``desired`` was read. Returns False when somebody else wrote meanwhile: then
        read again. Raises Unavailable.
        """
        undisturbed = True
        for key, value in desired.items():
            if before.value(key) == value:
                continue
            try:
                revision = await self._bus.kv_put(self._bucket, key, value, expected=before.revision(key))
            except Conflict:
                undisturbed = False
            else:
                self._entries[key] = Entry(value, revision, time.monotonic())
        for key, value in before.values.items():
            if key not in desired and within(key, value):
                try:
                    await self._delete(key, before.revision(key))
                except Conflict:
                    undisturbed = False
        return undisturbed

    async def delete(self, key: str) -> None:
        """Delete a key, whatever it holds and whether it is known to be there or not. Raises Unavailable."""
        await self._delete(key, None)

    async def _delete(self, key: str, expected: int | None) -> None:
        await self._bus.kv_delete(self._bucket, key, expected=expected)
        known = self._entries.get(key)
        self._entries[key] = Entry(None, known.revision if known else 0, time.monotonic())

    def _apply(self, change: KvChange[M]) -> None:
        if change.caught_up:
            for key in change.missing:
                self._entries.pop(key, None)
            if change.missing or not self.caught_up.is_set():
                self._changed()
            self.caught_up.set()
            return
        known = self._entries.get(change.key)
        if known is not None and known.revision == change.revision:
            return
        self._entries[change.key] = Entry(change.value, change.revision, time.monotonic())
        if known is None or known.value != change.value:
            self._changed()
