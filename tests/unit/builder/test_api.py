"""What the builder answers while MLflow does not."""

import asyncio

import pytest

from servery_builder.api import BuilderApi
from servery_common.contracts.builds import ModelResolved, ResolveModel
from servery_common.errors import Unavailable


class HangingRegistry:
    """An MLflow that takes requests and never answers; ``starting``: not even its client gets ready."""

    address = "http://mlflow:5000"

    def __init__(self, *, starting: bool = False) -> None:
        self._starting = starting

    async def start(self) -> None:
        if self._starting:
            await asyncio.Event().wait()

    async def resolve(self, name: str, version: str) -> ModelResolved:
        await asyncio.Event().wait()
        raise AssertionError


async def test_an_mlflow_that_never_answers_is_unavailable_and_named() -> None:
    api = BuilderApi(HangingRegistry(), None, resolve_timeout_seconds=0)  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="MLflow at http://mlflow:5000 did not answer"):
        await api.resolve(ResolveModel(name="iris", version="1"))


async def test_a_client_of_mlflow_that_does_not_get_ready_is_unavailable_and_named() -> None:
    registry = HangingRegistry(starting=True)
    api = BuilderApi(registry, None, resolve_timeout_seconds=60, answer_seconds=0)  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="still connecting to MLflow at http://mlflow:5000"):
        await api.resolve(ResolveModel(name="iris", version="1"))


async def test_no_setting_makes_the_answer_later_than_the_controller_waits() -> None:
    api = BuilderApi(HangingRegistry(), None, resolve_timeout_seconds=60, answer_seconds=0)  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="MLflow at http://mlflow:5000 did not answer"):
        await api.resolve(ResolveModel(name="iris", version="1"))
