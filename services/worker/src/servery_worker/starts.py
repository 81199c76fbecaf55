"""How many runners are being started now, for those who stand back while there are any."""

import asyncio
import contextlib
from collections.abc import Generator


class Starts:
    """``some`` is set while a runner is being started, ``none`` while not."""

    def __init__(self) -> None:
        self._count = 0
        self.began = 0
        """How many there ever were."""
        self.some = asyncio.Event()
        self.none = asyncio.Event()
        self.none.set()

    @contextlib.contextmanager
    def one(self) -> Generator[None]:
        """During the start of one."""
        self._count += 1
        self.began += 1
        self.some.set()
        self.none.clear()
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self.some.clear()
                self.none.set()
