"""The builder, asked over request/reply: which model version is meant, where a build stands, what its log says."""

from servery_common.contracts import subjects
from servery_common.contracts.builds import (
    BuildLog,
    BuildStatus,
    DescribeBuild,
    DescribeModel,
    ModelDescription,
    ModelResolved,
    ReadBuildLog,
    ResolveModel,
)
from servery_common.errors import Unavailable
from servery_common.messaging.port import Bus

RESOLVE_SECONDS = 15.0
"""Longer than the builder waits for MLflow: its answer names what is wrong."""
DESCRIBE_SECONDS = 2.0
LOG_SECONDS = 5.0

NO_BUILDER = (
    "The builder does not answer right now. Try again in a moment (servery status shows the services)."
)


class BuilderClient:
    """Implements ``endpoint_service.ModelRegistry``."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def resolve(self, name: str, version: str) -> ModelResolved:
        """Return the model version meant. Raises NotFound, InvalidParameter or Unavailable."""
        request = ResolveModel(name=name, version=version)
        subject = subjects.builder_resolve()
        return await self._bus.request(subject, request, ModelResolved, timeout=RESOLVE_SECONDS)

    async def describe(self, build_id: str) -> BuildStatus:
        """Return where a build stands. Raises Unavailable."""
        subject = subjects.builder_describe()
        return await self._bus.request(
            subject, DescribeBuild(build_id=build_id), BuildStatus, timeout=DESCRIBE_SECONDS
        )

    async def describe_model(self, build_id: str) -> ModelDescription:
        """Return what the model of a finished build takes and gives. Raises NotFound, BadRequest or Unavailable."""
        subject = subjects.builder_describe_model()
        try:
            return await self._bus.request(
                subject, DescribeModel(build_id=build_id), ModelDescription, timeout=LOG_SECONDS
            )
        except Unavailable as error:
            raise Unavailable(NO_BUILDER, retry_after=1) from error

    async def build_log(self, build_id: str) -> str:
        """Return the log kept for a build. Raises Unavailable."""
        subject = subjects.builder_log()
        try:
            answer = await self._bus.request(
                subject, ReadBuildLog(build_id=build_id), BuildLog, timeout=LOG_SECONDS
            )
        except Unavailable as error:
            raise Unavailable(NO_BUILDER, retry_after=1) from error
        return answer.text
