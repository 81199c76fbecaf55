"""Reads secrets: from a caller and a place to the value, with the caller's permission checked."""

from servery_common.contracts.access import Identity
from servery_common.errors import InvalidState, NotFound
from servery_common.postgres.pool import Connection, Pool
from servery_controller.domain.secrets import SecretPermission, check_allowed, place_of
from servery_controller.encryption import Cipher
from servery_controller.secrets import store


class Vault:
    """Seals values for the database and opens them for who may read them."""

    def __init__(self, pool: Pool, cipher: Cipher) -> None:
        self._pool = pool
        self._cipher = cipher

    def seal(self, workspace_id: str, scope: str, key: str, value: bytes) -> bytes:
        """Return the value encrypted for its place."""
        return self._cipher.seal(value, place_of(workspace_id, scope, key))

    async def read(self, scope: str, key: str, reader: Identity) -> bytes:
        """Return a secret of the reader's workspace.

        Raises NotFound and PermissionDenied, and InvalidState when it was stored under another encryption key.
        """
        workspace_id = reader.workspace_id
        # The permission first: who may not read a scope does not learn which keys it holds.
        await authorise(self._pool, scope, reader, SecretPermission.READ)
        sealed = await store.read_secret(self._pool, workspace_id, scope, key)
        if sealed is None:
            raise no_such_secret(scope, key)
        try:
            return self._cipher.open(sealed, place_of(workspace_id, scope, key))
        except ValueError:
            raise InvalidState(
                f"The value of secret '{scope}/{key}' was stored under another encryption key and cannot be read. "
                "Put the secret again, or start the controller with the earlier SERVERY_ENCRYPTION_KEY."
            ) from None


async def authorise(conn: Connection | Pool, scope: str, caller: Identity, wanted: SecretPermission) -> None:
    """Raise NotFound for a scope that is not in the caller's workspace, PermissionDenied without ``wanted``."""
    granted = await store.granted(conn, caller.workspace_id, scope)
    if granted is None:
        raise no_such_scope(scope)
    check_allowed(caller, scope, granted, wanted)


def no_such_scope(scope: str) -> NotFound:
    """The error for a name without a scope in the caller's workspace."""
    return NotFound(f"Scope {scope} does not exist!")


def no_such_secret(scope: str, key: str) -> NotFound:
    """The error for a key without a secret in a scope the caller may read."""
    return NotFound(f"Secret '{key}' does not exist in scope '{scope}'.")
