"""``kill -9`` one process of a whole stack after the other, under scoring load and management calls.

``python -m tests.resilience.control_plane --rounds 20`` does it at 200 requests a second and prints what it counted and
how long everything took to return; ``--minutes 8`` begins no round after that time. ``test_control_plane.py`` does one
round with less load.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass

import asyncpg
import httpx
import psutil
from tests.end_to_end.client import ENDPOINTS, HANG_GUARD, Client, fine, registrar
from tests.end_to_end.deadlines import eventually
from tests.end_to_end.stack import Stack, run_stack
from tests.models import zoo
from tests.resilience.control_plane_load import (
    ENDPOINT,
    NEEDED_TO_SCORE,
    SERVED,
    Ledger,
    Managing,
    Scoring,
    config,
)

from servery_local import postgres

VICTIMS = ("controller", "builder", "scaler", "gateway", "nats", "postgres")
CONVERGES_WITHIN = 60.0
"""Seconds. The goal is 10, which the long run reports on; this bound is for a machine that others use, too."""
GOAL = 10.0


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
        assert managing.has_split.wait(HANG_GUARD), "nothing is changed"
        for number in range(rounds):
            if time.monotonic() > end:
                break
            for victim in VICTIMS:
                scoring.victim = victim
                returns[victim].append(converge(stack, client, victim))
                scoring.await_answer(victim)
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
