"""Which requests the model has seen: written by the runner into memory it shares with its agent.

It is only read after the runner died, or is late. So beginning a prediction costs no message, and what is written is
there however the runner ends.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from collections import deque
from pathlib import Path
from typing import Iterable

MOST_JOINED = 32
"""Requests a replica accepts for each of its slots when they are predicted together."""

_PLACE = struct.Struct("=q")


def places(slots: int) -> int:
    """How many requests a runner may have at a time."""
    return slots * MOST_JOINED


class Numbers:
    """Numbers of requests, each higher than the one before; of those in use no two have the same place in the table."""

    def __init__(self, slots: int) -> None:
        self._places = places(slots)
        self._free = deque([*range(1, self._places), 0])
        self._last = 0

    def take(self) -> int:
        """Return the next number. Raises IndexError when all places are taken."""
        place = self._free.popleft()
        self._last += (place - self._last) % self._places or self._places
        return self._last

    def give_back(self, number: int) -> None:
        """The runner will not hear of this request again."""
        self._free.append(number % self._places)


class BegunMarks:
    """The runner's end of the table."""

    def __init__(self, path: str, slots: int) -> None:
        self._places = places(slots)
        with Path(path).open("r+b") as file:
            self._table = mmap.mmap(file.fileno(), self._places * _PLACE.size)

    def mark(self, numbers: Iterable[int]) -> None:
        """The model is about to see these requests."""
        for number in numbers:
            self._write(number, number)

    def put_back(self, numbers: Iterable[int]) -> None:
        """The model has seen these, and they wait to be predicted once more."""
        for number in numbers:
            self._write(number, -number)

    def _write(self, number: int, mark: int) -> None:
        # Eight aligned bytes: written whole or not at all.
        _PLACE.pack_into(self._table, number % self._places * _PLACE.size, mark)


class BegunTable:
    """The agent's end. Read, not mapped: a runner that cuts the file short cannot hurt its agent."""

    def __init__(self, directory: Path, slots: int) -> None:
        self._places = places(slots)
        descriptor, self.path = tempfile.mkstemp(prefix="begun-", dir=directory)
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        self._file.truncate(self._places * _PLACE.size)

    def has(self, number: int) -> bool:
        """Whether the model has seen this request."""
        return self._read(number) in (number, -number, None)

    def is_predicted(self, number: int) -> bool:
        """Whether it is being predicted now, unless that is over."""
        return self._read(number) in (number, None)

    def _read(self, number: int) -> int | None:
        """Return what stands in its place; None when the runner has meddled with that: better never than twice."""
        entry = os.pread(self._file.fileno(), _PLACE.size, number % self._places * _PLACE.size)
        return _PLACE.unpack(entry)[0] if len(entry) == _PLACE.size else None

    def close(self) -> None:
        """Remove it."""
        self._file.close()
        Path(self.path).unlink(missing_ok=True)
