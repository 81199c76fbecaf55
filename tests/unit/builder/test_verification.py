"""A model that does not work is final; a worker that is not there or dies is not."""

from collections.abc import AsyncIterator, Callable

import pytest

from servery_builder.domain.build import BuildError
from servery_builder.verification import ModelEnvironments, WorkerVerifier
from servery_common.contracts import subjects
from servery_common.contracts.builds import Artifacts, ModelEnvironment, ReadModelEnvironment
from servery_common.contracts.message import Message
from servery_common.contracts.replicas import ModelVerified, VerifyModel, VerifyProgress
from servery_common.errors import InvalidParameter, ResourceExhausted, Unavailable
from servery_common.messaging.testing import InMemoryBus

ARTIFACTS = Artifacts(model_path="m", environment_path="e", python="e/bin/python", environment_key="k")
REQUEST = VerifyModel(build_id="b1", artifacts=ARTIFACTS)
Answer = Callable[[VerifyModel], AsyncIterator[Message]]


async def bus_with(*answers: Answer) -> InMemoryBus:
    """A bus whose workers answer one after the other as told."""
    bus = InMemoryBus()
    left = list(answers)

    async def verify(request: VerifyModel) -> AsyncIterator[Message]:
        async for message in left.pop(0)(request):
            yield message

    await bus.serve_stream(subjects.worker_verify(), VerifyModel, verify)
    return bus


async def works(request: VerifyModel) -> AsyncIterator[Message]:
    yield VerifyProgress(build_id=request.build_id, line="loading")
    yield VerifyProgress(build_id=request.build_id)
    yield ModelVerified(build_id=request.build_id, ok=True)


async def fails(request: VerifyModel) -> AsyncIterator[Message]:
    yield ModelVerified(build_id=request.build_id, ok=False, stage="load", error="ValueError: no")


async def dies(request: VerifyModel) -> AsyncIterator[Message]:
    yield VerifyProgress(build_id=request.build_id, line="loading")
    raise Unavailable("the worker was silent for 15 s.")


async def is_busy(request: VerifyModel) -> AsyncIterator[Message]:
    raise ResourceExhausted("this worker verifies another model.")
    yield


async def verify(*answers: Answer) -> tuple[ModelVerified, list[str]]:
    said: list[str] = []
    verified = await WorkerVerifier(await bus_with(*answers), retry_seconds=0).verify(REQUEST, said.append)
    return verified, said


async def test_what_the_worker_prints_is_passed_on() -> None:
    verified, said = await verify(works)
    assert verified.ok
    assert said == ["loading"]


async def test_a_model_that_fails_is_not_tried_again() -> None:
    verified, _ = await verify(fails)
    assert verified.error == "ValueError: no"


async def test_a_worker_that_dies_is_replaced() -> None:
    verified, said = await verify(dies, dies, works)
    assert verified.ok
    assert len([line for line in said if "is gone" in line]) == 2


async def test_a_model_that_kills_three_workers_has_failed() -> None:
    with pytest.raises(BuildError, match="more memory") as caught:
        await verify(dies, dies, dies, works)
    assert caught.value.failure.code == "LOAD_FAILED"


async def test_busy_workers_are_waited_for_and_not_counted_as_dead() -> None:
    verified, said = await verify(*[is_busy] * 5, works)
    assert verified.ok
    assert [line for line in said if line.startswith("Waiting for a worker")] == [
        "Waiting for a worker: this worker verifies another model."
    ]


async def test_the_controller_is_asked_for_what_the_model_is_given() -> None:
    bus = InMemoryBus()

    async def environment(request: ReadModelEnvironment) -> ModelEnvironment:
        if request.served_entity_id != "se1":
            raise InvalidParameter("The secret is gone.")
        return ModelEnvironment(variables={"KEY": "value"}, workload_type="CPU_LARGE")

    await bus.serve(subjects.controller_model_environment(), ReadModelEnvironment, environment)
    given = await ModelEnvironments(bus).environment_of("se1")
    assert (given.variables, given.workload_type) == ({"KEY": "value"}, "CPU_LARGE")
    with pytest.raises(InvalidParameter, match="is gone"):
        await ModelEnvironments(bus).environment_of("se2")


async def test_without_a_controller_the_environment_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await ModelEnvironments(InMemoryBus()).environment_of("se1")
