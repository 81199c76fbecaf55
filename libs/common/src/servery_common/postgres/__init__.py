"""Postgres, the source of truth: connections, migrations, outbox, leases.

Only the controller and the builder use it.
"""

from servery_common.postgres.migrate import MigrationError, migrate
from servery_common.postgres.pool import OUTAGE, Connection, Pool, create_pool

__all__ = ["OUTAGE", "Connection", "MigrationError", "Pool", "create_pool", "migrate"]
