"""The controller's neighbours as peers on a real bus: a builder and a worker that do as a test tells them."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from servery_common.contracts import subjects
from servery_common.contracts.access import ALL_APIS, Identity, SigningKey, TokenGrant
from servery_common.contracts.builds import (
    Artifacts,
    BuildFailed,
    BuildLog,
    BuildRequested,
    BuildStatus,
    BuildSucceeded,
    DescribeBuild,
    DescribeModel,
    ModelDescription,
    ModelResolved,
    ReadBuildLog,
    ResolveModel,
)
from servery_common.contracts.ip_access import WorkspaceIpAccess
from servery_common.contracts.management import HttpAnswer, HttpCall
from servery_common.contracts.quotas import WorkspaceQuota
from servery_common.contracts.replicas import (
    Done,
    EnsureReplica,
    ReadReplicaLog,
    ReplicaLaunch,
    ReplicaLog,
    ReplicaObservation,
    StopReplica,
    WorkerHeartbeat,
)
from servery_common.contracts.routes import EndpointRoute
from servery_common.contracts.states import BuildState, ReplicaState
from servery_common.errors import NotFound
from servery_common.messaging.port import Bus

ADMIN = Identity(principal_id="0" * 32, groups=("admins",), user_name="admin", workspace_id="1", admin=True)


@dataclass
class BuilderPeer:
    """Knows versions 1 to 3 of every model but ``missing``; builds what it is asked for as ``outcome`` says."""

    bus: Bus
    outcome: Callable[[BuildRequested], str | None] = lambda order: None
    """Returns why the build fails, or None."""
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    """Builds end once it is set."""
    orders: list[BuildRequested] = field(default_factory=list[BuildRequested])
    model: dict[str, str] = field(default_factory=dict[str, str])
    """What every model was logged with: fields of ModelDescription."""
    statuses: dict[str, BuildStatus] = field(default_factory=dict[str, BuildStatus])

    async def start(self) -> None:
        self.hold.set()
        await self.bus.serve(subjects.builder_resolve(), ResolveModel, self._resolve, queue="builder")
        await self.bus.serve(subjects.builder_describe(), DescribeBuild, self._describe, queue="builder")
        await self.bus.serve(subjects.builder_log(), ReadBuildLog, self._log, queue="builder")

        subject = subjects.builder_describe_model()
        await self.bus.serve(subject, DescribeModel, self._describe_model, queue="builder")

    async def work(self) -> None:
        await self.bus.consume(
            subjects.JOBS_STREAM,
            subjects.BUILDER_JOBS_DURABLE,
            subjects.ALL_BUILD_JOBS,
            {BuildRequested: self._build},
        )

    async def _resolve(self, ask: ResolveModel) -> ModelResolved:
        version = "2" if ask.version == "@champion" else ask.version
        if ask.name == "missing" or version not in ("1", "2", "3"):
            raise NotFound(f"Registered model '{ask.name}' has no version {ask.version}.")
        return ModelResolved(name=ask.name, version=version)

    async def _describe(self, ask: DescribeBuild) -> BuildStatus:
        return self.statuses.get(ask.build_id, BuildStatus(build_id=ask.build_id, state=None))

    async def _describe_model(self, ask: DescribeModel) -> ModelDescription:
        return ModelDescription(build_id=ask.build_id, **self.model)

    async def _log(self, ask: ReadBuildLog) -> BuildLog:
        return BuildLog(build_id=ask.build_id, text="installing\ndone")

    async def _build(self, order: BuildRequested) -> None:
        self.orders.append(order)
        self.statuses[order.build_id] = BuildStatus(
            build_id=order.build_id, state=BuildState.BUILDING, step="busy"
        )
        await self.hold.wait()
        reason = self.outcome(order)
        key = f"env{order.model_version}"
        artifacts = Artifacts(model_path="m", environment_path="e", python="p", environment_key=key)
        if reason is None:
            status = BuildStatus(build_id=order.build_id, state=BuildState.SUCCEEDED, artifacts=artifacts)
            event = BuildSucceeded(
                build_id=order.build_id, artifacts=artifacts, environment_cached=False, seconds=1
            )
            happened = "succeeded"
        else:
            status = BuildStatus(build_id=order.build_id, state=BuildState.FAILED, reason=reason)
            event = BuildFailed(build_id=order.build_id, reason=reason, code="LOAD_FAILED")
            happened = "failed"
        self.statuses[order.build_id] = status
        await self.bus.publish(
            subjects.build_event(happened, order.build_id), event, event_id=f"{order.build_id}{happened}"
        )


@dataclass
class WorkerPeer:
    """Holds replicas; they become READY at once unless ``start_state`` says otherwise."""

    bus: Bus
    worker_id: str = "w1"
    capacity_slots: int = 64
    incarnation: str = "i1"
    start_state: Callable[[ReplicaLaunch], tuple[ReplicaState, str]] = lambda launch: (ReplicaState.READY, "")
    launches: dict[str, ReplicaLaunch] = field(default_factory=dict[str, ReplicaLaunch])
    replicas: dict[str, ReplicaObservation] = field(default_factory=dict[str, ReplicaObservation])
    ensured: list[str] = field(default_factory=list[str])
    stopped: list[str] = field(default_factory=list[str])
    graces: dict[str, float] = field(default_factory=dict[str, float])
    """Replica id -> seconds it was given to finish what it had accepted."""

    async def start(self) -> None:
        await self.bus.serve(subjects.worker_ensure(self.worker_id), EnsureReplica, self._ensure)
        await self.bus.serve(subjects.worker_stop(self.worker_id), StopReplica, self._stop)
        await self.bus.serve(subjects.worker_log(self.worker_id), ReadReplicaLog, self._log)

    async def beat(self) -> None:
        while True:
            await self.tell()
            await asyncio.sleep(0.5)

    async def tell(self) -> None:
        heartbeat = WorkerHeartbeat(
            worker_id=self.worker_id,
            incarnation=self.incarnation,
            capacity_slots=self.capacity_slots,
            replicas=tuple(self.replicas.values()),
        )
        await self.bus.signal(subjects.worker_heartbeat(self.worker_id), heartbeat)

    def lose_everything(self) -> None:
        """The worker process died and came back."""
        self.incarnation += "x"
        self.replicas.clear()

    async def _ensure(self, order: EnsureReplica) -> Done:
        launch = order.launch
        self.ensured.append(launch.replica_id)
        self.launches[launch.replica_id] = launch
        state, reason = self.start_state(launch)
        self.replicas[launch.replica_id] = ReplicaObservation(
            replica_id=launch.replica_id,
            endpoint_id=launch.endpoint_id,
            served_entity_id=launch.served_entity_id,
            state=state,
            reason=reason,
            slots=launch.slots,
        )
        await self.tell()
        return Done()

    async def _stop(self, order: StopReplica) -> Done:
        self.stopped.append(order.replica_id)
        self.graces[order.replica_id] = order.grace_seconds
        self.replicas.pop(order.replica_id, None)
        await self.tell()
        return Done()

    async def _log(self, ask: ReadReplicaLog) -> ReplicaLog:
        return ReplicaLog(replica_id=ask.replica_id, text="hello from the model")


@dataclass
class GatewayPeer:
    """Carries management calls and follows the routes and who may call, as the gateway does."""

    bus: Bus
    routes: dict[str, EndpointRoute] = field(default_factory=dict[str, EndpointRoute])
    history: list[EndpointRoute] = field(default_factory=list[EndpointRoute])
    identities: dict[str, Identity] = field(default_factory=dict[str, Identity])
    tokens: dict[str, TokenGrant] = field(default_factory=dict[str, TokenGrant])
    keys: dict[str, SigningKey] = field(default_factory=dict[str, SigningKey])
    quotas: dict[str, WorkspaceQuota] = field(default_factory=dict[str, WorkspaceQuota])
    ip_access: dict[str, WorkspaceIpAccess] = field(default_factory=dict[str, WorkspaceIpAccess])
    client: str = "203.0.113.7"
    """The address that callers have."""

    async def follow(self) -> None:
        async for change in self.bus.kv_watch(subjects.ROUTES_BUCKET, EndpointRoute):
            if change.deleted:
                self.routes.pop(change.key, None)
            elif change.value is not None:
                self.routes[change.key] = change.value
                self.history.append(change.value)

    async def follow_access(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(subjects.PRINCIPALS_BUCKET, Identity, self.identities))
            tasks.create_task(self._follow(subjects.TOKENS_BUCKET, TokenGrant, self.tokens))
            tasks.create_task(self._follow(subjects.SIGNING_KEYS_BUCKET, SigningKey, self.keys))
            tasks.create_task(self._follow(subjects.QUOTAS_BUCKET, WorkspaceQuota, self.quotas))
            tasks.create_task(self._follow(subjects.IP_ACCESS_BUCKET, WorkspaceIpAccess, self.ip_access))

    async def _follow(self, bucket: str, message: type[Any], known: dict[str, Any]) -> None:
        async for change in self.bus.kv_watch(bucket, message):
            if change.deleted:
                known.pop(change.key, None)
            elif change.value is not None:
                known[change.key] = change.value

    def identity(self, workspace_id: str, user_name: str) -> Identity | None:
        """What was published of a principal."""
        everybody = self.identities.values()
        found = (i for i in everybody if (i.workspace_id, i.user_name) == (workspace_id, user_name))
        return next(found, None)

    def route(self, name: str) -> EndpointRoute | None:
        return next((r for r in self.routes.values() if r.name == name), None)

    async def call(
        self, method: str, path: str, body: str = "", *, identity: Identity = ADMIN, scope: str = ALL_APIS
    ) -> HttpAnswer:
        """Carry a call; ``path`` is below the serving endpoints unless it begins with ``/api/``."""
        path, _, query = path.partition("?")
        call = HttpCall(
            method=method,
            path=path if path.startswith("/api/") else f"/api/2.0/serving-endpoints{path}",
            query=query,
            headers={"content-type": "application/json"},
            body=body,
            identity=identity,
            scope=scope,
            client=self.client,
            host="http://127.0.0.1:8080",
        )
        return await self.bus.request(subjects.controller_http(), call, HttpAnswer, timeout=10)


def entity(version: str = "1", name: str = "iris", **changes: Any) -> dict[str, Any]:
    return {"entity_name": name, "entity_version": version, "workload_size": "Small"} | changes
