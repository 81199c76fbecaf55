"""The scaler, asked over request/reply what it sees and decides."""

from servery_common.contracts import subjects
from servery_common.contracts.scaling import ExplainScaling, ScalingExplained
from servery_common.errors import Unavailable
from servery_common.messaging.port import Bus

EXPLAIN_SECONDS = 2.0

NO_SCALER = "The scaler does not answer right now (servery status shows the services)."


class ScalerClient:
    """``timeout`` is in seconds."""

    def __init__(self, bus: Bus, timeout: float = EXPLAIN_SECONDS) -> None:
        self._bus = bus
        self._timeout = timeout

    async def explain(self, endpoint_id: str) -> ScalingExplained:
        """Return the scaler's last decisions about an endpoint. Raises Unavailable."""
        question = ExplainScaling(endpoint_id=endpoint_id)
        try:
            return await self._bus.request(
                subjects.scaler_explain(), question, ScalingExplained, timeout=self._timeout
            )
        except Unavailable as error:
            raise Unavailable(NO_SCALER) from error
