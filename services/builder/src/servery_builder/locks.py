"""One builder at a time makes an entry of a cache, among all builders that share the volume.

A lock on a file ends with the process that holds it, however that ends. It is tried again and again instead of
waited for, so that waiting can be cancelled and blocks no thread.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

_RETRY_SECONDS = 0.1


@asynccontextmanager
async def locked(path: Path, *, on_wait: Callable[[], None]) -> AsyncGenerator[int]:
    """Hold the lock file at ``path``; yields its descriptor. ``on_wait`` is called once if it is taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        waited = False
        while not _try_lock(descriptor):
            if not waited:
                on_wait()
                waited = True
            await asyncio.sleep(_RETRY_SECONDS)
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
