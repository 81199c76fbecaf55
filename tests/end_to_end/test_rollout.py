"""How traffic comes from one config to the next, under constant load: nobody notices, whatever becomes of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from tests.end_to_end.client import ENDPOINTS, Client, describe, entity
from tests.end_to_end.deadlines import eventually
from tests.end_to_end.load import Load, Scored
from tests.end_to_end.replicas import await_gone, process_of

Version = Callable[..., str]
Figure = Callable[[str, object], None]

UPDATES = int(os.environ.get("SERVERY_TEST_UPDATES", "6"))
"""As many as a test run has patience for; 50 take some minutes."""
OF_WHICH_ONE_IS_BROKEN = 5

ENDLESS_STEP = {"servery.rollout_steps": "50", "servery.rollout_step_seconds": "3600"}
QUICK_STEPS = {
    "servery.rollout_steps": "20,60",
    "servery.rollout_step_seconds": "2",
    "servery.rollout_min_requests": "10",
}


def test_updates_under_constant_load(steady: Client, version: Version, name: str, figure: Figure):
    """To and fro between two good versions; now and then one that cannot be deployed."""
    good = {number: version(number) for number in ("1", "2")}
    broken = [
        (version("raises", at_load="raise"), "the model does not like this row"),
        (version("exits", at_predict="exit"), "exited with status 3"),
    ]
    steady.deploy(name, "misbehaves", good["1"])
    serving, failed = "1", 0
    with Load(steady, name) as load:
        load.await_more()
        for number in range(UPDATES):
            since = load.count()
            if number % OF_WHICH_ONE_IS_BROKEN == 2:
                bad, cause = broken[failed % len(broken)]
                failed += 1
                _update(steady, name, [entity("misbehaves", bad)])
                _assert_failed(steady.await_settled(name), cause)
                load.await_more()
                assert {one.version for one in load.scored[since:]} == {serving}
            else:
                before, serving = serving, "2" if serving == "1" else "1"
                _update(steady, name, [entity("misbehaves", good[serving])])
                steady.await_ready(name)
                load.await_more()
                _assert_monotone(load.scored[since:], before, serving)
    figure("updates", UPDATES)
    figure("of these broken", failed)
    figure("requests", load.count())
    assert load.failures() == []


def test_a_changed_split_is_in_force_without_new_replicas(
    steady: Client, version: Version, name: str, figure: Figure
):
    entities = [
        entity("misbehaves", version("1"), name="one"),
        entity("misbehaves", version("2"), name="two"),
    ]
    created = steady.create(name, entities, traffic_config=_split(one=100, two=0))
    assert created.status_code == 200, describe(created)
    steady.await_ready(name)
    before = [process_of(steady, name, served) for served in ("one", "two")]
    with Load(steady, name) as load:
        load.await_more()
        for one, answering in ((0, "2"), (100, "1"), (0, "2"), (100, "1")):
            since, asked_at = load.count(), time.monotonic()
            _update(steady, name, entities, traffic_config=_split(one=one, two=100 - one))
            steady.await_ready(name)
            settled_at = time.monotonic()
            load.await_more()
            in_force_at = _assert_monotone(load.scored[since:], "1" if answering == "2" else "2", answering)
            assert {o.version for o in load.scored if o.sent_at > settled_at} == {answering}
            figure("seconds until the first answer", round(in_force_at - asked_at, 3))
            figure("seconds until NOT_UPDATING", round(settled_at - asked_at, 3))
    assert load.failures() == []
    assert [process_of(steady, name, served) for served in ("one", "two")] == before
    assert {one.pid for one in load.scored} == set(before)


def test_a_canary_leaves_the_others_process_alone(steady: Client, version: Version, name: str):
    one = entity("misbehaves", version("1"), name="one")
    two = entity("misbehaves", version("2"), name="two")
    created = steady.create(name, [one])
    assert created.status_code == 200, describe(created)
    steady.await_ready(name)
    with Load(steady, name) as load:
        load.await_more()
        _update(steady, name, [one, two], traffic_config=_split(one=90, two=10))
        steady.await_ready(name)
        canary = process_of(steady, name, "two")
        load.await_more(100)
        _update(steady, name, [one])
        steady.await_ready(name)
        load.await_more()
    assert load.failures() == []
    assert {one.version: one.pid for one in load.scored}["2"] == canary
    assert len({one.pid for one in load.scored if one.version == "1"}) == 1, "it was never started anew"
    await_gone(canary)


def test_an_update_that_is_canceled_while_its_model_loads(
    steady: Client, version: Version, name: str, tmp_path: Path
):
    steady.deploy(name, "misbehaves", version("1"))
    held = tmp_path / "go on"
    pids = tmp_path / "go on.pids"
    with Load(steady, name) as load:
        load.await_more()
        new = entity("misbehaves", version("2"), environment_vars={"HOLD_LOADS": str(held)})
        _update(steady, name, [new])
        # The first to load it is the build's check.
        loads = eventually(
            lambda: pids.exists() and pids.read_text().split()[1:], within=120, what="a replica loads it"
        )
        _cancel(steady, name)
        await_gone(int(loads[0]))
        load.await_more()
    assert load.failures() == []
    assert {one.version for one in load.scored} == {"1"}
    assert pids.read_text().split()[1:] == loads, "no other replica was started"
    _update(steady, name, [entity("misbehaves", version("2"))])
    steady.await_ready(name)


def test_a_guarded_rollout_of_a_worse_version_is_rolled_back(
    steady: Client, version: Version, name: str, figure: Figure
):
    """It answers its example, so it was deployed, but not what clients send."""
    bad = version("only its example", at_predict="raise", spared="fine")
    steady.deploy(name, "misbehaves", version("1"))
    _tag(steady, name, QUICK_STEPS)
    with Load(steady, name, kind="real") as load:
        load.await_more()
        since, asked_at = load.count(), time.monotonic()
        _update(steady, name, [entity("misbehaves", bad)])
        _assert_failed(steady.await_settled(name), "Rolled back.", "answers of the new version were errors")
        settled, settled_at = load.count(), time.monotonic()
        load.await_more()
    failures = load.failures()
    assert {one.status for one in failures} == {400}, "what the model raised; nothing else went wrong"
    assert not [one for one in failures if one.sent_at > settled_at]
    assert {one.version for one in load.scored if one.status == 200} == {"1"}
    figure("seconds until it was rolled back", round(settled_at - asked_at, 1))
    figure("answers with an error", f"{len(failures)} of {settled - since}")


def test_a_guarded_rollout_of_a_good_version_completes(
    steady: Client, version: Version, name: str, figure: Figure
):
    steady.deploy(name, "misbehaves", version("1"))
    _tag(steady, name, QUICK_STEPS)
    with Load(steady, name, kind="real") as load:
        load.await_more()
        _update(steady, name, [entity("misbehaves", version("2"))])
        steady.await_ready(name)
        settled_at = time.monotonic()
        load.await_more()
    assert load.failures() == []
    assert {one.version for one in load.scored if one.sent_at > settled_at} == {"2"}
    first = next(n for n, one in enumerate(load.scored) if one.version == "2")
    meanwhile = [one.version for one in load.scored[first:] if one.sent_at <= settled_at]
    assert meanwhile.count("1") > 10, "both versions served for a while"
    figure("answers of the new version meanwhile", f"{meanwhile.count('2')} of {len(meanwhile)}")


def test_a_guarded_rollout_that_is_canceled_moves_the_traffic_back(
    steady: Client, version: Version, name: str, figure: Figure
):
    steady.deploy(name, "misbehaves", version("1"))
    _tag(steady, name, ENDLESS_STEP)
    with Load(steady, name) as load:
        _update(steady, name, [entity("misbehaves", version("2"))])
        new = eventually(
            lambda: next((one.pid for one in load.scored if one.version == "2"), None),
            within=120,
            what="the new version has a part of the traffic",
        )
        _cancel(steady, name)
        canceled_at = time.monotonic()
        await_gone(new)
        figure("seconds until its process had gone", round(time.monotonic() - canceled_at, 1))
        load.await_more()
    assert load.failures() == []
    assert {one.version for one in load.scored if one.sent_at > canceled_at} == {"1"}


def _update(client: Client, name: str, entities: list[dict[str, Any]], **config: Any) -> None:
    answer = client.update(name, entities, **config)
    assert answer.status_code == 200, describe(answer)


def _cancel(client: Client, name: str) -> None:
    """Cancel the update; the endpoint has to say so at once, and still be ready."""
    answer = client.http.post(f"{ENDPOINTS}/{name}/config:cancel")
    assert answer.status_code == 200, describe(answer)
    state = client.get(name)["state"]
    assert (state["ready"], state["config_update"]) == ("READY", "UPDATE_CANCELED")


def _tag(client: Client, name: str, tags: dict[str, str]) -> None:
    added = [{"key": key, "value": value} for key, value in {"servery.rollout": "guarded", **tags}.items()]
    answer: httpx.Response = client.http.patch(f"{ENDPOINTS}/{name}/tags", json={"add_tags": added})
    assert answer.status_code == 200, describe(answer)


def _split(**percentages: int) -> dict[str, Any]:
    routes = [{"served_model_name": name, "traffic_percentage": share} for name, share in percentages.items()]
    return {"routes": routes}


def _assert_failed(described: dict[str, Any], *told: str) -> None:
    """The update failed, says why, and what served before serves."""
    state = described["state"]
    assert (state["ready"], state["config_update"]) == ("READY", "UPDATE_FAILED"), described
    (served,) = described["pending_config"]["served_entities"]
    assert served["state"]["deployment"] == "DEPLOYMENT_FAILED", served
    assert all(words in served["state"]["deployment_state_message"] for words in told), served


def _assert_monotone(scored: list[Scored], before: str, after: str) -> float:
    """Once the new version has answered, nothing sent later is answered by the old one. Returns when that was."""
    switched_at = min(one.answered_at for one in scored if one.version == after)
    assert {one.version for one in scored if one.sent_at > switched_at} == {after}
    assert {one.version for one in scored} <= {before, after}
    return switched_at
