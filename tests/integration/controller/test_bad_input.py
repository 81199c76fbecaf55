"""Bad management requests are refused with the documented code and change nothing.

The wrong values are made from databricks-sdk's request classes: every field, every wrong type, unknown words.
"""

import inspect
import json
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from databricks.sdk.service import serving
from tests.bad_values import Wrong, of_type
from tests.integration.controller.conftest import World
from tests.integration.controller.peers import entity

from servery_common.errors import HTTP_STATUS

TWO = [{**entity("1"), "name": "one"}, {**entity("2"), "name": "two"}]
OLDER = {"model_name": "iris", "model_version": "1", "workload_size": "Small", "scale_to_zero_enabled": False}

SIZED = {"workload_size": None, "min_provisioned_concurrency": 4, "max_provisioned_concurrency": 8}

CONFIG = {"served_entities": [entity()]}
RATE_LIMITS = [{"calls": 5, "renewal_period": "minute"}]

CALLS = {
    "create": (
        "POST",
        "",
        {"name": "other", "config": CONFIG, "tags": [{"key": "a"}], "rate_limits": RATE_LIMITS},
    ),
    "update_config": ("PUT", "/mine/config", CONFIG),
    "put": ("PUT", "/mine/rate-limits", {"rate_limits": RATE_LIMITS}),
    "patch": ("PATCH", "/mine/tags", {"add_tags": [{"key": "a"}]}),
    "update_notifications": ("PATCH", "/mine/notifications", {"email_notifications": {}}),
}
"""The SDK's methods that send a body, each with a body that is right: the one wrong value is why it is refused."""

NOT_LOOKED_AT = ("config", "name")
"""Sent by the SDK beside the endpoint's own name, and ignored here as by Databricks."""


def wrong_bodies(method: str) -> Iterator[tuple[Wrong, dict[str, Any]]]:
    """The body of an SDK method, once for each way in which one of its fields can be wrong."""
    function = getattr(serving.ServingEndpointsAPI, method)
    hints = typing.get_type_hints(function, vars(serving))
    of_the_body = [name for name in inspect.signature(function).parameters if name != "self"]
    if method != "create":
        of_the_body.remove("name")  # in the path
    for name in of_the_body:
        for wrong in of_type(hints[name], (name,)):
            if wrong.path != NOT_LOOKED_AT:
                yield wrong, wrong.put_into(right_body(method, wrong))


def right_body(method: str, wrong: Wrong) -> dict[str, Any]:
    """Return the right body with the fields around the wrong value: families and sizes exclude each other."""
    body: dict[str, Any] = CALLS[method][2]
    path = wrong.path[1:] if wrong.path[0] == "config" else wrong.path
    concurrency = SIZED if str(path[-1:]).find("_provisioned_concurrency") > 0 else {}
    match path:
        case ("served_models", *_):
            config = {"served_models": [{**OLDER, **concurrency}]}
        case ("served_entities", *_):
            config = {"served_entities": [entity(**concurrency)]}
        case ("traffic_config", *_):
            route = {"served_model_name": "iris-1", "traffic_percentage": 100}
            config = {**CONFIG, "traffic_config": {"routes": [route]}}
        case _:
            return body
    return {**body, "config": config} if method == "create" else config


@pytest.fixture
async def unchanged(world: World):
    """After whatever the test did, there is the one endpoint it began with, letter for letter."""
    await world.ok("POST", "", {"name": "mine", "config": {"served_entities": [entity()]}})
    assert await world.settled("mine") == ("READY", "NOT_UPDATING")
    before = await world.ok("GET", ""), await world.ok("GET", "/mine")
    yield
    assert (await world.ok("GET", ""), await world.ok("GET", "/mine")) == before
    assert [order.model_version for order in world.builder.orders] == ["1"], "something was built"


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("sdk_method", CALLS)
async def test_a_wrong_value_in_any_field(world: World, sdk_method: str):
    method, path, _ = CALLS[sdk_method]
    problems = [
        problem
        for wrong, body in wrong_bodies(sdk_method)
        for problem in await complaints(world, method, path, wrong, body)
    ]
    assert not problems, "\n".join(problems)


async def complaints(world: World, method: str, path: str, wrong: Wrong, body: dict[str, Any]) -> list[str]:
    """Send the body; return what is wrong with the answer, nothing for a good refusal."""
    answer = await world.gateway.call(method, path, json.dumps(body))
    said = f"{method} {wrong} → {answer.status} {answer.body[:300]}"
    if answer.status == 200:
        if path == "":
            await world.ok("DELETE", f"/{json.loads(answer.body)['name']}")
        return [f"accepted: {said}"]
    error = json.loads(answer.body)
    code = error.get("error_code")
    if code not in ("INVALID_PARAMETER_VALUE", "NOT_IMPLEMENTED") or answer.status != HTTP_STATUS[code]:
        return [f"another error than documented: {said}"]
    if wrong.field not in error["message"] and str(wrong.value) not in error["message"]:
        return [f"the message names neither field nor value: {said}"]
    return []


def routes(**shares: object) -> dict[str, Any]:
    listed = [{"served_model_name": name, "traffic_percentage": share} for name, share in shares.items()]
    return {"traffic_config": {"routes": listed}}


BAD_CONFIGS: dict[str, dict[str, Any]] = {
    "no entities": {"served_entities": []},
    "no config at all": {},
    "11 entities": {
        "served_entities": [{**entity(), "name": f"e{n}"} for n in range(11)],
        **routes(**{f"e{n}": 10 if n < 10 else 0 for n in range(11)}),
    },
    "too little traffic": {"served_entities": TWO, **routes(one=50, two=49)},
    "too much traffic": {"served_entities": TWO, **routes(one=60, two=60)},
    "negative traffic": {"served_entities": TWO, **routes(one=-10, two=110)},
    "101 percent": {"served_entities": TWO, **routes(one=101, two=0)},
    "fraction of a percent": {"served_entities": TWO, **routes(one=50.5, two=49.5)},
    "route to nobody": {"served_entities": TWO, **routes(one=50, three=50)},
    "route without a name": {
        "served_entities": TWO,
        "traffic_config": {"routes": [{"traffic_percentage": 100}]},
    },
    "the same route twice": {
        "served_entities": TWO,
        "traffic_config": {"routes": [{"served_model_name": "one", "traffic_percentage": 50}] * 2},
    },
    "two entities without routes": {"served_entities": TWO},
    "same name twice": {"served_entities": [TWO[0], TWO[0]], **routes(one=100)},
    "same default name twice": {"served_entities": [entity(), entity()], **routes(**{"iris-1": 100})},
    "unknown size": {"served_entities": [entity(workload_size="Gigantic")]},
    "size in the wrong case": {"served_entities": [entity(workload_size="SMALL")]},
    "unknown type": {"served_entities": [entity(workload_type="QUANTUM")]},
    "size and concurrency": {
        "served_entities": [entity(min_provisioned_concurrency=4, max_provisioned_concurrency=8)]
    },
    "half of a concurrency": {"served_entities": [entity(workload_size=None, min_provisioned_concurrency=4)]},
    "least above most": {
        "served_entities": [
            entity(workload_size=None, min_provisioned_concurrency=8, max_provisioned_concurrency=4)
        ]
    },
    "both families": {"served_entities": [entity()], "served_models": [OLDER]},
    "older family without scale to zero": {
        "served_models": [{"model_name": "iris", "model_version": "1", "workload_size": "Small"}]
    },
    "entity without a version": {"served_entities": [{"entity_name": "iris"}]},
    "entity without a model": {"served_entities": [{"entity_version": "1"}]},
    "version that is no version": {"served_entities": [entity("first")]},
    "variable without a name": {"served_entities": [entity(environment_vars={"": "1"})]},
    "variable with an equals sign": {"served_entities": [entity(environment_vars={"A=B": "1"})]},
    "31 variables": {"served_entities": [entity(environment_vars={f"V{n}": "1" for n in range(31)})]},
    "64 KB of variables": {"served_entities": [entity(environment_vars={"V": "x" * 65_536})]},
    **{
        f"served name {name!r}": {"served_entities": [{**entity(), "name": name}]}
        for name in ("a/b", "a>b", "a*b", "a\r\nb", "x" * 64, " ")
    },
}


@pytest.mark.usefixtures("unchanged")
async def test_a_config_that_breaks_a_rule(world: World):
    problems: list[str] = []
    for said, config in BAD_CONFIGS.items():
        for method, path, body in (
            ("POST", "", {"name": "other", "config": config}),
            ("PUT", "/mine/config", config),
        ):
            if said == "no config at all" and method == "POST":
                continue  # an endpoint may be created empty and configured later
            status, code, message = await world.refused(method, path, body)
            if (status, code) != (400, "INVALID_PARAMETER_VALUE"):
                problems.append(f"{method} {said}: {status} {code} {message}")
    assert not problems, "\n".join(problems)


BAD_NAMES = [
    7,
    None,
    [],
    {},
    True,
    "",
    " ",
    "a" * 64,
    "has space",
    "slash/in",
    "dot.ted",
    "\u00fcml",
    "databricks-mine",
    "a*",
    "a>",
    "a\r\nb",
]


@pytest.mark.usefixtures("unchanged")
async def test_a_name_no_endpoint_may_have(world: World):
    for name in BAD_NAMES:
        refused = await world.refused("POST", "", {"name": name, "config": {"served_entities": [entity()]}})
        assert refused[:2] == (400, "INVALID_PARAMETER_VALUE"), repr(name)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("key", ["k" * 10_240, "", "a\0b"], ids=["10 KB", "empty", "NUL"])
async def test_a_tag_that_cannot_be_kept(world: World, key: str):
    for method, path, body in (
        ("POST", "", {"name": "other", "tags": [{"key": key}]}),
        ("PATCH", "/mine/tags", {"add_tags": [{"key": key, "value": "x"}]}),
    ):
        assert (await world.refused(method, path, body))[:2] == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.usefixtures("unchanged")
async def test_a_name_that_is_taken(world: World):
    refused = await world.refused("POST", "", {"name": "mine", "config": {"served_entities": [entity("2")]}})
    assert refused[:2] == (400, "RESOURCE_ALREADY_EXISTS")


@pytest.mark.usefixtures("unchanged")
async def test_models_and_versions_that_do_not_exist(world: World):
    for served in (entity("9"), entity("1", "missing"), entity("@nobody")):
        refused = await world.refused("PUT", "/mine/config", {"served_entities": [served]})
        assert refused[:2] == (404, "RESOURCE_DOES_NOT_EXIST")


async def test_an_update_during_an_update(world: World):
    await world.ok("POST", "", {"name": "mine", "config": {"served_entities": [entity()]}})
    await world.settled("mine")
    world.builder.hold.clear()
    await world.ok("PUT", "/mine/config", {"served_entities": [entity("2")]})
    refused = await world.refused("PUT", "/mine/config", {"served_entities": [entity("3")]})
    assert refused[:2] == (409, "RESOURCE_CONFLICT")
    pending = (await world.ok("GET", "/mine"))["pending_config"]
    assert [(pending["config_version"], one["entity_version"]) for one in pending["served_entities"]] == [
        (2, "2")
    ]
    world.builder.hold.set()
    assert await world.settled("mine") == ("READY", "NOT_UPDATING")
    assert (await world.ok("GET", "/mine"))["config"]["served_entities"][0]["entity_version"] == "2"
