"""What goes on while processes of a stack are killed: requests are scored, and the management API changes things."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from tests.end_to_end.client import ENDPOINTS, Client, entity, fine
from tests.end_to_end.deadlines import eventually

NEEDED_TO_SCORE = ("gateway", "nats")
ENDPOINT = "steady"
SERVED = {"one": "1", "two": "2"}
"""The versions of the model that ``ENDPOINT`` serves side by side, by the names of their served entities."""


class Scoring:
    """A constant rate of requests from a few threads. Counts answers by (victim, status); 0: no connection."""

    def __init__(self, client: Client, rate: float, threads: int = 8) -> None:
        self.answers: Counter[tuple[str, int]] = Counter()
        self.wrong: list[str] = []
        self.slowest_failure = 0.0
        """Seconds that a request took which was refused."""
        self.victim = "none"
        self._client = client
        self._pause = threads / rate
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(threads)]

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join()

    def await_answer(self, victim: str) -> None:
        """Wait until a request of this load was scored after now, with this victim."""
        before = self.answers[victim, 200]

        def answered() -> bool:
            assert self.answers[victim, 200] > before, dict(self.answers)
            return True

        eventually(answered, within=30, what=f"a request scored after the end of {victim}", interval=0.05)

    def _send(self) -> None:
        due = time.monotonic()
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._pause, time.monotonic() - 1.0)
            before, status, sent = self.victim, 0, time.monotonic()
            try:
                answer = self._client.score(ENDPOINT, fine())
                status = answer.status_code
                if status == 200:
                    versions = [one["version"] for one in answer.json()["predictions"]]
                    if versions not in [[version] for version in SERVED.values()]:
                        self.wrong.append(answer.text)
                elif status != 503:
                    self.wrong.append(f"{before}: {status} {answer.text[:300]}")
            except httpx.TransportError as error:
                if isinstance(error, httpx.TimeoutException):
                    self.wrong.append(f"{before}: {error!r}")
            if status != 200:
                self.slowest_failure = max(self.slowest_failure, time.monotonic() - sent)
            # What was under way when the victim changed belongs to the one that can explain it.
            blamed = self.victim if self.victim in NEEDED_TO_SCORE else before
            self.answers[blamed, status] += 1


@dataclass
class Ledger:
    """What the management API acknowledged, and what it was asked without an answer."""

    present: set[str] = field(default_factory=set[str])
    absent: set[str] = field(default_factory=set[str])
    value: int = 0
    """Of the tag, as last acknowledged; never set to less."""
    granted: set[str] = field(default_factory=set[str])
    """Endpoints on which the group ``users`` was granted CAN_QUERY."""
    config_version: int = 1
    splits: int = 0
    """Changes of the traffic split that were acknowledged."""
    acknowledged: int = 0
    unanswered: int = 0


class Managing:
    """One client that goes on changing things: endpoints without a config, tags, permissions, the split of traffic."""

    def __init__(self, client: Client, versions: list[str]) -> None:
        self.ledger = Ledger()
        self._client = client
        self._versions = versions
        self.has_split = threading.Event()
        """Set at the first change of the split that was acknowledged: it has done one of everything then."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work)

    @contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            self._thread.join()

    def _work(self) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            self._once(number)
            self._stopping.wait(0.1)

    def _once(self, number: int) -> None:
        ledger, name = self.ledger, f"ledger-{number}"
        made = self._ask("POST", "", {"name": name})
        if made is not None:
            ledger.present.add(name)
            path = f"/api/2.0/permissions/serving-endpoints/{made['id']}"
            grant = {"group_name": "users", "permission_level": "CAN_QUERY"}
            if self._ask("PATCH", path, {"access_control_list": [grant]}) is not None:
                ledger.granted.add(name)
        tag = {"add_tags": [{"key": "count", "value": str(number)}]}
        if self._ask("PATCH", f"/{ENDPOINT}/tags", tag) is not None:
            ledger.value = number
        if number % 3 == 0 and ledger.present:
            gone = min(ledger.present)
            ledger.present.discard(gone)
            ledger.granted.discard(gone)
            if self._ask("DELETE", f"/{gone}") is not None:
                ledger.absent.add(gone)
        if number % 5 == 0:
            share = 30 + number % 40
            updated = self._ask("PUT", f"/{ENDPOINT}/config", config(self._versions, share))
            if updated is not None:
                shown = updated.get("pending_config") or updated["config"]
                ledger.config_version = shown["config_version"]
                ledger.splits += 1
                self.has_split.set()

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        """What a 2xx says; None for any other answer, or none."""
        try:
            url = path if path.startswith("/api/") else ENDPOINTS + path
            answer = self._client.http.request(method, url, json=body, timeout=30)
        except httpx.TransportError:
            self.ledger.unanswered += 1
            return None
        if answer.status_code >= 300:
            self.ledger.unanswered += answer.status_code >= 500
            return None
        self.ledger.acknowledged += 1
        return answer.json()


def config(versions: list[str], share: int) -> dict[str, Any]:
    """Both versions, ``share`` percent of the traffic to the first: a change of it needs no new replicas."""
    names = list(SERVED)
    shares = (share, 100 - share)
    return {
        "served_entities": [
            entity("misbehaves", version, name=name) for name, version in zip(names, versions, strict=True)
        ],
        "traffic_config": {
            "routes": [
                {"served_model_name": name, "traffic_percentage": percent}
                for name, percent in zip(names, shares, strict=True)
            ]
        },
    }
