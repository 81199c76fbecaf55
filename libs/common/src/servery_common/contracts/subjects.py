"""Every subject, stream, durable consumer and bucket, built here and nowhere else.

The second token says what delivery a message gets, so that a stream is one wildcard and a permission is
one line:

=====================  ==============================================================================
``servery.api.…``      request/reply; no subscriber answers at once with "no responders"
``servery.infer.…``    scoring frames to one replica (``contracts.frames``); never stored, never replayed
``servery.replies.…``  scoring frames of one replica back to one gateway
``servery.signals.…``  core NATS, best effort: lost when nobody listens, repeated soon
``servery.jobs.…``     JetStream work queue ``SERVERY_JOBS``: one of the consumers does it
``servery.events.…``   JetStream ``SERVERY_EVENTS``: facts, kept for a while
=====================  ==============================================================================

Only opaque ids (``[A-Za-z0-9]{1,32}``) become tokens: a name a user chose may hold ``.``, ``*`` or ``>``.
"""

import re

EVENTS_STREAM = "SERVERY_EVENTS"
EVENTS_WILDCARD = "servery.events.>"
JOBS_STREAM = "SERVERY_JOBS"
JOBS_WILDCARD = "servery.jobs.>"

ROUTES_BUCKET = "servery-routes"
PRINCIPALS_BUCKET = "servery-principals"
TOKENS_BUCKET = "servery-tokens"
SIGNING_KEYS_BUCKET = "servery-signing-keys"
QUOTAS_BUCKET = "servery-quotas"
IP_ACCESS_BUCKET = "servery-ip-access"

CONTROLLER_QUEUE = "controller"
BUILDER_QUEUE = "builder"
WORKER_QUEUE = "worker"
SCALER_QUEUE = "scaler"

CONTROLLER_EVENTS_DURABLE = "controller-events"
BUILDER_JOBS_DURABLE = "builder-jobs"

_TOKEN = re.compile(r"[A-Za-z0-9]{1,32}")


def token(value: str) -> str:
    """Return ``value`` if it may be a subject token, else raise ``ValueError``."""
    if not _TOKEN.fullmatch(value):
        raise ValueError(f"not an opaque id, so not a subject token: {value!r}")
    return value


def answerer(subject: str) -> str:
    """Return who answers what is asked on ``servery.api.…``: ``controller``, ``scaler``, ``builder`` or ``worker``.

    Raises ValueError for any other subject: nobody may answer there.
    """
    match subject.split("."):
        case ["servery", "api", who, *_]:
            return who
        case _:
            raise ValueError(f"requests go to servery.api.<who answers>.<what>, not to {subject!r}")


def controller_http() -> str:
    """The management API, carried as one request per message."""
    return "servery.api.controller.http"


def controller_scale() -> str:
    """The scaler asks for a replica count."""
    return "servery.api.controller.scale"


def scaler_explain() -> str:
    """What the scaler sees and would decide now."""
    return "servery.api.scaler.explain"


def controller_find_token() -> str:
    """Whether a token a gateway does not know is valid."""
    return "servery.api.controller.find_token"


def controller_issue_token() -> str:
    """An OAuth access token for a client's id and secret."""
    return "servery.api.controller.issue_token"


def controller_issue_model_token() -> str:
    """A token for the process of a served entity's model."""
    return "servery.api.controller.issue_model_token"


def controller_renew_credentials(replica_id: str) -> str:
    """What lets a replica into NATS, anew. Only the replica itself may ask here."""
    return f"servery.api.controller.renew_credentials.{token(replica_id)}"


def controller_model_environment() -> str:
    """The environment variables of a served entity, with secrets resolved."""
    return "servery.api.controller.model_environment"


def controller_builds_in_use() -> str:
    """Which builds endpoints need."""
    return "servery.api.controller.builds_in_use"


def builder_resolve() -> str:
    """Which model version a name and version or alias mean."""
    return "servery.api.builder.resolve"


def builder_describe() -> str:
    """Where a build stands."""
    return "servery.api.builder.describe"


def builder_log() -> str:
    """The log of a build."""
    return "servery.api.builder.log"


def builder_describe_model() -> str:
    """The signature and the input example of a built model."""
    return "servery.api.builder.describe_model"


def worker_verify() -> str:
    """Any worker: load a model and predict its input example. Answers are a stream."""
    return "servery.api.worker.verify"


def worker_ensure(worker_id: str) -> str:
    """Make a replica exist on this worker."""
    return f"servery.api.worker.ensure.{token(worker_id)}"


def worker_stop(worker_id: str) -> str:
    """Drain and stop a replica on this worker."""
    return f"servery.api.worker.stop.{token(worker_id)}"


def worker_log(worker_id: str) -> str:
    """What the model of a replica on this worker printed."""
    return f"servery.api.worker.log.{token(worker_id)}"


def infer(replica_id: str) -> str:
    """Scoring frames to one replica."""
    return f"servery.infer.{token(replica_id)}"


def replies(gateway_id: str, replica_id: str) -> str:
    """Scoring frames back to one gateway from one replica, which may be allowed to use no other subject."""
    return f"servery.replies.{token(gateway_id)}.{token(replica_id)}"


def all_replies(gateway_id: str) -> str:
    """What one gateway listens to: the scoring frames of all replicas that are for it."""
    return f"servery.replies.{token(gateway_id)}.*"


def worker_heartbeat(worker_id: str) -> str:
    """A worker and its replicas, once a second and on every change."""
    return f"servery.signals.worker.heartbeat.{token(worker_id)}"


def worker_spans(worker_id: str) -> str:
    """Spans of a worker that reaches no collector."""
    return f"servery.signals.worker.spans.{token(worker_id)}"


def gateway_load(gateway_id: str) -> str:
    """Demand one gateway sees per served entity, once a second."""
    return f"servery.signals.gateway.load.{token(gateway_id)}"


def gateway_wake(gateway_id: str) -> str:
    """Served entities at zero that requests wait for in one gateway, at once and each second."""
    return f"servery.signals.gateway.wake.{token(gateway_id)}"


def gateway_metrics(gateway_id: str) -> str:
    """What one gateway measured of each served entity, every two seconds."""
    return f"servery.signals.gateway.metrics.{token(gateway_id)}"


def gateway_demand(gateway_id: str) -> str:
    """What workspaces ask of one gateway, about ten times a second."""
    return f"servery.signals.gateway.demand.{token(gateway_id)}"


def gateway_calls(gateway_id: str) -> str:
    """Calls one gateway let in that rate limits count, within milliseconds."""
    return f"servery.signals.gateway.calls.{token(gateway_id)}"


def endpoints_changed() -> str:
    """Endpoints the leading controller should look at now."""
    return "servery.signals.controller.endpoints_changed"


def build_job(build_id: str) -> str:
    """Work order: build a model version."""
    return f"servery.jobs.build.{token(build_id)}"


def build_event(happened: str, build_id: str) -> str:
    """Fact about a build; ``happened`` is started, succeeded or failed."""
    return f"servery.events.build.{token(happened)}.{token(build_id)}"


ALL_CREDENTIAL_RENEWALS = "servery.api.controller.renew_credentials.*"
ALL_WORKER_HEARTBEATS = "servery.signals.worker.heartbeat.*"
ALL_WORKER_SPANS = "servery.signals.worker.spans.*"
ALL_GATEWAY_METRICS = "servery.signals.gateway.metrics.*"
ALL_GATEWAY_LOADS = "servery.signals.gateway.load.*"
ALL_GATEWAY_WAKES = "servery.signals.gateway.wake.*"
ALL_GATEWAY_DEMANDS = "servery.signals.gateway.demand.*"
ALL_GATEWAY_CALLS = "servery.signals.gateway.calls.*"
ALL_BUILD_EVENTS = "servery.events.build.*.*"
ALL_BUILD_JOBS = "servery.jobs.build.*"
