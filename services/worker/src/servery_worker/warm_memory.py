"""Which warm parents to keep when nobody needs them now: as many as the memory set aside for that holds.

Pure. A parent with runners, or one that is just being asked for a runner, is in use: ending it would end them, so it
is never chosen and does not count. Of the others those used last stay: a parent counts as used as long as it has
runners, so one whose endpoint has just gone to zero is the last to go.
"""

from collections.abc import Iterable
from typing import NamedTuple


class Kept(NamedTuple):
    """A live warm parent."""

    environment_key: str
    memory_bytes: int
    in_use: bool
    used_at: float
    """When it was last in use, in seconds of any clock."""


def to_end(parents: Iterable[Kept], budget_bytes: int) -> list[str]:
    """Environment keys of the parents to end, the least recently used first.

    None is kept that was used before one that is ended: a small one does not outlive a large one that is more likely
    to be asked for.
    """
    free = budget_bytes
    ended: list[str] = []
    for parent in sorted((p for p in parents if not p.in_use), key=lambda p: p.used_at, reverse=True):
        free -= parent.memory_bytes
        if free < 0:
            ended.append(parent.environment_key)
    return ended[::-1]
