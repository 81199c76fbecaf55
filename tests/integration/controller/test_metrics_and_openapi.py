"""The controller tells what gateways and workers measured, and describes endpoints in OpenAPI."""

import json

import pytest
from openapi_spec_validator import validate
from prometheus_client.parser import text_string_to_metric_families
from tests.integration.controller.conftest import World
from tests.integration.controller.peers import entity

from servery_common.contracts import subjects
from servery_common.contracts.metrics import EntityMetrics, GatewayMetrics, Histogram, RequestCounts

INPUTS = json.dumps([{"type": "double", "name": "x", "required": True}])
EXAMPLE = json.dumps({"dataframe_split": {"columns": ["x"], "data": [[1.5]]}})


async def deploy(world: World, name: str) -> str:
    """Deploy a model and return the id of its served entity."""
    await world.ok("POST", "", {"name": name, "config": {"served_entities": [entity()]}})
    assert await world.settled(name) == ("READY", "NOT_UPDATING")
    return (await world.ok("GET", f"/{name}"))["config"]["served_entities"][0]["id"]


async def metrics(world: World, name: str) -> dict[str, float]:
    answer = await world.gateway.call("GET", f"/{name}/metrics")
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.body):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def report(served_entity_id: str) -> GatewayMetrics:
    latency = Histogram(counts=(0, 3, *(0,) * 14), sum_ms=6.0)
    metrics = EntityMetrics(
        served_entity_id=served_entity_id,
        last_minute=RequestCounts(requests=3, client_errors=1),
        in_flight=0,
        queued=0,
        latency=latency,
        queue_time=latency,
        prediction=latency,
    )
    return GatewayMetrics(gateway_id="g1", entities=(metrics,))


async def test_what_gateways_and_workers_measured_is_told_also_after_a_restart(world: World) -> None:
    served = await deploy(world, "measured")
    (replica_id,) = world.worker.replicas
    world.worker.replicas[replica_id] = world.worker.replicas[replica_id].model_copy(
        update={"cpu_percent": 40.0, "memory_bytes": 25, "memory_limit_bytes": 100}
    )
    assert (await metrics(world, "measured"))["request_count_total"] == 0

    async def told() -> dict[str, float] | None:
        await world.gateway.bus.signal(subjects.gateway_metrics("g1"), report(served))
        found = await metrics(world, "measured")
        return found if found["request_count_total"] and found["cpu_usage_percentage"] else None

    for _ in range(2):
        found = await world.until(told)
        assert found["request_count_total"] == 3
        assert found["request_4xx_count_total"] == 1
        assert found["request_latency_ms_count"] == 3
        assert found["cpu_usage_percentage"] == 40.0
        assert found["mem_usage_percentage"] == 25.0
        assert found["provisioned_concurrent_requests_total"] == 4
        await world.crash_controller()
        await world.start_controller()


@pytest.fixture
def public_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator's name for the gateway, which is not the one the caller used."""
    monkeypatch.setenv("SERVERY_PUBLIC_URL", "https://serving.example")


async def test_an_endpoint_is_described_in_openapi(public_url: None, world: World) -> None:
    world.builder.model = {"inputs": INPUTS, "input_example": EXAMPLE}
    await deploy(world, "described")
    document = await world.ok("GET", "/described/openapi")
    validate(document)
    assert document["servers"] == [{"url": "http://127.0.0.1:8080/serving-endpoints/described"}]
    assert list(document["paths"]) == ["/served-models/iris-1/invocations"]


async def test_what_has_no_document_is_refused_with_the_reason(world: World) -> None:
    await world.ok("POST", "", {"name": "empty"})
    status, code, message = await world.refused("GET", "/empty/openapi")
    assert (status, code) == (400, "BAD_REQUEST")
    assert "not ready" in message
    world.builder.model = {}
    await deploy(world, "bare")
    status, code, message = await world.refused("GET", "/bare/openapi")
    assert (status, code) == (400, "BAD_REQUEST")
    assert "infer_signature" in message


@pytest.mark.parametrize("what", ["metrics", "openapi"])
async def test_no_endpoint_is_not_found(world: World, what: str) -> None:
    status, code, _ = await world.refused("GET", f"/nobody/{what}")
    assert (status, code) == (404, "RESOURCE_DOES_NOT_EXIST")
