"""What the controller hears and asks: build events, the builder, scale requests. Decides nothing."""

from servery_common.contracts import subjects
from servery_common.contracts.builds import (
    BuildFailed,
    BuildLog,
    BuildStarted,
    BuildSucceeded,
    ModelResolved,
    ReadBuildLog,
    ResolveModel,
)
from servery_common.contracts.scaling import ScaleAnswer, ScaleRequest
from servery_common.messaging.port import Bus
from servery_common.postgres.pool import Pool
from servery_controller import store
from servery_controller.hints import Hints

RESOLVE_SECONDS = 10.0
LOG_SECONDS = 5.0


class BuilderClient:
    """The builder, asked over request/reply: a ModelRegistry, and the place where build logs are kept."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def resolve(self, name: str, version: str) -> ModelResolved:
        """Return the model version meant. Raises NotFound or Unavailable."""
        return await self._bus.request(
            subjects.builder_resolve(),
            ResolveModel(name=name, version=version),
            ModelResolved,
            timeout=RESOLVE_SECONDS,
        )

    async def build_log(self, build_id: str) -> str:
        """Return the log kept for a build."""
        answer = await self._bus.request(
            subjects.builder_log(), ReadBuildLog(build_id=build_id), BuildLog, timeout=LOG_SECONDS
        )
        return answer.text


class BuildEvents:
    """Build events only say which endpoint to look at: the reconciler asks the builder for the state."""

    def __init__(self, pool: Pool, bus: Bus, hints: Hints) -> None:
        self._pool = pool
        self._bus = bus
        self._hints = hints

    async def run(self) -> None:
        """Consume for ever."""
        await self._bus.consume(
            subjects.EVENTS_STREAM,
            subjects.CONTROLLER_EVENTS_DURABLE,
            subjects.ALL_BUILD_EVENTS,
            {BuildStarted: self._heard, BuildSucceeded: self._heard, BuildFailed: self._heard},
        )

    async def _heard(self, event: BuildStarted | BuildSucceeded | BuildFailed) -> None:
        endpoint_id = await store.endpoint_of_build(self._pool, event.build_id)
        if endpoint_id is not None:
            self._hints.add(endpoint_id)


class ScaleRequests:
    """The scaler's wishes, clamped to what the served entity allows."""

    def __init__(self, pool: Pool, hints: Hints) -> None:
        self._pool = pool
        self._hints = hints

    async def handle(self, request: ScaleRequest) -> ScaleAnswer:
        """Set the replica count. Repeating it changes nothing."""
        scaled = await store.set_desired_replicas(
            self._pool, request.served_entity_id, request.desired_replicas
        )
        if scaled is None:
            return ScaleAnswer(accepted=False)
        endpoint_id, desired = scaled
        self._hints.add(endpoint_id)
        return ScaleAnswer(accepted=True, desired_replicas=desired)
