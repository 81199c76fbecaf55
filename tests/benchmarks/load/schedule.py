"""When the requests of an open loop are due. Pure."""

import random
from collections.abc import Iterator


def constant(rate: float, seconds: float) -> Iterator[float]:
    """Yield due times, in seconds from the start, at equal distances."""
    for number in range(round(rate * seconds)):
        yield number / rate


def poisson(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """Yield due times as independent callers make them: exponential distances."""
    source = random.Random(seed)
    at = source.expovariate(rate)
    while at < seconds:
        yield at
        at += source.expovariate(rate)
