"""An endpoint from its creation to its end: updates, failures, replacement, scale and environments."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.end_to_end.client import ENDPOINTS, Client, Registered, describe, entity, fine
from tests.end_to_end.deadlines import eventually
from tests.end_to_end.load import Load
from tests.models import versions_model, zoo

Names = Callable[[], str]


def test_update_under_load_fails_no_request(client: Client, register: Registered, new_name: Names):
    """v1 answers until v2 is ready, then v2 does, and nobody notices."""
    name = new_name()
    first, second = register(zoo.misbehaves("1")), register(zoo.misbehaves("2"), variant="second")
    client.deploy(name, "misbehaves", first)

    with Load(client, name) as load:
        eventually(lambda: load.count() > 20, within=30, what="load runs")
        answer = client.update(name, [entity("misbehaves", second)])
        updating_since = time.monotonic()
        assert answer.status_code == 200, describe(answer)
        assert answer.json()["state"] == {
            **answer.json()["state"],
            "ready": "READY",
            "config_update": "IN_PROGRESS",
        }
        described = client.await_ready(name)
        updated_at = time.monotonic()
        settled = load.count() + 50
        eventually(lambda: load.count() > settled, within=30, what="load goes on")

    assert load.failures() == []
    assert described["config"]["config_version"] == 2
    assert "pending_config" not in described
    meanwhile = {one.version for one in load.scored if updating_since < one.sent_at < updated_at}
    assert "1" in meanwhile, "the old version went on answering during the update"
    assert {one.version for one in load.scored if one.sent_at > updated_at} == {"2"}


def test_failed_update_leaves_the_old_version_serving(client: Client, register: Registered, new_name: Names):
    name = new_name()
    good = register(zoo.misbehaves("1"))
    package = "servery-no-such-package==1.2.3"
    bad = register(
        zoo.misbehaves("3", pip_requirements=[*zoo.requirements(), package]), variant="missing package"
    )
    client.deploy(name, "misbehaves", good)

    with Load(client, name, threads=1) as load:
        answer = client.update(name, [entity("misbehaves", bad)])
        assert answer.status_code == 200, describe(answer)
        described = client.await_settled(name)
        settled = load.count() + 10
        eventually(lambda: load.count() > settled, within=30, what="load goes on")

    assert load.failures() == []
    assert {one.version for one in load.scored} == {"1"}
    assert described["state"]["config_update"] == "UPDATE_FAILED", described
    assert described["state"]["ready"] == "READY", described
    assert described["config"]["config_version"] == 1
    (failed,) = described["pending_config"]["served_entities"]
    assert failed["state"]["deployment"] == "DEPLOYMENT_FAILED", failed
    assert "servery-no-such-package" in failed["state"]["deployment_state_message"], failed

    # The reason is also in the log of the build, which is kept.
    path = f"{ENDPOINTS}/{name}/served-models/{failed['name']}/build-logs"
    logs = client.http.get(path, params={"config_version": 2})
    assert logs.status_code == 200, describe(logs)
    assert "servery-no-such-package" in logs.json()["logs"]

    # And the endpoint can be updated again.
    again = client.update(name, [entity("misbehaves", good, name="again")])
    assert again.status_code == 200, describe(again)
    assert client.await_ready(name)["config"]["served_entities"][0]["name"] == "again"


def test_update_during_an_update_is_refused(client: Client, register: Registered, new_name: Names):
    name, version = new_name(), register(zoo.misbehaves("1"))
    created = client.create(name, [entity("misbehaves", version)])
    assert created.status_code == 200, describe(created)
    client.assert_error(client.update(name, [entity("misbehaves", version)]), "RESOURCE_CONFLICT")
    client.await_ready(name)


def test_model_runs_on_its_own_package_versions(client: Client, register: Registered, new_name: Names):
    """Older MLflow, scikit-learn, NumPy and pandas than the platform's, side by side with it."""
    name = new_name()
    client.deploy(name, "older_packages", register(zoo.OLDER_PACKAGES))
    first = client.predictions(name, zoo.OLDER_PACKAGES.sample)[0]
    pinned = dict(requirement.split("==") for requirement in versions_model.REQUIREMENTS)
    assert first == {"twice": 1.0, **pinned}
    assert pinned["scikit-learn"] not in zoo.requirements()[3]


def test_crashed_model_process_is_replaced_and_reported_healthy(
    client: Client, register: Registered, new_name: Names
):
    name = new_name()
    client.deploy(name, "misbehaves", register(zoo.misbehaves("1")))
    before = client.predictions(name, fine())[0]["pid"]
    client.assert_error(client.score(name, fine("exit")), "BAD_REQUEST")

    def replaced() -> bool:
        assert client.predictions(name, fine())[0]["pid"] != before
        (served,) = client.get(name)["config"]["served_entities"]
        assert served["state"]["deployment"] == "DEPLOYMENT_READY", served
        return True

    eventually(replaced, within=30, what="the process is replaced")


def test_medium_size_answers_from_two_replicas(client: Client, register: Registered, new_name: Names):
    name = new_name()
    client.deploy(name, "misbehaves", register(zoo.misbehaves("1")), workload_size="Medium")

    def both_answer() -> bool:
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: client.predictions(name, fine("sleep:0.2")), range(8)))
        return len({answer[0]["pid"] for answer in answers}) >= 2

    eventually(both_answer, within=30, what="two replicas answer")


def test_second_model_with_the_same_requirements_finds_the_environment_ready(
    client: Client, register: Registered, new_name: Names
):
    first, second = new_name(), new_name()
    client.deploy(first, "misbehaves", register(zoo.misbehaves("1")))
    environments = client.stack.directory / "artifacts" / "environments"
    before = sorted(path.name for path in environments.iterdir())
    client.deploy(second, "text_output", register(zoo.TEXT_OUTPUT))
    assert sorted(path.name for path in environments.iterdir()) == before
    assert client.score(second, zoo.TEXT_OUTPUT.sample).status_code == 200


def test_deleted_endpoint_is_gone_and_its_name_can_be_used_again(
    client: Client, register: Registered, new_name: Names
):
    name = new_name()
    first, second = register(zoo.misbehaves("1")), register(zoo.misbehaves("2"), variant="second")
    client.deploy(name, "misbehaves", first)
    old_id = client.get(name)["id"]
    deleted = client.http.delete(f"{ENDPOINTS}/{name}")
    assert (deleted.status_code, deleted.json()) == (200, {})

    def forgotten() -> bool:
        client.assert_error(client.score(name, fine()), "ENDPOINT_NOT_FOUND")
        return True

    eventually(forgotten, within=10, what="requests find no endpoint")
    client.assert_error(client.http.get(f"{ENDPOINTS}/{name}"), "RESOURCE_DOES_NOT_EXIST")

    client.deploy(name, "misbehaves", second)
    assert client.get(name)["id"] != old_id
    assert client.predictions(name, fine())[0]["version"] == "2"


def test_environment_variables_reach_the_model_and_secrets_of_the_platform_do_not(
    client: Client, register: Registered, new_name: Names
):
    name = new_name()
    client.deploy(
        name, "misbehaves", register(zoo.misbehaves("1")), environment_vars={"GREETING": "hello there"}
    )
    seen = client.predictions(name, fine("environment"))[0]["environment"]
    assert seen["GREETING"] == "hello there"
    leaked = {key for key in seen if key.startswith(("SERVERY_", "MLFLOW_TRACKING", "OTEL_", "DATABRICKS_"))}
    # Where the gateway is: with the token in the model's own file, enough for a client that nobody configured.
    assert leaked == {"DATABRICKS_MODEL_SERVING_HOST_URL"}
    assert client.access.token not in seen.values()


@pytest.mark.parametrize("share", [100, 70])
def test_traffic_is_split_as_configured(client: Client, register: Registered, new_name: Names, share: int):
    name = new_name()
    first, second = register(zoo.misbehaves("1")), register(zoo.misbehaves("2"), variant="second")
    routes = [
        {"served_model_name": "one", "traffic_percentage": share},
        {"served_model_name": "two", "traffic_percentage": 100 - share},
    ]
    entities = [entity("misbehaves", first, name="one"), entity("misbehaves", second, name="two")]
    created = client.create(name, entities, traffic_config={"routes": routes})
    assert created.status_code == 200, describe(created)
    client.await_ready(name)
    answers = [client.predictions(name, fine())[0]["version"] for _ in range(200)]
    # Five standard deviations of a fair draw around the share.
    spread = 5 * (200 * share / 100 * (1 - share / 100)) ** 0.5
    assert abs(answers.count("1") - 200 * share / 100) <= spread
    addressed = client.http.post(
        f"/serving-endpoints/{name}/served-models/two/invocations",
        json={"dataframe_records": [{"kind": "direct"}]},
    )
    assert addressed.status_code == 200, describe(addressed)
    assert addressed.headers["served-model-name"] == "two"
    assert addressed.json()["predictions"][0]["version"] == "2"
