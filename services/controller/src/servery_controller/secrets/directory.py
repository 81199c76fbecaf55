"""Who the creator of a served entity is, known by name alone.

The administrator of the installation has the rights of one; anybody else those granted to their own name.
"""

from servery_common.contracts.access import Identity


class NamesOnly:
    """A directory of one administrator and everybody's name."""

    def __init__(self, administrator: Identity) -> None:
        self._administrator = administrator

    async def find(self, workspace_id: str, user_name: str) -> Identity | None:
        """Return who it is: never None, as it is not known who left."""
        known = self._administrator
        if (workspace_id, user_name) == (known.workspace_id, known.user_name):
            return known
        return Identity(principal_id="", user_name=user_name, workspace_id=workspace_id)
