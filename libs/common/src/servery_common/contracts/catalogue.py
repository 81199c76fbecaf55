"""Every message, as data: what carries it, with which guarantee, who sends it and who reads it.

The JSON Schemas, ``docs/events.md`` and ``docs/asyncapi.yaml`` are generated from this table and the models
(``python -m servery_common.schemas``); contract tests compare it with the code of the services.
"""

from dataclasses import dataclass
from enum import StrEnum

from servery_common.contracts import (
    access,
    builds,
    ip_access,
    management,
    metrics,
    quotas,
    replicas,
    routes,
    scaling,
    subjects,
)
from servery_common.contracts.message import Message


class Service(StrEnum):
    """Who can send and read."""

    GATEWAY = "gateway"
    CONTROLLER = "controller"
    BUILDER = "builder"
    SCALER = "scaler"
    WORKER = "worker"


class Guarantee(StrEnum):
    """What happens to a message on its way."""

    REQUEST = "request"  #: answered in time or failed; nothing is stored
    REPLY = "reply"  #: answers a request
    SIGNAL = "signal"  #: best effort; lost when nobody listens, repeated soon
    JOB = "job"  #: stored, done by one consumer, at least once
    EVENT = "event"  #: stored for a while, delivered at least once
    STATE = "state"  #: the last value per key is kept


@dataclass(frozen=True)
class Entry:
    """One message. ``carriers`` are subjects, with ``<…>`` for ids, or ``bucket/<key>``; a reply names its
    requests'."""

    message: type[Message]
    guarantee: Guarantee
    carriers: tuple[str, ...]
    producers: tuple[Service, ...]
    consumers: tuple[Service, ...]

    @property
    def type(self) -> str:
        return self.message.message_type


GATEWAY, CONTROLLER, BUILDER = Service.GATEWAY, Service.CONTROLLER, Service.BUILDER
SCALER, WORKER = Service.SCALER, Service.WORKER

HTTP = subjects.controller_http()
SCALE = subjects.controller_scale()
RESOLVE = subjects.builder_resolve()
DESCRIBE = subjects.builder_describe()
DESCRIBE_MODEL = subjects.builder_describe_model()
BUILD_LOG = subjects.builder_log()
VERIFY = subjects.worker_verify()
ENSURE = "servery.api.worker.ensure.<worker_id>"
STOP = "servery.api.worker.stop.<worker_id>"
REPLICA_LOG = "servery.api.worker.log.<worker_id>"
SPANS = "servery.signals.worker.spans.<worker_id>"
HEARTBEAT = "servery.signals.worker.heartbeat.<worker_id>"
METRICS = "servery.signals.gateway.metrics.<gateway_id>"
CHANGED = subjects.endpoints_changed()
LOAD = "servery.signals.gateway.load.<gateway_id>"
WAKE = "servery.signals.gateway.wake.<gateway_id>"
DEMAND = "servery.signals.gateway.demand.<gateway_id>"
CALLS = "servery.signals.gateway.calls.<gateway_id>"
BUILD = "servery.jobs.build.<build_id>"
BUILD_EVENT = "servery.events.build"
ROUTE = f"{subjects.ROUTES_BUCKET}/<endpoint_id>"
IDENTITY = f"{subjects.PRINCIPALS_BUCKET}/<principal_id>"
TOKEN = f"{subjects.TOKENS_BUCKET}/<token_sha256>"
SIGNING_KEY = f"{subjects.SIGNING_KEYS_BUCKET}/<key_id>"
QUOTA = f"{subjects.QUOTAS_BUCKET}/<workspace_id>"
IP_ACCESS = f"{subjects.IP_ACCESS_BUCKET}/<workspace_id>"
EXPLAIN = subjects.scaler_explain()
FIND_TOKEN = subjects.controller_find_token()
ISSUE_TOKEN = subjects.controller_issue_token()
MODEL_TOKEN = subjects.controller_issue_model_token()
RENEW_CREDENTIALS = "servery.api.controller.renew_credentials.<replica_id>"
BUILDS_IN_USE = subjects.controller_builds_in_use()
MODEL_ENVIRONMENT = subjects.controller_model_environment()


def _request(message: type[Message], carrier: str, producer: Service, consumer: Service) -> Entry:
    return Entry(message, Guarantee.REQUEST, (carrier,), (producer,), (consumer,))


def _reply(message: type[Message], carriers: tuple[str, ...], producer: Service, consumer: Service) -> Entry:
    return Entry(message, Guarantee.REPLY, carriers, (producer,), (consumer,))


def _event(message: type[Message], happened: str) -> Entry:
    carrier = f"{BUILD_EVENT}.{happened}.<build_id>"
    return Entry(message, Guarantee.EVENT, (carrier,), (BUILDER,), (CONTROLLER,))


CATALOGUE: tuple[Entry, ...] = (
    _request(management.HttpCall, HTTP, GATEWAY, CONTROLLER),
    _reply(management.HttpAnswer, (HTTP,), CONTROLLER, GATEWAY),
    _request(access.FindToken, FIND_TOKEN, GATEWAY, CONTROLLER),
    _reply(access.TokenFound, (FIND_TOKEN,), CONTROLLER, GATEWAY),
    _request(access.IssueToken, ISSUE_TOKEN, GATEWAY, CONTROLLER),
    _reply(access.TokenIssued, (ISSUE_TOKEN,), CONTROLLER, GATEWAY),
    _request(access.IssueModelToken, MODEL_TOKEN, WORKER, CONTROLLER),
    _reply(access.ModelTokenIssued, (MODEL_TOKEN,), CONTROLLER, WORKER),
    _request(builds.ReadModelEnvironment, MODEL_ENVIRONMENT, BUILDER, CONTROLLER),
    _reply(builds.ModelEnvironment, (MODEL_ENVIRONMENT,), CONTROLLER, BUILDER),
    _request(builds.ReadBuildsInUse, BUILDS_IN_USE, BUILDER, CONTROLLER),
    _reply(builds.BuildsInUse, (BUILDS_IN_USE,), CONTROLLER, BUILDER),
    _request(scaling.ScaleRequest, SCALE, SCALER, CONTROLLER),
    _reply(scaling.ScaleAnswer, (SCALE,), CONTROLLER, SCALER),
    _request(scaling.ExplainScaling, EXPLAIN, CONTROLLER, SCALER),
    _reply(scaling.ScalingExplained, (EXPLAIN,), SCALER, CONTROLLER),
    _request(builds.ResolveModel, RESOLVE, CONTROLLER, BUILDER),
    _reply(builds.ModelResolved, (RESOLVE,), BUILDER, CONTROLLER),
    _request(builds.DescribeBuild, DESCRIBE, CONTROLLER, BUILDER),
    _reply(builds.BuildStatus, (DESCRIBE,), BUILDER, CONTROLLER),
    _request(builds.DescribeModel, DESCRIBE_MODEL, CONTROLLER, BUILDER),
    _reply(builds.ModelDescription, (DESCRIBE_MODEL,), BUILDER, CONTROLLER),
    _request(builds.ReadBuildLog, BUILD_LOG, CONTROLLER, BUILDER),
    _reply(builds.BuildLog, (BUILD_LOG,), BUILDER, CONTROLLER),
    _request(replicas.VerifyModel, VERIFY, BUILDER, WORKER),
    _reply(replicas.VerifyProgress, (VERIFY,), WORKER, BUILDER),
    _reply(replicas.ModelVerified, (VERIFY,), WORKER, BUILDER),
    _request(replicas.EnsureReplica, ENSURE, CONTROLLER, WORKER),
    _request(replicas.StopReplica, STOP, CONTROLLER, WORKER),
    _reply(replicas.Done, (ENSURE, STOP), WORKER, CONTROLLER),
    _request(replicas.ReadReplicaLog, REPLICA_LOG, CONTROLLER, WORKER),
    _reply(replicas.ReplicaLog, (REPLICA_LOG,), WORKER, CONTROLLER),
    _request(replicas.RenewCredentials, RENEW_CREDENTIALS, WORKER, CONTROLLER),
    _reply(replicas.CredentialsRenewed, (RENEW_CREDENTIALS,), CONTROLLER, WORKER),
    Entry(replicas.WorkerSpans, Guarantee.SIGNAL, (SPANS,), (WORKER,), (CONTROLLER,)),
    Entry(replicas.WorkerHeartbeat, Guarantee.SIGNAL, (HEARTBEAT,), (WORKER,), (CONTROLLER,)),
    Entry(scaling.GatewayLoad, Guarantee.SIGNAL, (LOAD,), (GATEWAY,), (SCALER,)),
    Entry(scaling.GatewayWake, Guarantee.SIGNAL, (WAKE,), (GATEWAY,), (CONTROLLER, SCALER)),
    Entry(metrics.GatewayMetrics, Guarantee.SIGNAL, (METRICS,), (GATEWAY,), (CONTROLLER,)),
    Entry(quotas.GatewayDemand, Guarantee.SIGNAL, (DEMAND,), (GATEWAY,), (GATEWAY,)),
    Entry(quotas.GatewayCalls, Guarantee.SIGNAL, (CALLS,), (GATEWAY,), (GATEWAY,)),
    Entry(routes.EndpointsChanged, Guarantee.SIGNAL, (CHANGED,), (CONTROLLER,), (CONTROLLER,)),
    Entry(builds.BuildRequested, Guarantee.JOB, (BUILD,), (CONTROLLER,), (BUILDER,)),
    _event(builds.BuildStarted, "started"),
    _event(builds.BuildSucceeded, "succeeded"),
    _event(builds.BuildFailed, "failed"),
    Entry(routes.EndpointRoute, Guarantee.STATE, (ROUTE,), (CONTROLLER,), (GATEWAY, SCALER)),
    Entry(access.Identity, Guarantee.STATE, (IDENTITY,), (CONTROLLER,), (GATEWAY,)),
    Entry(access.TokenGrant, Guarantee.STATE, (TOKEN,), (CONTROLLER,), (GATEWAY,)),
    Entry(access.SigningKey, Guarantee.STATE, (SIGNING_KEY,), (CONTROLLER,), (GATEWAY,)),
    Entry(quotas.WorkspaceQuota, Guarantee.STATE, (QUOTA,), (CONTROLLER,), (GATEWAY,)),
    Entry(ip_access.WorkspaceIpAccess, Guarantee.STATE, (IP_ACCESS,), (CONTROLLER,), (GATEWAY,)),
)


def only_producer(message: type[Message]) -> str:
    """Return the one service that sends a message. Raises ValueError when it is not exactly one."""
    producers = {one for entry in CATALOGUE if entry.message is message for one in entry.producers}
    if len(producers) != 1:
        raise ValueError(f"{message.message_type} has {len(producers)} producers in the catalogue")
    return producers.pop().value
