"""Wait for something to become true, with a deadline instead of a fixed sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    look: Callable[[], T | None],
    *,
    within: float,
    what: str,
    explain: Callable[[], str] = lambda: "",
    interval: float = 0.1,
) -> T:
    """Call ``look`` until it returns something true, and return that.

    Assertion errors of ``look`` count as "not yet"; other exceptions end the wait. After ``within`` seconds
    the test fails, saying ``what`` was awaited, the last assertion and whatever ``explain`` adds.
    """
    deadline = time.monotonic() + within
    last = ""
    while True:
        try:
            if found := look():
                return found
        except AssertionError as error:
            last = f"\nlast seen: {error}"
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s: {what}{last}\n{explain()}")
        time.sleep(interval)
