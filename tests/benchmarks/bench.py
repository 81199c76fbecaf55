"""What all parts of the benchmark share: the servers, how long to measure, how a target is written down."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.load.client import Target
from tests.benchmarks.servers import Servery


@dataclass(frozen=True)
class Servers:
    """Those that most parts measure side by side, each with iris."""

    servery: Servery
    mlflow: Target
    mlserver: tuple[Target, ...]
    model_path: Path
    """The iris model on disk."""


@dataclass
class Bench:
    """One run of the benchmark."""

    servers: Servers | None
    """None while parts run that bring servers of their own."""
    directory: Path
    """For whatever a part has to write."""
    quick: bool
    """A smoke run: everything is tried, nothing is worth believing."""
    capacity: float = 0.0
    """Answers a second at 128 connections, once it was measured."""
    began: float = field(default_factory=time.monotonic)

    @property
    def beside(self) -> Servers:
        """The servers, for parts that did not say that they need none."""
        if self.servers is None:
            raise SystemExit("this part needs the servers that all parts share")
        return self.servers

    @property
    def servery(self) -> Servery:
        """A stack of Servery."""
        return self.beside.servery

    @property
    def mlflow(self) -> Target:
        """``mlflow models serve``."""
        return self.beside.mlflow

    @property
    def mlserver(self) -> tuple[Target, ...]:
        """MLServer, by both of its routes."""
        return self.beside.mlserver

    @property
    def model_path(self) -> Path:
        """The iris model on disk."""
        return self.beside.model_path

    @property
    def rounds(self) -> int:
        """How often the servers take turns."""
        return 1 if self.quick else 4

    def seconds(self, wanted: float) -> float:
        """How long to measure."""
        return min(wanted, 1.0) if self.quick else wanted

    def times(self, wanted: int) -> int:
        """How often to repeat what is done one after the other."""
        return min(wanted, 2) if self.quick else wanted

    def say(self, line: str) -> None:
        """Show progress."""
        print(f"[{time.monotonic() - self.began:5.0f} s] {line}", flush=True)

    @staticmethod
    def target(what: str, value: float, relation: str, goal: float) -> dict[str, Any]:
        """What was aimed at, what was measured, and whether that is enough."""
        met = {">=": value >= goal, "<=": value <= goal, "<": value < goal}[relation]
        return {"what": what, "value": round(value, 3), "relation": relation, "goal": goal, "met": met}
