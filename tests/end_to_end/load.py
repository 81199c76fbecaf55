"""Constant load on an endpoint, in the background."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import TracebackType

import httpx
from tests.end_to_end.client import Client, describe, fine
from tests.end_to_end.deadlines import eventually


@dataclass(frozen=True)
class Scored:
    """One request of the load."""

    sent_at: float
    """On the monotonic clock."""
    answered_at: float
    version: str | None
    """Version of the model ``misbehaves`` that answered; None: it failed."""
    pid: int | None = None
    """Process that answered."""
    status: int | None = None
    """None: there was no answer."""
    problem: str = ""


class Load:
    """Sends requests from ``threads`` threads, one after the other, while its context is open."""

    def __init__(self, client: Client, endpoint: str, *, threads: int = 3, kind: str = "fine") -> None:
        self._client = client
        self._endpoint = endpoint
        self._body = fine(kind)
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._send, name="load") for _ in range(threads)]
        self.scored: list[Scored] = []
        """In the order of the answers."""

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def failures(self) -> list[Scored]:
        """The requests that were not answered with predictions."""
        return [one for one in self.scored if one.version is None]

    def count(self) -> int:
        """Requests answered so far."""
        return len(self.scored)

    def await_more(self, count: int = 30) -> None:
        """Wait until so many further requests have been answered."""
        wanted = self.count() + count
        eventually(lambda: self.count() >= wanted, within=60, what="the load goes on")

    def _send(self) -> None:
        while not self._stopping.is_set():
            self.scored.append(self._score())

    def _score(self) -> Scored:
        sent_at = time.monotonic()
        try:
            answer = self._client.score(self._endpoint, self._body)
        except httpx.HTTPError as error:
            return Scored(sent_at, time.monotonic(), None, problem=repr(error))
        answered_at = time.monotonic()
        if answer.status_code != 200:
            return Scored(sent_at, answered_at, None, status=answer.status_code, problem=describe(answer))
        (row,) = answer.json()["predictions"]
        return Scored(sent_at, answered_at, row["version"], row["pid"], 200)
