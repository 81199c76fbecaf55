"""Which version a name means, asked over the bus."""

import time

import pytest
from tests.infrastructure import free_port
from tests.integration.builder.peers import Registry, running_builder

from servery_builder.artifacts.mlflow_registry import MlflowRegistry
from servery_builder.settings import BuilderSettings
from servery_common.contracts import subjects
from servery_common.contracts.builds import ModelResolved, ResolveModel
from servery_common.errors import Internal, InvalidParameter, NotFound, Unavailable
from servery_common.messaging.bus import NatsBus
from servery_common.postgres import Pool


async def resolve(bus: NatsBus, name: str, version: str) -> ModelResolved:
    request = ResolveModel(name=name, version=version)
    return await bus.request(subjects.builder_resolve(), request, ModelResolved, timeout=20)


async def test_versions_aliases_and_names_with_dots_resolve(
    builder: None, registry: Registry, bus: NatsBus
) -> None:
    registry.register([], name="prod.churn.model")
    registry.register([], name="prod.churn.model")
    registry.set_alias("prod.churn.model", "champion", "2")

    by_number = await resolve(bus, "prod.churn.model", "1")
    assert (by_number.version, by_number.registry_type) == ("1", "UC_MODEL")
    assert (await resolve(bus, "prod.churn.model", "@champion")).version == "2"
    name, _ = registry.register([])
    assert (await resolve(bus, name, "1")).registry_type == "WORKSPACE_MODEL"


async def test_what_does_not_exist_is_answered_with_what_does(
    builder: None, registry: Registry, bus: NatsBus
) -> None:
    name, _ = registry.register([], name="iris")
    registry.register([], name=name)
    registry.set_alias(name, "champion", "1")

    with pytest.raises(NotFound, match="Registered model 'iris' has no version 9; its latest version is 2"):
        await resolve(bus, name, "9")
    with pytest.raises(NotFound, match="has no alias @best; its aliases are @champion"):
        await resolve(bus, name, "@best")
    with pytest.raises(NotFound, match="There is no registered model 'nobody'"):
        await resolve(bus, "nobody", "1")
    with pytest.raises(InvalidParameter, match="'latest' is not a model version"):
        await resolve(bus, name, "latest")


async def test_an_unreachable_mlflow_is_named_within_seconds(
    settings: BuilderSettings, pool: Pool, nats_url: str, bus: NatsBus
) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    elsewhere = settings.model_copy(update={"mlflow_tracking_uri": address})
    async with running_builder(nats_url, elsewhere, pool):
        # The first one also waits for the import of MLflow.
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises(Unavailable, match=address):
                await resolve(bus, "iris", "1")
        assert time.monotonic() - started < 10


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
async def test_a_container_whose_registry_is_localhost_is_told_that_this_is_itself(host: str) -> None:
    address = f"http://{host}:{free_port()}"
    with pytest.raises(Internal) as told:
        await MlflowRegistry(address, in_container=True).resolve("iris", "1")
    assert f"{address}, and inside the builder's container that is the container itself" in told.value.message
    assert "Set SERVERY_MLFLOW_URI" in told.value.message


async def test_another_address_that_does_not_answer_may_yet() -> None:
    """As while MLflow starts."""
    with pytest.raises(Unavailable):
        await MlflowRegistry("http://mlflow.invalid:5000", in_container=True).resolve("iris", "1")
    with pytest.raises(Unavailable):
        await MlflowRegistry(f"http://localhost:{free_port()}").resolve("iris", "1")
