"""What the builder answers: which version a name means, where a build stands, its log."""

import asyncio

from servery_builder.artifacts.mlflow_registry import ArtifactMissing, MlflowRegistry
from servery_builder.model_descriptions import ModelDescriptions
from servery_builder.store import BuildStore
from servery_common.contracts import subjects
from servery_common.contracts.builds import (
    BuildLog,
    BuildStatus,
    DescribeBuild,
    DescribeModel,
    ModelResolved,
    ReadBuildLog,
    ResolveModel,
)
from servery_common.errors import NotFound, Unavailable
from servery_common.messaging.port import Bus

ANSWER_SECONDS = 9.0
"""Everything is answered within this: whoever asks waits ten seconds, and shall read who did not answer."""


class BuilderApi:
    """The request/reply side of the builder."""

    def __init__(
        self,
        registry: MlflowRegistry,
        store: BuildStore,
        resolve_timeout_seconds: float,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._registry = registry
        self._store = store
        self._resolve_timeout_seconds = resolve_timeout_seconds
        self._answer_seconds = answer_seconds

    async def serve(self, bus: Bus) -> None:
        """Answer from now on, together with the other builders."""
        queue = subjects.BUILDER_QUEUE
        await bus.serve(subjects.builder_resolve(), ResolveModel, self.resolve, queue=queue)
        await bus.serve(subjects.builder_describe(), DescribeBuild, self.describe, queue=queue)
        describe_model = ModelDescriptions(self._store).describe
        await bus.serve(subjects.builder_describe_model(), DescribeModel, describe_model, queue=queue)
        await bus.serve(subjects.builder_log(), ReadBuildLog, self.read_log, queue=queue)

    async def resolve(self, request: ResolveModel) -> ModelResolved:
        """Ask MLflow; raises ``NotFound``, ``InvalidParameter`` or ``Unavailable``."""
        loop = asyncio.get_running_loop()
        answer_at = loop.time() + self._answer_seconds
        try:
            # Not counted as time that MLflow takes: right after the start its client is still being imported.
            async with asyncio.timeout_at(answer_at):
                await self._registry.start()
        except TimeoutError:
            raise Unavailable(
                f"The builder is still connecting to MLflow at {self._registry.address}; try again in a few seconds."
            ) from None
        asked_at = loop.time()
        try:
            async with asyncio.timeout_at(min(answer_at, asked_at + self._resolve_timeout_seconds)):
                return await self._registry.resolve(request.name, request.version)
        except TimeoutError:
            seconds = loop.time() - asked_at
            raise Unavailable(
                f"MLflow at {self._registry.address} did not answer within {seconds:.0f} s."
            ) from None
        except ArtifactMissing as error:
            raise NotFound(error.message) from error

    async def describe(self, request: DescribeBuild) -> BuildStatus:
        """Return where the build stands."""
        return await self._store.status(request.build_id)

    async def read_log(self, request: ReadBuildLog) -> BuildLog:
        """Return the log kept for the build: empty when there is none."""
        return BuildLog(build_id=request.build_id, text=await self._store.read_log(request.build_id))
