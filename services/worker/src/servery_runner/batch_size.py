"""How many rows to predict at once: as many as save time, no more. Pure.

A prediction of n rows takes about ``fixed + per_row * n`` seconds. Joining requests spares all but one ``fixed``;
once ``per_row * n`` is several times that, more rows save next to nothing and only make the first of them wait for
the last. Both are estimated by least squares over recent predictions (old ones count less and less), as BentoML's
dispatcher does for its waiting time.
"""

from __future__ import annotations

WORTH = 4.0
"""Rows may take up to this many times the fixed part: at least WORTH / (WORTH + 1) of what joining can save is
saved."""
UNNOTICED_SECONDS = 0.004
"""Nobody minds this much more waiting."""
MEMORY = 0.98
"""What a prediction counts for after one more. Half after 35."""
CPU_MEMORY = 0.9
WAITS_BELOW = 0.5
"""A model that uses less of a processor than this while it predicts waits for something else."""


class BatchSize:
    """What was seen of one model's predictions. Not for several threads at once: the caller has a lock."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._largest = 1
        self._weight = self._n = self._t = self._nn = self._nt = 0.0
        self._usual = 0.0
        self._cpu_share = 1.0

    def record(
        self, rows: int | None, seconds: float, busy: float | None = None, *, alone: bool = True
    ) -> None:
        """A prediction of ``rows`` rows (None: not counted) took so long.

        ``busy``: the most of a processor that can have been in use for it (``Effort.busy``); None: not measured.
        Unless it was ``alone``, that was in use for others, too, and tells something only when it is little.
        """
        self._usual += (1 - CPU_MEMORY) * (seconds - self._usual) if self._usual else seconds
        if busy is not None and (alone or busy < WAITS_BELOW):
            self._cpu_share += (1 - CPU_MEMORY) * (busy - self._cpu_share)
        if rows is None:
            return
        self._weight = self._weight * MEMORY + 1
        self._n = self._n * MEMORY + rows
        self._t = self._t * MEMORY + seconds
        self._nn = self._nn * MEMORY + rows * rows
        self._nt = self._nt * MEMORY + rows * seconds
        self._largest = max(self._largest, rows)

    @property
    def limit(self) -> int:
        """Most rows to join now. What was never tried is approached by doubling."""
        most = min(self._max_rows, 2 * self._largest)
        fixed, per_row = self._line()
        if per_row <= 0:
            return most
        return max(1, min(most, int(max(WORTH * fixed, UNNOTICED_SECONDS) / per_row)))

    @property
    def typical_seconds(self) -> float:
        """How long a prediction takes."""
        return self._usual

    @property
    def waits(self) -> bool:
        """Whether the model spends its time waiting, so that predictions side by side cost nothing."""
        return self._cpu_share < WAITS_BELOW

    def _line(self) -> tuple[float, float]:
        if not self._weight:
            return 0.0, 0.0
        mean_n, mean_t = self._n / self._weight, self._t / self._weight
        spread = self._nn / self._weight - mean_n * mean_n
        if spread < 1e-9:
            return mean_t, 0.0
        per_row = (self._nt / self._weight - mean_n * mean_t) / spread
        return max(0.0, mean_t - per_row * mean_n), per_row
