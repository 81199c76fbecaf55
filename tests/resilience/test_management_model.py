"""The management API against a plain model, with ``kill -9`` of the controller and Postgres between and during calls.

A call that got no answer, or 503, may have happened or not: the model then allows both, until a look decides which.
``SERVERY_TEST_EXAMPLES`` asks for more examples, ``SERVERY_TEST_SEED`` for others.
"""

import itertools
import json
import os
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.end_to_end.client import ERROR_STATUS
from tests.integration.controller.peers import entity
from tests.resilience.killable_controller import World, running_world

from servery_common.contracts.management import HttpAnswer

EXAMPLES = int(os.environ.get("SERVERY_TEST_EXAMPLES", "5"))
SEED = int(os.environ.get("SERVERY_TEST_SEED", "1"))
STEPS = 20
KILLS = 2
"""In one example: each costs seconds."""
NAMES = st.sampled_from(["a", "b", "c"])
KEYS = st.sampled_from(["k1", "k2"])
VALUES = st.sampled_from(["v1", "v2", ""])
VERSIONS = st.sampled_from(["1", "2", "3"])
LEVELS = st.sampled_from(["CAN_VIEW", "CAN_QUERY", "CAN_MANAGE"])
VICTIMS = st.sampled_from(["controller", "postgres"])
CRASHES = st.sampled_from(
    [None] * 4
    + [
        ("controller", 0.0),
        ("controller", 0.01),
        ("controller", 0.005),
        ("controller", 0.02),
        ("postgres", 0.0),
        ("postgres", 0.005),
        ("postgres", 0.02),
    ]
)
"""Who is killed during a call, and after how many seconds of it."""


@dataclass
class Modelled:
    """What the model knows of one endpoint."""

    id: str
    version: int
    """Of the newest config."""
    entity_version: str
    tags: dict[str, str] = field(default_factory=dict[str, str])
    group_level: str | None = None
    """What the group ``users`` is granted."""
    stopped: bool = False


Model = dict[str, Modelled]


class ManagementApi(RuleBasedStateMachine):
    """Calls, right and wrong ones, some with a crash in their middle."""

    world: World
    numbers = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.model: Model = {}
        self.prefix = f"x{next(self.numbers)}-"
        self.kills_left = KILLS

    def teardown(self) -> None:
        for name in self.world.settled():
            answer = self.world.call("DELETE", f"/{name}")
            assert answer is not None
            assert answer.status == 200, answer

    # Calls

    @initialize(version=VERSIONS)
    def begin_with_one(self, version: str) -> None:
        self.create("a", version, None)

    @rule(name=NAMES, version=VERSIONS, crash=CRASHES)
    def create(self, name: str, version: str, crash: tuple[str, float] | None) -> None:
        name = self.prefix + name
        body = {"name": name, "config": {"served_entities": [entity(version)]}}
        self.expect(
            name,
            ("POST", "", body),
            crash,
            allowed=name not in self.model,
            refusal="RESOURCE_ALREADY_EXISTS",
            after=lambda old: Modelled(id="", version=1, entity_version=version),
        )

    @rule(name=NAMES, version=VERSIONS, crash=CRASHES)
    def update(self, name: str, version: str, crash: tuple[str, float] | None) -> None:
        def after(old: Modelled) -> Modelled:
            old.version += 1
            old.entity_version, old.stopped = version, False
            return old

        body = {"served_entities": [entity(version)]}
        self.change(name, ("PUT", "/config", body), crash, after)

    @rule(name=NAMES, key=KEYS, value=VALUES, crash=CRASHES)
    def tag(self, name: str, key: str, value: str, crash: tuple[str, float] | None) -> None:
        def after(old: Modelled) -> Modelled:
            old.tags[key] = value
            return old

        self.change(name, ("PATCH", "/tags", {"add_tags": [{"key": key, "value": value}]}), crash, after)

    @rule(name=NAMES, key=KEYS)
    def untag(self, name: str, key: str) -> None:
        def after(old: Modelled) -> Modelled:
            old.tags.pop(key, None)
            return old

        known = self.model.get(self.prefix + name)
        if known is None or key in known.tags:
            self.change(name, ("PATCH", "/tags", {"delete_tags": [key]}), None, after)

    @rule(name=NAMES, level=LEVELS, crash=CRASHES)
    def grant(self, name: str, level: str, crash: tuple[str, float] | None) -> None:
        known = self.model.get(self.prefix + name)
        if known is None:
            return

        def after(old: Modelled) -> Modelled:
            old.group_level = level
            return old

        body = {"access_control_list": [{"group_name": "users", "permission_level": level}]}
        path = f"/api/2.0/permissions/serving-endpoints/{known.id}"
        self.expect(
            self.prefix + name,
            ("PATCH", path, body),
            crash,
            allowed=True,
            refusal="",
            after=after,
        )

    @rule(name=NAMES, crash=CRASHES)
    def stop(self, name: str, crash: tuple[str, float] | None) -> None:
        def after(old: Modelled) -> Modelled:
            old.stopped = True
            return old

        self.change(name, ("POST", "/config:stop", None), crash, after)

    @rule(name=NAMES, crash=CRASHES)
    def start(self, name: str, crash: tuple[str, float] | None) -> None:
        def after(old: Modelled) -> Modelled:
            old.version += 1
            old.stopped = False
            return old

        known = self.model.get(self.prefix + name)
        allowed = known is not None and known.stopped
        self.expect(
            self.prefix + name,
            ("POST", f"/{self.prefix}{name}/config:start", None),
            crash,
            allowed=allowed,
            refusal="BAD_REQUEST" if known else "RESOURCE_DOES_NOT_EXIST",
            after=after,
        )

    @rule(name=NAMES, crash=CRASHES)
    def delete(self, name: str, crash: tuple[str, float] | None) -> None:
        self.change(name, ("DELETE", "", None), crash, lambda old: None)

    @rule(name=NAMES)
    def get_what_is_not_there(self, name: str) -> None:
        if self.prefix + name not in self.model:
            answer = self.world.call("GET", f"/{self.prefix}{name}")
            assert answer is not None
            self.assert_refused(answer, "RESOURCE_DOES_NOT_EXIST")

    @rule(name=NAMES, version=st.sampled_from(["9", "none", "-1"]))
    def update_to_a_version_that_is_not_there(self, name: str, version: str) -> None:
        body = {"served_entities": [entity(version)]}
        answer = self.world.call("PUT", f"/{self.prefix}{name}/config", body)
        assert answer is not None
        self.assert_error(answer)
        assert answer.status in (400, 404), answer

    @rule(name=NAMES, version=VERSIONS, kill=st.booleans())
    def change_during_an_update(self, name: str, version: str, kill: bool) -> None:
        """Refused as long as the update lasts, also by a controller that came meanwhile."""
        known = self.model.get(self.prefix + name)
        if known is None or known.entity_version == version:
            return
        path = f"/{self.prefix}{name}"
        body = {"served_entities": [entity(version)]}
        with self.world.no_build_ends():
            answer = self.world.call("PUT", f"{path}/config", body)
            assert answer is not None
            assert answer.status == 200, answer
            if kill and self.kills_left:
                self.kills_left -= 1
                self.world.kill("controller")
                self.world.run(self.world.peers.until(self.world.peers.answers))
            for call in (("PUT", f"{path}/config", body), ("POST", f"{path}/config:stop", None)):
                answer = self.world.call(*call)
                assert answer is not None
                self.assert_refused(answer, "RESOURCE_CONFLICT")
        known.version += 1
        known.entity_version, known.stopped = version, False

    @precondition(lambda self: self.kills_left > 0)
    @rule(victim=VICTIMS)
    def crash(self, victim: str) -> None:
        self.kills_left -= 1
        self.world.kill(victim)
        self.world.run(self.world.peers.until(self.world.peers.answers))

    # What must hold

    @invariant()
    def everything_is_as_modelled(self) -> None:
        seen = {name: self.seen(name, listed) for name, listed in self.world.settled().items()}
        assert seen == self.model

    def change(self, name: str, call: tuple[str, str, Any], crash: Any, after: Any) -> None:
        """A call about an endpoint that must be there."""
        name = self.prefix + name
        method, path, body = call
        self.expect(
            name,
            (method, f"/{name}{path}", body),
            crash,
            allowed=name in self.model,
            refusal="RESOURCE_DOES_NOT_EXIST",
            after=after,
        )

    def expect(
        self,
        name: str,
        call: tuple[str, str, Any],
        crash: tuple[str, float] | None,
        *,
        allowed: bool,
        refusal: str,
        after: Any,
    ) -> None:
        """Make a call; an answer says what happened, and where there is none, what is seen must be one of both."""
        crash = crash if self.kills_left else None
        self.kills_left -= crash is not None
        answer = self.world.call_and_kill(*crash, *call) if crash else self.world.call(*call)
        self.world.calls += 1
        if crash is None:
            assert answer is not None, call
        if answer is not None and answer.status >= 400:
            self.assert_error(answer)
        if not allowed:
            if answer is not None and (crash is None or answer.status != 503):
                self.assert_refused(answer, refusal)
            return
        old = self.model.get(name)
        new = after(deepcopy(old))
        listed = self.world.settled().get(name)
        seen = self.seen(name, listed) if listed else None
        if seen is not None and new is not None and old is None:
            new.id = seen.id  # made by the server
        if answer is None or (crash is not None and answer.status == 503):
            self.world.unanswered += 1
            assert seen in (old, new), (call, answer)
        else:
            assert answer.status == 200, (call, answer)
            assert seen == new, (call, answer)
        if seen is None:
            self.model.pop(name, None)
        else:
            self.model[name] = seen

    def seen(self, name: str, listed: dict[str, Any]) -> Modelled:
        """One endpoint, read over all that the API tells of it."""
        answer = self.world.call("GET", f"/{name}")
        assert answer is not None
        assert answer.status == 200, answer
        detailed = json.loads(answer.body)
        config = detailed["config"]
        assert "pending_config" not in detailed, detailed
        assert [one["entity_version"] for one in config["served_entities"]] == [
            one["entity_version"] for one in listed["config"]["served_entities"]
        ]
        grants = self.world.call("GET", f"/api/2.0/permissions/serving-endpoints/{detailed['id']}")
        assert grants is not None
        assert grants.status == 200, grants
        levels = [
            held["permission_level"]
            for entry in json.loads(grants.body)["access_control_list"]
            if entry.get("group_name") == "users"
            for held in entry["all_permissions"]
        ]
        return Modelled(
            id=detailed["id"],
            version=config["config_version"],
            entity_version=config["served_entities"][0]["entity_version"],
            tags={one["key"]: one.get("value", "") for one in detailed["tags"]},
            group_level=levels[0] if levels else None,
            stopped=detailed["state"]["suspend"] == "SUSPENDED",
        )

    @staticmethod
    def assert_error(answer: HttpAnswer) -> str:
        """Databricks' shape, with the status that belongs to the code."""
        body = json.loads(answer.body)
        assert set(body) >= {"error_code", "message"}, answer
        assert answer.status == ERROR_STATUS[body["error_code"]], answer
        assert body["message"].strip(), answer
        return body["error_code"]

    def assert_refused(self, answer: HttpAnswer, code: str) -> None:
        assert answer.status >= 400, answer
        assert self.assert_error(answer) == code, answer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(tmp_path_factory.mktemp("model")) as world:
        yield world


def test_what_was_answered_is_never_lost(world: World):
    machine = type("WithWorld", (ManagementApi,), {"world": world})
    checked = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(seed(SEED)(machine), settings=checked)
    print(f"{world.calls} changes, {world.kills} kills, {world.unanswered} changes without an answer")
    assert world.kills >= EXAMPLES
    assert world.controller.said("reconcile_failed") == []
    assert world.controller.said("request_failed") == []
