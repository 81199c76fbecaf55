"""Why requests are refused: every error that is answered instead of a model's answer has one of these reasons.

Whoever raises an error of which there are several kinds says which it is (``ServeryError.reason``); the others follow
from their class.
"""

from typing import Literal, get_args

from servery_common import errors
from servery_common.errors import ServeryError

Reason = Literal[
    "unauthenticated",
    "permission",
    "not_found",
    "bad_request",
    "not_serving",
    "quota",
    "rate_limit",
    "queue_full",
    "queue_wait",
    "memory",
    "gateway_busy",
    "bus_lost",
    "no_replica",
    "not_accepted",
    "replica_died",
    "deadline",
    "other",
]

REASONS: tuple[Reason, ...] = get_args(Reason)

_BY_CLASS: tuple[tuple[type[ServeryError], Reason], ...] = (
    (errors.Unauthenticated, "unauthenticated"),
    (errors.PermissionDenied, "permission"),
    (errors.NotFound, "not_found"),
    (errors.BadRequest, "bad_request"),
    (errors.RequestLimitExceeded, "rate_limit"),
    (errors.ResourceExhausted, "queue_full"),
    (errors.DeadlineExceeded, "deadline"),
)


def reason_of(error: ServeryError) -> Reason:
    """Return the one reason of an error, ``other`` when nobody thought of one."""
    if error.reason in REASONS:
        return error.reason
    for kind, reason in _BY_CLASS:
        if isinstance(error, kind):
            return reason
    return "other"
