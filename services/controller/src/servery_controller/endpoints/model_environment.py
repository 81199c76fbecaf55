"""What a model's process is given: the environment variables of its served entity, with secrets in place."""

from servery_common.contracts.builds import ModelEnvironment, ReadModelEnvironment
from servery_common.errors import NotFound, Unavailable
from servery_common.postgres.pool import OUTAGE, Pool
from servery_controller.endpoints import store
from servery_controller.secrets.environment import EnvironmentResolver


class ModelEnvironments:
    """Answers builders, which verify a model with what it will be given when it serves."""

    def __init__(self, pool: Pool, environments: EnvironmentResolver) -> None:
        self._pool = pool
        self._environments = environments

    async def handle(self, request: ReadModelEnvironment) -> ModelEnvironment:
        """Return the variables, and what its replicas may use.

        Raises NotFound when the served entity is gone, InvalidParameter naming a variable whose secret cannot be
        read, Unavailable while the database does not answer.
        """
        try:
            found = await store.get_served_entity(self._pool, request.served_entity_id)
        except OUTAGE:
            raise Unavailable("The controller's database cannot be reached right now.") from None
        if found is None:
            raise NotFound("The served entity that this build is for does not exist any more.")
        workspace_id, entity = found
        variables = await self._environments.resolve(workspace_id, entity)
        return ModelEnvironment(variables=variables, workload_type=entity.spec.workload_type)
