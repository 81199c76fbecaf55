"""What a caller may do with an endpoint. Pure."""

from enum import StrEnum


class PermissionLevel(StrEnum):
    """Each level includes the ones before it."""

    CAN_VIEW = "CAN_VIEW"  #: get, list, metrics, logs
    CAN_QUERY = "CAN_QUERY"  #: score
    CAN_MANAGE = "CAN_MANAGE"  #: update, delete, grant

    def includes(self, wanted: "PermissionLevel") -> bool:
        """Whether whoever has this level has ``wanted`` too."""
        order = list(PermissionLevel)
        return order.index(self) >= order.index(wanted)
