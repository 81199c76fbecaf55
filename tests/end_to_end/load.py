"""Constant load on an endpoint, in the background."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import TracebackType

import httpx
from tests.end_to_end.client import Client, describe, fine


@dataclass(frozen=True)
class Scored:
    """One request of the load."""

    sent_at: float
    """On the monotonic clock."""
    version: str | None
    """Version of the model ``misbehaves`` that answered; None: it failed."""
    problem: str = ""


class Load:
    """Sends requests from ``threads`` threads, one after the other, while its context is open."""

    def __init__(self, client: Client, endpoint: str, *, threads: int = 3) -> None:
        self._client = client
        self._endpoint = endpoint
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

    def _send(self) -> None:
        while not self._stopping.is_set():
            sent_at = time.monotonic()
            try:
                answer = self._client.score(self._endpoint, fine())
            except httpx.HTTPError as error:
                self.scored.append(Scored(sent_at, None, repr(error)))
                continue
            if answer.status_code == 200:
                self.scored.append(Scored(sent_at, answer.json()["predictions"][0]["version"]))
            else:
                self.scored.append(Scored(sent_at, None, describe(answer)))
