"""Environment variables that refer to secrets: checked when an endpoint is changed, resolved when a model starts.

What a person wrote, ``{{secrets/scope/key}}``, is what is stored and answered. The values exist only in the
message that starts a model's process, and in that process.
"""

from collections.abc import Mapping
from typing import Protocol

from servery_common.contracts.access import Identity
from servery_common.errors import InvalidParameter, NotFound, PermissionDenied, Unavailable
from servery_common.postgres.pool import OUTAGE
from servery_controller.domain.endpoint import ServedEntity
from servery_controller.domain.request import MAX_ENVIRONMENT_BYTES
from servery_controller.domain.secrets import SecretReference, references_of, total_bytes
from servery_controller.secrets.vault import Vault


class Directory(Protocol):
    """Knows who somebody is now."""

    async def find(self, workspace_id: str, principal_id: str) -> Identity | None:
        """Return a user or service principal; None when it is no active member of the workspace (any more)."""
        ...


class EnvironmentResolver:
    """Puts secrets in the place of references."""

    def __init__(self, vault: Vault, directory: Directory) -> None:
        self._vault = vault
        self._directory = directory

    async def check(self, variables: Mapping[str, str], caller: Identity) -> None:
        """Raise InvalidParameter, naming the variable, unless the caller may read every secret referred to."""
        await self._resolve_for(caller, variables)

    async def resolve(self, workspace_id: str, entity: ServedEntity) -> dict[str, str]:
        """Return an entity's variables with secrets in place, read with the right of who asked for the entity.

        Raises InvalidParameter, naming the variable; InvalidState for a value that cannot be decrypted; Unavailable
        while the database does not answer.
        """
        variables = entity.spec.environment_vars
        references = references_of(variables)
        if not references:
            return dict(variables)
        try:
            creator_id = entity.creator_id
            reader = await self._directory.find(workspace_id, creator_id) if creator_id else None
            if reader is None:
                first = next(iter(references))
                raise InvalidParameter(
                    f"Environment variable '{first}' refers to a secret, and '{entity.creator}', who created the "
                    "served entity, is no longer a member of the workspace. Update the endpoint as somebody who is."
                )
            return await self._resolve_for(reader, variables)
        except OUTAGE:
            raise Unavailable("The database that holds the secrets cannot be reached right now.") from None

    async def _resolve_for(self, reader: Identity, variables: Mapping[str, str]) -> dict[str, str]:
        resolved = dict(variables)
        for name, reference in references_of(variables).items():
            resolved[name] = await self._read(name, reference, reader)
        size = total_bytes(resolved.items())
        if size > MAX_ENVIRONMENT_BYTES:
            raise InvalidParameter(
                f"The environment variables hold {size} bytes with their secrets; at most {MAX_ENVIRONMENT_BYTES} "
                "are allowed."
            )
        return resolved

    async def _read(self, name: str, reference: SecretReference, reader: Identity) -> str:
        refers = f"Environment variable '{name}' refers to secret '{reference}'"
        try:
            value = (await self._vault.read(reference.scope, reference.key, reader)).decode()
        except (NotFound, PermissionDenied) as error:
            raise InvalidParameter(f"{refers}: {error.message}") from None
        except UnicodeDecodeError:
            raise InvalidParameter(
                f"{refers}, which is not text. Store it as text, such as Base64."
            ) from None
        if "\0" in value:
            raise InvalidParameter(f"{refers}, which holds a NUL character: no environment variable can.")
        return value
