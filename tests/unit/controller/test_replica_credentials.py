"""How often a replica gets other credentials; what is in them is shown by tests with a real server."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from servery_common.contracts.replicas import CredentialsRenewed, RenewCredentials
from servery_common.errors import Unavailable
from servery_controller.compute.replica_credentials import MOST_RENEWALS, CredentialRenewals

LIFETIME = timedelta(hours=24)


class Credentials:
    """Signs nothing, by a clock of the test's."""

    lifetime = LIFETIME

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)
        self.signed: list[str] = []

    def now(self) -> datetime:
        return self.time

    def renew(self, asked: RenewCredentials) -> CredentialsRenewed:
        self.signed.append(asked.replica_id)
        return CredentialsRenewed(token="t", certificate="")


async def test_a_replica_that_asks_without_end_takes_no_time_from_the_others():
    credentials: Any = Credentials()
    renewals = CredentialRenewals(credentials, lambda replica_id: True)
    mine, theirs = (RenewCredentials(replica_id=one, user_key="U", certificate="") for one in ("r1", "r2"))
    await renewals.handle(mine)
    for _ in range(3):
        with pytest.raises(Unavailable, match="a moment ago"):
            await renewals.handle(mine)
    await renewals.handle(theirs)
    assert credentials.signed == ["r1", "r2"]
    credentials.time += LIFETIME / MOST_RENEWALS
    await renewals.handle(mine)
    assert credentials.signed == ["r1", "r2", "r1"]
