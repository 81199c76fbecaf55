"""Who may publish and subscribe to what. Pure: lists of subjects.

NATS enforces them (``servery_common.nats_credentials`` puts them into credentials). A replica's rights name its own id
in every subject: one that was taken over by its model can read no other replica's requests, answer none of them, forge
no heartbeat and ask nobody for anything but its own credentials, anew.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from servery_common.contracts import subjects

_BUCKETS = (
    subjects.ROUTES_BUCKET,
    subjects.PRINCIPALS_BUCKET,
    subjects.TOKENS_BUCKET,
    subjects.SIGNING_KEYS_BUCKET,
    subjects.QUOTAS_BUCKET,
    subjects.IP_ACCESS_BUCKET,
)
_MESSAGES_AN_ANSWER = 64
"""Of a replica: a log comes in parts."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """Allow-lists of subjects, which may hold wildcards."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: int = 0
    """Messages that may go to the reply subject of each message received, whatever ``publish`` says.

    For who may not be trusted with the inboxes of others. The server forgets what was allowed so when it reads its
    configuration again, as with each new certificate: an answer under way is lost, and who asked has to ask again."""


def inbox_prefix(identity: str) -> str:
    """Return what the inboxes of an identity begin with. Nobody else may listen to them."""
    return f"_INBOX.{subjects.token(identity)}"


def of_replica(replica_id: str) -> Permissions:
    """Return what a worker that holds only this replica may do."""
    return Permissions(
        publish=(
            f"servery.replies.*.{subjects.token(replica_id)}",
            subjects.worker_heartbeat(replica_id),
            subjects.worker_spans(replica_id),
            subjects.controller_renew_credentials(replica_id),
        ),
        subscribe=(
            subjects.infer(replica_id),
            subjects.worker_ensure(replica_id),
            subjects.worker_stop(replica_id),
            subjects.worker_log(replica_id),
            *_inboxes(replica_id),
        ),
        answers=_MESSAGES_AN_ANSWER,
    )


@dataclass(frozen=True, slots=True)
class Passage:
    """What passes between an installation and a compute plane in another network; nothing else does."""

    orders: tuple[str, ...]
    """Asked by the control plane and answered by the compute plane."""
    asked: tuple[str, ...]
    """Asked by the compute plane and answered by the control plane."""
    inward: tuple[str, ...]
    """Sent to the compute plane."""
    outward: tuple[str, ...]
    """Sent by the compute plane."""


COMPUTE_PLANE = Passage(
    orders=("servery.api.worker.ensure.*", "servery.api.worker.stop.*", "servery.api.worker.log.*"),
    asked=(subjects.ALL_CREDENTIAL_RENEWALS,),
    inward=("servery.infer.*",),
    outward=("servery.replies.*.*", subjects.ALL_WORKER_HEARTBEATS, subjects.ALL_WORKER_SPANS),
)
"""What replicas in containers need (``of_replica``), for all of them."""
ANSWERS_BETWEEN_ACCOUNTS = "_R_."
"""What NATS has a reply subject begin with when a request goes from one account to another: it makes one of its own for
each, random and good for one request."""


def of_link() -> Permissions:
    """Return what the control plane's server may do on the compute plane's, to which it connects as a leaf node."""
    return Permissions(
        publish=(*COMPUTE_PLANE.orders, *COMPUTE_PLANE.inward, "_INBOX.>"),
        subscribe=(*COMPUTE_PLANE.outward, *COMPUTE_PLANE.asked, f"{ANSWERS_BETWEEN_ACCOUNTS}>"),
    )


def _inboxes(identity: str) -> tuple[str, ...]:
    return (f"{inbox_prefix(identity)}.>",)


def _answers(of: str, *to: str) -> tuple[str, ...]:
    """The part of each asker's inboxes in which it expects the answers of one service (``messaging.requests``)."""
    return tuple(f"{inbox_prefix(asker)}.{of}.>" for asker in to)


def _acks(stream: str) -> tuple[str, ...]:
    """Both forms of the subject of an acknowledgment; newer servers put their domain and account in front."""
    return (f"$JS.ACK.{stream}.>", f"$JS.ACK.*.*.{stream}.>")


def _following(buckets: Iterable[str]) -> tuple[str, ...]:
    """What a follower of buckets publishes: it looks at the stream, and makes and deletes a consumer."""
    allowed: list[str] = []
    for stream in (f"KV_{bucket}" for bucket in buckets):
        allowed += [
            f"$JS.API.STREAM.INFO.{stream}",
            f"$JS.API.CONSUMER.CREATE.{stream}",
            f"$JS.API.CONSUMER.CREATE.{stream}.>",
            f"$JS.API.CONSUMER.DELETE.{stream}.*",
        ]
    return tuple(allowed)


SERVICES = {
    "gateway": Permissions(
        publish=(
            "servery.infer.*",
            subjects.controller_http(),
            subjects.controller_find_token(),
            subjects.controller_issue_token(),
            "servery.signals.gateway.*.*",
            *_following(_BUCKETS),
        ),
        subscribe=(
            "servery.replies.*.*",
            subjects.ALL_GATEWAY_DEMANDS,
            subjects.ALL_GATEWAY_CALLS,
            *_inboxes("gateway"),
        ),
    ),
    "scaler": Permissions(
        publish=(
            subjects.controller_scale(),
            *_following([subjects.ROUTES_BUCKET]),
            *_answers("scaler", "controller"),
        ),
        subscribe=(
            subjects.ALL_GATEWAY_LOADS,
            subjects.ALL_GATEWAY_WAKES,
            subjects.scaler_explain(),
            *_inboxes("scaler"),
        ),
    ),
    "controller": Permissions(
        publish=(
            "servery.api.builder.*",
            subjects.scaler_explain(),
            "servery.api.worker.ensure.*",
            "servery.api.worker.stop.*",
            "servery.api.worker.log.*",
            subjects.endpoints_changed(),
            subjects.JOBS_WILDCARD,
            *(f"$KV.{bucket}.>" for bucket in _BUCKETS),
            "$JS.API.>",
            *_acks(subjects.EVENTS_STREAM),
            "_INBOX.*.controller.>",  # to everybody, as each replica asks for its next credentials
            f"{ANSWERS_BETWEEN_ACCOUNTS}>",
        ),
        subscribe=(
            "servery.api.controller.>",
            subjects.ALL_WORKER_HEARTBEATS,
            subjects.ALL_WORKER_SPANS,
            subjects.ALL_GATEWAY_METRICS,
            subjects.ALL_GATEWAY_WAKES,
            subjects.endpoints_changed(),
            *_inboxes("controller"),
        ),
    ),
    "builder": Permissions(
        publish=(
            subjects.worker_verify(),
            subjects.controller_model_environment(),
            subjects.controller_builds_in_use(),
            subjects.EVENTS_WILDCARD,
            "$JS.API.>",
            *_acks(subjects.JOBS_STREAM),
            *_answers("builder", "controller"),
        ),
        subscribe=("servery.api.builder.*", *_inboxes("builder")),
    ),
    "worker": Permissions(
        publish=(
            "servery.replies.*.*",
            "servery.signals.worker.*.*",
            subjects.controller_issue_model_token(),
            *_answers("worker", "controller", "builder"),
        ),
        subscribe=(
            "servery.infer.*",
            "servery.api.worker.ensure.*",
            "servery.api.worker.stop.*",
            "servery.api.worker.log.*",
            subjects.worker_verify(),
            *_inboxes("worker"),
        ),
    ),
}
"""What each service may do. ``worker`` is one that holds the replicas of a whole machine."""
