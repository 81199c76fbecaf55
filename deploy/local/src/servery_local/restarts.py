"""Decide how long a child that died stays down, and when to give up on it.

Pure: the caller brings how long the child lived and a random number, and waits. The delay doubles
with every death and is forgotten once the child has lived for a while. Only a child that never
became ready is given up on: after that, a broken dependency may still come back.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RestartPolicy:
    """Times in seconds."""

    first_delay: float = 0.5
    longest_delay: float = 30.0
    stable_after: float = 60.0
    """A child that lived this long starts again with the first delay."""
    attempts: int = 3
    """Deaths after which a child that was never ready counts as broken."""

    def deaths_after(self, deaths: int, lifetime: float) -> int:
        """Count one more death in a row of a child that lived for `lifetime` seconds."""
        return 1 if lifetime >= self.stable_after else deaths + 1

    def delay(self, deaths: int, chance: float) -> float:
        """Return the pause before the next start after `deaths` deaths in a row (at least one).

        `chance` in [0, 1) spreads the pause over its upper half, so that children that died
        together do not return together.
        """
        full = min(self.longest_delay, self.first_delay * 2.0 ** min(deaths - 1, 32))
        return full * (0.5 + chance / 2)

    def is_hopeless(self, deaths: int, *, was_ready: bool) -> bool:
        """Tell whether to give up after `deaths` deaths in a row."""
        return not was_ready and deaths >= self.attempts
