"""A request that is being worked on is answered, whatever becomes of its replica meanwhile.

The model works on it until the test has seen that the replica is stopping: however long that takes, the request is in
flight all the time. That it may take 60 s follows from the limits, see ``ReconcileStep._stop``.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.end_to_end.client import ENDPOINTS, Client, describe, entity, fine
from tests.end_to_end.deadlines import eventually
from tests.end_to_end.replicas import await_counts, await_gone, scale
from tests.end_to_end.working import Working

Version = Callable[..., str]
Work = Callable[..., Working]


def test_scale_down_finishes_what_was_accepted(steady: Client, version: Version, name: str, work: Work):
    """All replicas are full when one of them is to go."""
    steady.deploy(name, "misbehaves", version("1"), workload_size="Medium")
    scale(steady, name, 3)
    await_counts(steady, name, ready=3)
    working = work(12)
    scale(steady, name, 2)
    await_counts(steady, name, ready=2, stopping=1)
    predictions = working.finish()
    assert len({one["pid"] for one in predictions}) == 3, "the requests were at all replicas"
    await_counts(steady, name, ready=2, stopping=0)


def test_scale_to_zero_finishes_what_was_accepted(steady: Client, version: Version, name: str, work: Work):
    steady.deploy(name, "misbehaves", version("1"), scale_to_zero_enabled=True)
    working = work(4)
    scale(steady, name, 0)
    await_counts(steady, name, ready=0, stopping=1)
    (first, *_) = working.finish()
    await_gone(first["pid"])
    # And the endpoint comes back, with another process.
    assert steady.predictions(name, fine())[0]["pid"] != first["pid"]


def test_update_finishes_what_the_old_version_accepted(
    steady: Client, version: Version, name: str, work: Work
):
    steady.deploy(name, "misbehaves", version("1"))
    working = work(4)
    answer = steady.update(name, [entity("misbehaves", version("2"))])
    assert answer.status_code == 200, describe(answer)
    steady.await_ready(name)
    assert steady.predictions(name, fine())[0]["version"] == "2"
    predictions = working.finish()
    assert {one["version"] for one in predictions} == {"1"}
    await_gone(predictions[0]["pid"])


def test_stop_finishes_what_was_accepted(steady: Client, version: Version, name: str, work: Work):
    steady.deploy(name, "misbehaves", version("1"))
    working = work(4)
    stopped = steady.http.post(f"{ENDPOINTS}/{name}/config:stop")
    assert stopped.status_code == 200, describe(stopped)

    def refuses() -> bool:
        assert "stopped" in steady.assert_error(steady.score(name, fine()), "BAD_REQUEST")
        return True

    eventually(refuses, within=30, what="requests that come now are refused")
    (first, *_) = working.finish()
    await_gone(first["pid"])


def test_delete_answers_what_was_accepted(steady: Client, version: Version, name: str, work: Work):
    steady.deploy(name, "misbehaves", version("1"))
    working = work(4)
    steady.delete(name)

    def forgotten() -> bool:
        steady.assert_error(steady.score(name, fine()), "ENDPOINT_NOT_FOUND")
        return True

    eventually(forgotten, within=30, what="requests that come now find no endpoint")
    (first, *_) = working.finish()
    await_gone(first["pid"])
