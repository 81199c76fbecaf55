"""Which model an endpoint serves: a version, an alias looked up anew at each update, a name of three levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow import MlflowClient
from tests.end_to_end.client import Client, Registered, describe, entity, fine
from tests.models import zoo

Names = Callable[[], str]
NAME = "main.default.misbehaves"


def serving(client: Client, endpoint: str) -> tuple[str, str]:
    """Name and version of the only served entity."""
    (served,) = client.get(endpoint)["config"]["served_entities"]
    return served["name"], served["entity_version"]


def version(client: Client, endpoint: str) -> Any:
    """The version the model itself was made as."""
    return client.predictions(endpoint, fine())[0]["version"]


def test_an_alias_of_a_three_level_name_is_looked_up_anew_at_each_update(
    client: Client, register: Registered, new_name: Names
):
    registry = MlflowClient(client.access.tracking_uri, client.access.tracking_uri)
    first = register(zoo.misbehaves("first"), name=NAME, variant="first")
    second = register(zoo.misbehaves("second"), name=NAME, variant="second")
    endpoint, champion = new_name(), entity(NAME, "@champion")

    registry.set_registered_model_alias(NAME, "champion", first)
    client.deploy(endpoint, NAME, "@champion")
    assert serving(client, endpoint) == (f"misbehaves-{first}", first)
    assert version(client, endpoint) == "first"

    registry.set_registered_model_alias(NAME, "champion", second)
    assert version(client, endpoint) == "first"
    answer = client.update(endpoint, [champion])
    assert answer.status_code == 200, describe(answer)
    client.await_ready(endpoint)
    assert serving(client, endpoint) == (f"misbehaves-{second}", second)
    assert version(client, endpoint) == "second"

    client.deploy(other := new_name(), NAME, first)
    assert version(client, other) == "first"


def test_an_alias_or_a_version_that_does_not_exist_says_what_does(
    client: Client, register: Registered, new_name: Names
):
    registry = MlflowClient(client.access.tracking_uri, client.access.tracking_uri)
    first = register(zoo.misbehaves("first"), name=NAME, variant="first")
    registry.set_registered_model_alias(NAME, "champion", first)
    for asked in ("@challenger", "999"):
        answer = client.create(new_name(), [entity(NAME, asked)])
        message = client.assert_error(answer, "RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
        assert ("@champion" if asked.startswith("@") else "latest version") in message
