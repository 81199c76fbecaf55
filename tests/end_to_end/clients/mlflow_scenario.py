"""What people do with ``mlflow.deployments``, written as they write it. Runs with any version of MLflow.

The test passes host, token, a model's name and two versions of it, and a prefix for the names of what is made.
"""

import os

import mlflow
from mlflow.deployments import get_deploy_client
from requests import HTTPError
from tests.end_to_end.clients.report import Scenario, arguments, equal, eventually, raises

COLUMNS = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
FLOWER = [5.1, 3.5, 1.4, 0.2]

scenario = Scenario()


class World:
    """The client, the model and the names of the endpoints."""

    def __init__(self, host, token, model, versions, prefix):
        os.environ.update(DATABRICKS_HOST=host, DATABRICKS_TOKEN=token)
        self.client = get_deploy_client("databricks")
        self.model = model
        self.first, self.second = versions
        self.name = f"{prefix}-mlflow"
        self.older = f"{prefix}-mlflow-older"

    def entity(self, version):
        """A served entity of the model."""
        return {
            "entity_name": self.model,
            "entity_version": version,
            "workload_size": "Small",
            "scale_to_zero_enabled": False,
        }

    def settled(self, name):
        """The endpoint once its update has ended."""

        def look():
            endpoint = self.client.get_endpoint(name)
            return endpoint if endpoint["state"]["config_update"] != "IN_PROGRESS" else None

        endpoint = eventually(look, 180)
        equal(endpoint["state"]["config_update"], "NOT_UPDATING")
        return endpoint


@scenario.step
def endpoints_are_created_in_both_ways(world):
    config = {"served_entities": [world.entity(world.first)]}
    created = world.client.create_endpoint(
        config={"name": world.name, "config": config}, route_optimized=None
    )
    equal(created["state"]["config_update"], "IN_PROGRESS")
    older = {"name": world.older, "config": {**config, "tags": [{"key": "team", "value": "blue"}]}}
    equal(world.client.create_endpoint(**older)["tags"], [{"key": "team", "value": "blue"}])
    equal(world.settled(world.name)["state"]["ready"], "READY")
    equal(world.settled(world.older)["state"]["ready"], "READY")


@scenario.step
def endpoints_predict(world):
    split = {"dataframe_split": {"columns": COLUMNS, "data": [FLOWER]}}
    equal(world.client.predict(endpoint=world.name, inputs=split)["predictions"], [0])
    records = {"dataframe_records": [dict(zip(COLUMNS, FLOWER))]}  # noqa: B905
    equal(world.client.predict(endpoint=world.older, inputs=records)["predictions"], [0])


@scenario.step
def endpoints_are_read_and_listed(world):
    equal(world.client.get_endpoint(world.name)["name"], world.name)
    names = [endpoint["name"] for endpoint in world.client.list_endpoints()]
    assert {world.name, world.older} <= set(names), names


@scenario.step
def configs_are_updated(world):
    config = {"served_entities": [world.entity(world.second)]}
    world.client.update_endpoint_config(endpoint=world.name, config=config)
    served = world.settled(world.name)["config"]["served_entities"]
    equal([entity["entity_version"] for entity in served], [world.second])


@scenario.step
def tags_and_rate_limits_are_changed(world):
    add = {"add_tags": [{"key": "stage", "value": "test"}]}
    equal(
        world.client.update_endpoint_tags(endpoint=world.name, config=add)["tags"],
        [{"key": "stage", "value": "test"}],
    )
    limits = {"rate_limits": [{"key": "endpoint", "renewal_period": "minute", "calls": 1000}]}
    answer = world.client.update_endpoint_rate_limits(endpoint=world.name, config=limits)
    equal(answer["rate_limits"][0]["calls"], 1000)


@scenario.step
def errors_carry_the_status_of_their_code(world):
    def status(function, *args, **options):
        return raises(HTTPError, function, *args, **options).response.status_code

    equal(status(world.client.get_endpoint, "no-such-endpoint"), 404)
    equal(status(world.client.predict, endpoint="no-such-endpoint", inputs={"inputs": [1]}), 404)
    equal(status(world.client.predict, endpoint=world.name, inputs={"neither": "nor"}), 400)
    equal(status(world.client.create_endpoint, config={"name": "not a name", "config": {}}), 400)


@scenario.step
def endpoints_are_deleted(world):
    for name in (world.name, world.older):
        world.client.delete_endpoint(name)
    left = [endpoint["name"] for endpoint in world.client.list_endpoints()]
    assert not {world.name, world.older} & set(left), left


if __name__ == "__main__":
    scenario.run(World(**arguments()), f"mlflow {mlflow.__version__}")
