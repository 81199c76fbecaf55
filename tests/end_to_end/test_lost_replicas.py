"""Replicas that die under load: they are replaced, and nobody but whom they worked for notices."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from itertools import pairwise

from tests.end_to_end.client import Client, describe, fine
from tests.end_to_end.deadlines import eventually
from tests.end_to_end.load import Load, Scored
from tests.end_to_end.replicas import await_counts, entities, process_of
from tests.end_to_end.working import Working

Version = Callable[..., str]
Work = Callable[..., Working]
Figure = Callable[[str, object], None]

THREADS = 2
"""Of the load. Each has one request at a time, so it can lose one by one death, and no more."""


def test_a_killed_runner_is_replaced(steady: Client, version: Version, name: str, work: Work, figure: Figure):
    steady.deploy(name, "misbehaves", version("1"))
    killed = process_of(steady, name, "misbehaves-1")
    with Load(steady, name, threads=THREADS) as load:
        load.await_more()
        working = work(2)
        killed_at = time.monotonic()
        os.kill(killed, signal.SIGKILL)
        _assert_lost(steady, working, "The model's process was killed by SIGKILL")
        load.await_more()
    _assert_replaced(load, killed, killed_at, figure)
    await_counts(steady, name, ready=1)
    (served,) = steady.await_ready(name)["config"]["served_entities"]
    assert served["state"]["deployment"] == "DEPLOYMENT_READY", served


def test_what_a_killed_worker_held_is_replaced(
    steady: Client, version: Version, name: str, work: Work, figure: Figure
):
    """Its supervisor starts it again, and the controller the replicas, in their next life."""
    steady.deploy(name, "misbehaves", version("1"))
    before = process_of(steady, name, "misbehaves-1")
    with Load(steady, name, threads=THREADS) as load:
        load.await_more()
        working = work(2)
        killed_at = time.monotonic()
        worker = steady.stack.kill("worker")
        _assert_lost(steady, working, "The replica died while it worked on the request.")
        eventually(
            lambda: any(one.pid not in (None, before) for one in load.scored),
            within=170,
            what="another process answers",
        )
        load.await_more()
    steady.stack.await_recovery("worker", worker)
    _assert_replaced(load, before, killed_at, figure)


def test_a_model_that_dies_of_every_request_backs_off_and_says_why(
    steady: Client, version: Version, name: str, figure: Figure
):
    """As long as no replica is ready. Its process is started later each time, and not once for each request."""
    steady.deploy(name, "misbehaves", version("1"))
    died = "exited with status 3"
    # One request at a time: of several that were there when it died nobody knows which was to blame.
    with Load(steady, name, threads=1, kind="exit") as load:

        def recovering() -> bool:
            (served,) = steady.get(name)["config"]["served_entities"]
            state = served["state"]
            assert state["deployment"] == "DEPLOYMENT_RECOVERING", state
            assert died in state["deployment_state_message"], state
            (counted,) = entities(steady, name)
            assert counted["ready_replicas"] == 0, counted
            assert steady.get(name)["state"]["ready"] == "NOT_READY"
            return True

        eventually(recovering, within=60, what="the endpoint says that it recovers, and from what")
        # Long enough for pauses to have grown: a process more each time there is one.
        eventually(lambda: len(_deaths(load)) >= 5, within=60, what="it died again and again")
    assert {one.status for one in load.scored} <= {400, 503}
    deaths = _deaths(load)
    assert all(died in one.problem for one in deaths)
    pauses = [round(after.answered_at - before.answered_at, 2) for before, after in pairwise(deaths)]
    figure("seconds between its deaths", pauses)
    assert pauses[-1] > pauses[0]

    def answers() -> bool:
        answer = steady.score(name, fine())
        assert answer.status_code == 200, describe(answer)
        return True

    eventually(answers, within=60, what="it answers what does not kill it")
    steady.await_ready(name)


def _assert_lost(client: Client, working: Working, reason: str) -> None:
    for answer in working.lost():
        assert reason in client.assert_error(answer, "TEMPORARILY_UNAVAILABLE", guard=60)


def _assert_replaced(load: Load, before: int, killed_at: float, figure: Figure) -> None:
    """Another process answers; only what was being worked on was lost, at most one request of each thread."""
    first = next(one for one in load.scored if one.pid not in (None, before))
    figure("seconds until the next answer", round(first.answered_at - killed_at, 2))
    failures = load.failures()
    figure("failed requests", len(failures))
    assert {one.status for one in failures} <= {503}, failures
    assert len(failures) <= THREADS, failures
    assert load.scored[-1].pid == first.pid


def _deaths(load: Load) -> list[Scored]:
    """The requests the model was given; each ended its process."""
    return [one for one in load.scored if one.status == 400]
