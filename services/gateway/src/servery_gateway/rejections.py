"""Why requests are refused: every error that is answered instead of a model's answer has one of these reasons.

Whoever raises an error of which there are several kinds says which it is (``ServeryError.reason``); the others follow
from their class. Each is counted, also when no served entity was chosen yet.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Literal, get_args

from servery_common import errors
from servery_common.contracts.metrics import EndpointRejections
from servery_common.contracts.routes import EndpointRoute
from servery_common.errors import ServeryError
from servery_gateway.activity import Activity
from servery_gateway.routing_table import Change

Reason = Literal[
    "unauthenticated",
    "ip_access",
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
    "cannot_start",
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


ROUNDS = 30
"""An endpoint of which nothing was refused is reported in one report of so many."""
NO_ENDPOINT = ""
"""Instead of an endpoint's id: the caller or the endpoint was unknown."""


def reason_of(error: ServeryError) -> Reason:
    """Return the one reason of an error, ``other`` when nobody thought of one."""
    if error.reason in REASONS:
        return error.reason
    for kind, reason in _BY_CLASS:
        if isinstance(error, kind):
            return reason
    return "other"


class Rejections:
    """The counts of all endpoints, since the gateway began."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}
        self.activity: Activity[str] = Activity(ROUNDS)

    def count(self, endpoint_id: str, error: ServeryError) -> None:
        """A request was answered with this error."""
        counts = self._counts.get(endpoint_id)
        if counts is None:
            counts = self._counts[endpoint_id] = Counter()
            self.activity.add(endpoint_id)
        counts[reason_of(error)] += 1
        self.activity.active.add(endpoint_id)

    def follow(self, changes: Iterable[Change[EndpointRoute]]) -> None:
        """Forget endpoints that are gone."""
        for endpoint_id, _, after in changes:
            if after is None and self._counts.pop(endpoint_id, None) is not None:
                self.activity.remove(endpoint_id)

    def look(self) -> list[tuple[str, list[tuple[str, int]]]]:
        """Return all counts by endpoint id and reason, for a scrape, which comes in a thread."""
        return [(endpoint_id, list(counts.items())) for endpoint_id, counts in list(self._counts.items())]

    def read(self) -> list[EndpointRejections]:
        """Return the totals of those endpoints that are to be reported now."""
        due = self.activity.due()
        for endpoint_id in due:
            self.activity.rest(endpoint_id)
        return [EndpointRejections(endpoint_id=one, counts=dict(self._counts[one])) for one in due]
