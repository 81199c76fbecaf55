"""A model is verified with the memory its replicas will have, by its endpoint's workload_type."""

import pytest
from tests.integration.builder.peers import Orderer, Registry, running_builder

from servery_builder.settings import BuilderSettings
from servery_common import workload_types
from servery_common.contracts.builds import FailureCode
from servery_common.postgres import Pool

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("engine")]
MIB = 1024**2


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gigabytes take long to fill."""
    sizes = {"CPU": 128 * MIB, "CPU_MEDIUM": 1024 * MIB}
    monkeypatch.setattr(workload_types, "MEMORY_BY_WORKLOAD_TYPE", sizes)
    monkeypatch.setattr(workload_types, "LEAST_MODEL_BYTES", 64 * MIB)


async def test_a_model_that_needs_more_is_told_which_size_to_choose(
    nats_url: str, settings: BuilderSettings, pool: Pool, registry: Registry, orderer: Orderer
) -> None:
    model = registry.register([], extra={"do": "eat"})
    async with running_builder(nats_url, settings, pool):
        small = await orderer.ended(await orderer.order(model))
        orderer.workload_type = "CPU_MEDIUM"
        largest = await orderer.ended(await orderer.order(model))
    assert small.code == largest.code == FailureCode.LOAD_FAILED
    assert small.reason == (
        "The model needs more memory than the 0.1 GiB of workload_type CPU: choose workload_type CPU_MEDIUM, or serve a"
        " smaller model."
    )
    assert largest.reason == (
        "The model needs more memory than the 1.0 GiB that this machine can give: use a machine with more, or serve a"
        " smaller model."
    )


async def test_the_models_process_has_what_the_worker_leaves_of_it(
    nats_url: str, settings: BuilderSettings, pool: Pool, registry: Registry, orderer: Orderer
) -> None:
    orderer.workload_type = "CPU_MEDIUM"
    async with running_builder(nats_url, settings, pool):
        build_id = await orderer.order(registry.register([]))
        await orderer.ended(build_id)
        assert f"verifying, {(1024 - 256) * MIB}" in await orderer.log(build_id)
