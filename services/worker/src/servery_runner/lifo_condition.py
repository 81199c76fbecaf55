"""A condition variable that wakes whoever began to wait last."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Optional


class LifoCondition:
    """As ``threading.Condition``, which wakes whoever has waited longest.

    For threads that all do the same: with little to do it is the same one that does it, whose stack, allocator arena
    and processor caches are warm. In turn, each would find them cold.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: list[threading.Lock] = []
        """A locked lock for each thread that waits; opened to wake it."""

    def __enter__(self) -> LifoCondition:
        self._lock.acquire()
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._lock.release()

    def wait(self, timeout: Optional[float] = None) -> None:
        """Give the lock back until notified, or for ``timeout`` seconds. What is waited for must be looked at again."""
        waiter = threading.Lock()
        waiter.acquire()
        self._waiters.append(waiter)
        self._lock.release()
        try:
            waiter.acquire(timeout=-1 if timeout is None else timeout)
        finally:
            self._lock.acquire()
            # Not there any more when it was notified.
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def notify(self, count: int = 1) -> None:
        """Wake up to ``count`` of those that wait, with the lock held."""
        for waiter in [self._waiters.pop() for _ in range(min(count, len(self._waiters)))]:
            waiter.release()
