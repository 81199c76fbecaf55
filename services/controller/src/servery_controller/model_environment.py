"""What a model's process is given: the environment variables of its served entity."""

from servery_common.contracts.builds import ModelEnvironment, ReadModelEnvironment
from servery_common.errors import NotFound
from servery_common.postgres.pool import Pool
from servery_controller import store


class ModelEnvironments:
    """Answers builders, which verify a model with what it will be given when it serves."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def handle(self, request: ReadModelEnvironment) -> ModelEnvironment:
        """Return the variables. Raises NotFound when the served entity is gone."""
        entity = await store.get_served_entity(self._pool, request.served_entity_id)
        if entity is None:
            raise NotFound("The served entity that this build is for does not exist any more.")
        return ModelEnvironment(variables=dict(entity.spec.environment_vars))
