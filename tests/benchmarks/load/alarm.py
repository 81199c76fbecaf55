"""Wake up at a time to within some microseconds: event loops only know milliseconds, which would count as latency."""

import asyncio
import ctypes
import os

CLOCK_MONOTONIC, TFD_NONBLOCK, TFD_TIMER_ABSTIME = 1, os.O_NONBLOCK, 1


class _Itimerspec(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("interval_s", "interval_ns", "value_s", "value_ns")]


class Alarm:
    """A Linux timerfd (timerfd_create(2)) on the clock of ``time.perf_counter``."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._rang = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._fd, self._ring)

    async def until(self, at: float) -> None:
        """Return at this time; one that has passed rings at once."""
        seconds, nanoseconds = divmod(max(1, int(at * 1e9)), 1_000_000_000)
        self._rang.clear()
        spec = _Itimerspec(0, 0, seconds, nanoseconds)
        if self._libc.timerfd_settime(self._fd, TFD_TIMER_ABSTIME, ctypes.byref(spec), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        await self._rang.wait()

    def close(self) -> None:
        """Give the descriptor back."""
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _ring(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # It was set anew meanwhile.
        self._rang.set()
