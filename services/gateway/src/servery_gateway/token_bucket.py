"""A token bucket: so many requests a second, and a burst. Pure: time is an argument (seconds; must not go back)."""


class TokenBucket:
    """Fills at ``rate`` tokens a second up to ``capacity``. It may be set below zero: then it owes."""

    __slots__ = ("_filled_at", "_tokens", "capacity", "rate")

    def __init__(self, rate: float, capacity: float, now: float) -> None:
        self.rate = rate
        self.capacity = capacity
        self._tokens = capacity
        self._filled_at = now

    def take(self, now: float) -> bool:
        """Take one token; False when there is none."""
        tokens = self._tokens + (now - self._filled_at) * self.rate
        if tokens > self.capacity:
            tokens = self.capacity
        self._filled_at = now
        if tokens < 1.0:
            self._tokens = tokens
            return False
        self._tokens = tokens - 1.0
        return True

    def give_back(self) -> None:
        """Undo a ``take`` whose request was not let in after all."""
        self._tokens += 1.0

    def level(self, now: float) -> float:
        """How many tokens there are."""
        return min(self.capacity, self._tokens + (now - self._filled_at) * self.rate)

    def refill(self, tokens: float, rate: float, capacity: float, now: float) -> None:
        """Let it hold ``tokens`` now, and go on with another rate and capacity."""
        self.rate = rate
        self.capacity = capacity
        self._tokens = min(tokens, capacity)
        self._filled_at = now
