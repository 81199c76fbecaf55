"""Why an endpoint has the replicas it has, from the command line to the workers; and a quota that is used up."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.end_to_end.client import Client, Registered, entity
from tests.end_to_end.deadlines import eventually
from tests.end_to_end.test_quotas import Command, servery
from tests.models import zoo

__all__ = ["servery"]  # a fixture


def test_an_endpoints_replicas_are_explained(servery: Command, misbehaving: str):
    explained = servery("explain", misbehaving)
    assert explained.returncode == 0, explained.stderr
    words = " ".join(explained.stdout.split())
    assert "1 ready of 1 wanted; from 1 to 1, 4 slots each" in words
    assert "workers " in words
    assert "of 160 slots used" in words
    answer = json.loads(servery("explain", misbehaving, "--json").stdout)
    assert [e["ready_replicas"] for e in answer["served_entities"]] == [1]
    nothing = servery("explain", "no-such-endpoint")
    assert nothing.returncode == 1
    assert "RESOURCE_DOES_NOT_EXIST" in nothing.stderr


def test_a_model_that_finds_no_room_in_the_quota_says_so_and_starts_when_there_is_some(
    client: Client, register: Registered, servery: Command, new_name: Callable[[], str]
):
    name, version = new_name(), register(zoo.misbehaves())
    assert servery("quota", "set", "compute=0").returncode == 0
    try:
        answer = client.create(name, [entity("misbehaves", version)])
        assert answer.status_code == 200

        def told() -> bool:
            state = client.get(name)["pending_config"]["served_entities"][0]["state"]
            return "compute quota is used up" in state["deployment_state_message"]

        eventually(told, within=60, what="the endpoint says what it waits for")
        assert "compute quota is used up" in " ".join(servery("explain", name).stdout.split())
    finally:
        assert servery("quota", "set", "compute=default").returncode == 0
    client.await_ready(name)
