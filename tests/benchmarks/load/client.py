"""Order load from a process of its own, and read what came of it."""

import json
import math
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Target:
    """A server and what it is sent."""

    name: str
    url: str
    path: str
    body: str | int
    """The body, or the length of one of x."""
    headers: Mapping[str, str] = field(default_factory=dict)
    expected: str | None = None
    """The body of each 200; None: anything."""

    def order(self, **wanted: Any) -> dict[str, Any]:
        """As the generator reads it."""
        address = urlsplit(self.url)
        return {
            "host": address.hostname,
            "port": address.port,
            "path": self.path,
            "body": self.body,
            "headers": {"Content-Type": "application/json", **self.headers},
            "expected": self.expected,
            **wanted,
        }


@dataclass
class Outcome:
    """What came of one load, or of several added up."""

    began: float = 0.0
    """When the first load began, on the clock of ``time.perf_counter``, which all processes share."""
    seconds: float = 0.0
    in_time: int = 0
    """Right answers that came within ``seconds``. Those to the last requests come later: a closed loop has one for
    each connection, which would make a slow server look fast."""
    statuses: dict[str, int] = field(default_factory=dict)
    wrong: int = 0
    lost: int = 0
    unsent: int = 0
    without_retry_after: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    done_at: list[float] = field(default_factory=list)
    rejections_ms: list[float] = field(default_factory=list)
    rejected_at: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0

    def add(self, other: "Outcome") -> None:
        """Take in another load on the same target."""
        self.began = self.began or other.began
        self.seconds += other.seconds
        for status, count in other.statuses.items():
            self.statuses[status] = self.statuses.get(status, 0) + count
        for name in ("in_time", "wrong", "lost", "unsent", "without_retry_after", "cpu_seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("latencies_ms", "done_at", "rejections_ms", "rejected_at"):
            getattr(self, name).extend(getattr(other, name))

    @property
    def ok(self) -> int:
        """Right answers."""
        return self.statuses.get("200", 0) - self.wrong

    @property
    def per_second(self) -> float:
        """Right answers a second, of those that came while requests were being sent."""
        return self.in_time / self.seconds if self.seconds else 0.0

    @property
    def errors(self) -> int:
        """Everything that was not answered rightly with 200."""
        others = sum(count for status, count in self.statuses.items() if status != "200")
        return others + self.wrong + self.lost + self.unsent

    def percentile(self, share: float) -> float:
        """A percentile of the latencies of right answers, in milliseconds."""
        return percentile(self.latencies_ms, share)

    def summary(self) -> dict[str, Any]:
        """For the results file."""
        return {
            "seconds": round(self.seconds, 1),
            "per_second": round(self.per_second, 1),
            "statuses": self.statuses,
            "errors": self.errors,
            **{f"p{share:g}": round(self.percentile(share), 2) for share in (50, 90, 99, 99.9, 100)},
        }


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that ``share`` percent of them do not exceed (nearest rank); NaN of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share / 100 * len(ordered)) - 1)]


class Generator:
    """A load that is being made."""

    def __init__(self, target: Target, **wanted: Any) -> None:
        self._over = threading.Event()
        self._printed = ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.load.generator"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._talk, args=(json.dumps(target.order(**wanted)),), daemon=True).start()

    def over(self, within: float) -> bool:
        """Whether it has ended, or does within so many seconds."""
        return self._over.wait(within)

    def result(self) -> Outcome:
        """Wait for its end."""
        self._over.wait()
        if self._process.returncode != 0:
            raise SystemExit("the load generator failed")
        return Outcome(**json.loads(self._printed))

    def _talk(self, order: str) -> None:
        self._printed, _ = self._process.communicate(order)
        self._over.set()


def load(target: Target, **wanted: Any) -> Outcome:
    """Make a load and return what came of it."""
    return Generator(target, **wanted).result()
