"""``kill -9`` one process of a whole stack after the other, under scoring load and management calls.

``python -m tests.resilience.control_plane --rounds 20`` does it at 200 requests a second and prints what it counted and
how long everything took to return; ``--minutes 8`` begins no round after that time. ``test_control_plane.py`` does one
round with less load.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx
import psutil
from tests.end_to_end.client import ENDPOINTS, HANG_GUARD, Client, entity, fine, registrar
from tests.end_to_end.deadlines import eventually
from tests.end_to_end.stack import Stack, run_stack
from tests.models import zoo

from servery_local import postgres

VICTIMS = ("controller", "builder", "scaler", "gateway", "nats", "postgres")
NEEDED_TO_SCORE = ("gateway", "nats")
ENDPOINT = "steady"
CONVERGES_WITHIN = 60.0
"""Seconds. The goal is 10, which the long run reports on; this bound is for a machine that others use, too."""
GOAL = 10.0
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


def runners(stack: Stack) -> int:
    """Processes that hold a model: the forks of the worker's warm parents."""
    pid = stack.component("worker")["pid"]
    return sum(len(parent.children()) for parent in psutil.Process(pid).children())


async def _rows(stack: Stack) -> int:
    state = json.loads((stack.directory / "state.json").read_text())
    connection = await asyncpg.connect(postgres.url(state["database_socket"]))
    try:
        return await connection.fetchval("SELECT count(*) FROM replicas")
    finally:
        await connection.close()


@dataclass(frozen=True)
class Return:
    """How long after its end a process was there again, and after that all was well again. Seconds."""

    away: float
    converged: float


def converge(stack: Stack, client: Client, victim: str) -> Return:
    """Kill the victim, and wait until another runs, a call is answered, a request scored and no update under way."""
    killed = stack.kill(victim)
    began = time.monotonic()

    def back() -> bool:
        components = json.loads((stack.directory / "state.json").read_text())["components"]
        found = next(one for one in components if one["name"] == victim)
        assert found["state"] == "running", found
        assert found["process"]["pid"] != killed, found
        return True

    def well() -> bool:
        try:
            described = client.http.get(f"{ENDPOINTS}/{ENDPOINT}", timeout=10)
            assert described.status_code == 200, described.text
            assert described.json()["state"]["ready"] == "READY", described.text
            scored = client.score(ENDPOINT, fine())
            assert scored.status_code == 200, scored.text
        except httpx.TransportError as error:
            raise AssertionError(repr(error)) from error
        return True

    eventually(back, within=CONVERGES_WITHIN, what=f"{victim} runs again", interval=0.05)
    away = time.monotonic() - began
    eventually(well, within=CONVERGES_WITHIN, what=f"all is well after the end of {victim}", interval=0.05)
    assert_one_process_each(stack)
    return Return(away, time.monotonic() - began - away)


def assert_one_process_each(stack: Stack) -> None:
    """Wait until there is one replica for each served entity, and one process that runs it: none lost, none double."""

    def one_each() -> bool:
        rows, processes = asyncio.run(_rows(stack)), runners(stack)
        assert rows == processes == len(SERVED), f"{rows} replicas, {processes} processes"
        return True

    eventually(one_each, within=CONVERGES_WITHIN, what="one replica each, and one process that runs it")


def verify(stack: Stack, client: Client, ledger: Ledger) -> None:
    """Nothing that was acknowledged is lost, and there is one process for each replica."""
    settled = client.await_settled(ENDPOINT)
    assert settled["state"] == {"ready": "READY", "config_update": "NOT_UPDATING", "suspend": "NOT_SUSPENDED"}
    assert settled["config"]["config_version"] >= ledger.config_version
    [tag] = [one for one in settled["tags"] if one["key"] == "count"]
    assert int(tag["value"]) >= ledger.value
    listed = {one["name"]: one for one in client.http.get(ENDPOINTS).json()["endpoints"]}
    assert ledger.present <= set(listed), "created and lost"
    assert ledger.absent & set(listed) == set(), "deleted and back"
    for name in ledger.granted:
        path = f"/api/2.0/permissions/serving-endpoints/{listed[name]['id']}"
        entries = client.http.get(path).json()["access_control_list"]
        assert any(one.get("group_name") == "users" for one in entries), name

    assert_one_process_each(stack)


@dataclass
class Outcome:
    """What a trial counted."""

    returns: dict[str, list[Return]]
    answers: Counter[tuple[str, int]]
    wrong: list[str]
    slowest_failure: float
    ledger: Ledger


def trial(stack: Stack, rounds: int, rate: float, seconds: float = float("inf")) -> Outcome:
    """Kill each victim once a round, until ``seconds`` have passed at the most; then look at what was acknowledged."""
    client, scorer, manager = Client(stack), Client(stack), Client(stack)
    register = registrar(client)
    versions = [register(zoo.misbehaves(one), variant=one) for one in SERVED.values()]
    body = {
        "name": ENDPOINT,
        "config": config(versions, 50),
        "tags": [{"key": "count", "value": "0"}],
    }
    created = client.http.post(ENDPOINTS, json=body)
    assert created.status_code == 200, created.text
    client.await_ready(ENDPOINT)
    scoring, managing = Scoring(scorer, rate), Managing(manager, versions)
    returns: dict[str, list[Return]] = {victim: [] for victim in VICTIMS}
    end = time.monotonic() + seconds
    with scoring.running(), managing.running():
        for number in range(rounds):
            if time.monotonic() > end:
                break
            for victim in VICTIMS:
                scoring.victim = victim
                returns[victim].append(converge(stack, client, victim))
                seen = returns[victim][-1]
                print(
                    f"round {number + 1}: {victim} away {seen.away:.1f} s, then {seen.converged:.1f} s",
                    flush=True,
                )
    verify(stack, client, managing.ledger)
    for one in (client, scorer, manager):
        one.close()
    return Outcome(returns, scoring.answers, scoring.wrong, scoring.slowest_failure, managing.ledger)


def check(outcome: Outcome) -> None:
    """Who only scores notices nothing but the loss of what scoring needs, and is never told anything wrong."""
    assert outcome.wrong == []
    assert outcome.slowest_failure < HANG_GUARD
    noticed = {victim for victim, status in outcome.answers if status != 200}
    assert noticed <= set(NEEDED_TO_SCORE), outcome.answers
    assert outcome.ledger.acknowledged > 0
    assert outcome.ledger.splits > 0
    for victim in VICTIMS:
        assert outcome.answers[victim, 200] > 0, f"no request was scored around the end of {victim}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--rate", type=float, default=200.0, help="scoring requests a second")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no round after so long")
    options = parser.parse_args()
    for stack in run_stack():
        outcome = trial(stack, options.rounds, options.rate, options.minutes * 60)
        for victim, seen in outcome.returns.items():
            late = sum(one.converged > GOAL for one in seen)
            print(
                f"{victim}: {len(seen)} times, away {min(one.away for one in seen):.1f} to "
                f"{max(one.away for one in seen):.1f} s, converged after {min(one.converged for one in seen):.1f} to "
                f"{max(one.converged for one in seen):.1f} s more, {late} over {GOAL:.0f} s"
            )
        print("answers:", dict(sorted(outcome.answers.items())))
        print(f"slowest refusal: {outcome.slowest_failure:.1f} s; wrong: {outcome.wrong}")
        ledger = outcome.ledger
        print(f"management: {ledger.acknowledged} acknowledged, {ledger.splits} of them traffic splits, ")
        print(f"            {ledger.unanswered} without an answer, or with 5xx")
        check(outcome)


if __name__ == "__main__":
    main()
