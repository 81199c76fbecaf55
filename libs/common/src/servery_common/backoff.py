"""Delays between attempts.

Full jitter: each delay is drawn between zero and a bound that doubles, so that clients which failed
together do not come back together.
"""

import random
from collections.abc import Callable, Iterator


def full_jitter(
    base: float, cap: float, *, draw: Callable[[float, float], float] = random.uniform
) -> Iterator[float]:
    """Yield delays in seconds for ever: uniform in ``[0, min(cap, base * 2**attempt)]``."""
    bound = min(base, cap)
    while True:
        yield draw(0.0, bound)
        bound = min(cap, bound * 2)
