"""Keep what the children print, bounded in size, and read it back.

Every component has its own file; all lines also go, prefixed with the component's name, into one
combined file, which is what makes `servery logs` show them in the order in which they were printed.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

MAX_BYTES = 10_000_000
BACKUPS = 3
LONGEST_LINE = 64 * 1024
COMBINED = "combined"


class RotatingLog:
    """An append-only file that moves to `.1`, `.2`, … when it grows past `max_bytes`.

    A full disk loses log lines, never the process that writes them.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, backups: int = BACKUPS) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._backups = backups
        self._file = path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        """Append `data`, first rotating if it does not fit any more."""
        with suppress(OSError):
            if self._file.tell() > 0 and self._file.tell() + len(data) > self._max_bytes:
                self._rotate()
            self._file.write(data)

    def flush(self) -> None:
        """Do nothing: writes are not buffered."""

    def close(self) -> None:
        """Close the file; writing afterwards is an error."""
        self._file.close()

    def _rotate(self) -> None:
        self._file.close()
        try:
            for number in range(self._backups - 1, 0, -1):
                older = backup_path(self.path, number)
                if older.exists():
                    older.replace(backup_path(self.path, number + 1))
            self.path.replace(backup_path(self.path, 1))
        finally:
            self._file = self.path.open("ab", buffering=0)


class LineLog:
    """The output of one component: whole lines, to its own file and to the combined one."""

    def __init__(self, name: str, own: RotatingLog, combined: RotatingLog) -> None:
        self._prefix = f"{name:<10} | ".encode()
        self._own = own
        self._combined = combined
        self._pending = b""

    def feed(self, data: bytes) -> None:
        """Take what was printed; a line without an end waits for it, within reason."""
        *lines, self._pending = (self._pending + data).split(b"\n")
        if len(self._pending) > LONGEST_LINE:
            lines.append(self._pending)
            self._pending = b""
        if lines:
            self._own.write(b"".join(line + b"\n" for line in lines))
            self._combined.write(b"".join(self._prefix + line + b"\n" for line in lines))

    def end(self) -> None:
        """The component ended: what it printed last is a line even without an end."""
        if self._pending:
            self.feed(b"\n")


def backup_path(path: Path, number: int) -> Path:
    """Return where the `number`-th last rotation of `path` lies; 1 is the newest."""
    return path.with_name(f"{path.name}.{number}")


def last_lines(path: Path, count: int) -> list[str]:
    """Return the last `count` lines of a log, reaching back into one rotation; none if missing."""
    lines: deque[str] = deque(maxlen=count)
    for part in (backup_path(path, 1), path):
        with suppress(FileNotFoundError), part.open(errors="replace") as file:
            lines.extend(line.rstrip("\n") for line in file)
    return list(lines)


def follow(
    path: Path,
    *,
    offset: int,
    keep_waiting: Callable[[], bool],
    interval: float = 0.2,
) -> Iterator[str]:
    """Yield the lines of `path` from byte `offset` on, and new ones as they come, across rotations.

    Ends when `keep_waiting()` is false and nothing is left to read.
    """
    while not path.exists():
        if not keep_waiting():
            return
        time.sleep(interval)
    file = path.open(errors="replace")
    file.seek(offset)
    pending = ""
    try:
        while True:
            # Asked before reading: what was written before the answer turned false is still read.
            waiting = keep_waiting()
            pending += file.read()
            *lines, pending = pending.split("\n")
            yield from lines
            if lines:
                continue
            if _was_replaced(path, file.fileno()):
                # Lines may have come in between the read and the rotation.
                pending += file.read()
                file.close()
                file = path.open(errors="replace")
                continue
            if not waiting:
                if pending:
                    yield pending
                return
            time.sleep(interval)
    finally:
        file.close()


def _was_replaced(path: Path, descriptor: int) -> bool:
    opened = os.fstat(descriptor)
    try:
        current = path.stat()
    except FileNotFoundError:
        return False
    return (opened.st_ino, opened.st_dev) != (current.st_ino, current.st_dev)
