"""Which builds are needed, for the builder, which removes images nobody needs."""

from servery_common.contracts.builds import BuildsInUse, ReadBuildsInUse
from servery_common.errors import Unavailable
from servery_common.postgres.pool import OUTAGE, Pool
from servery_controller.endpoints import store


class BuildsInUseReports:
    """Answers builders."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def handle(self, request: ReadBuildsInUse) -> BuildsInUse:
        """Return all. Raises Unavailable: then nothing is removed."""
        try:
            return BuildsInUse(build_ids=tuple(await store.builds_in_use(self._pool)))
        except OUTAGE:
            raise Unavailable("The controller's database cannot be reached right now.") from None
