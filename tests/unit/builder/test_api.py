"""What the builder answers while MLflow does not."""

import asyncio

import pytest

from servery_builder.api import BuilderApi
from servery_common.contracts.builds import ModelResolved, ResolveModel
from servery_common.errors import Unavailable


class HangingRegistry:
    """An MLflow that takes requests and never answers."""

    address = "http://mlflow:5000"

    async def start(self) -> None:
        return

    async def resolve(self, name: str, version: str) -> ModelResolved:
        await asyncio.Event().wait()
        raise AssertionError


async def test_an_mlflow_that_never_answers_is_unavailable_and_named() -> None:
    api = BuilderApi(HangingRegistry(), None, resolve_timeout_seconds=0)  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="MLflow at http://mlflow:5000 did not answer"):
        await api.resolve(ResolveModel(name="iris", version="1"))
