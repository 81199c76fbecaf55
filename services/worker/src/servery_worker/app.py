"""The worker's composition root: everything is made here and handed over."""

import shutil
from collections.abc import Callable
from pathlib import Path

import structlog

from servery_common.contracts import subjects
from servery_common.contracts.replicas import (
    EnsureReplica,
    ReadReplicaLog,
    ReplicaLaunch,
    StopReplica,
    VerifyModel,
)
from servery_common.messaging.port import Bus
from servery_common.nats_credentials import Lifetime
from servery_common.service import ServiceContext
from servery_common.settings import NatsSettings
from servery_common.tracing import record_spans
from servery_runner.limits import Limits
from servery_worker import overlay
from servery_worker.credential_files import CredentialFiles
from servery_worker.heartbeat import Heartbeat
from servery_worker.launcher import Launcher
from servery_worker.links import Links, open_links
from servery_worker.model_token import ModelTokens, NoTokens
from servery_worker.remembered import WarmList
from servery_worker.renewal import Renewal
from servery_worker.replica import Replica
from servery_worker.replicas import Replicas
from servery_worker.replies import Replies
from servery_worker.rewarming import Rewarming
from servery_worker.settings import WorkerSettings
from servery_worker.span_exporter import BusSpanExporter
from servery_worker.starts import Starts
from servery_worker.usage import UsageMeter, read_limits
from servery_worker.verify import Verifier
from servery_worker.warm_parents import WarmParents

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 2.0


async def main(context: ServiceContext) -> None:
    """Host replicas until asked to stop, then let them finish what they accepted."""
    settings = WorkerSettings()  # pyright: ignore[reportCallIssue] - filled from the environment
    nats_settings = NatsSettings()
    worker_id = settings.worker_id()
    overlay_directory = overlay.materialise(settings.data_dir.resolve())
    scratch = _empty_directory(settings.data_dir.resolve() / "runners")
    credentials = CredentialFiles(nats_settings)
    # Whoever starts a worker that holds many replicas sees to its files; it reads them at each connect.
    lifetime = credentials.lifetime() if settings.serves_one else None
    links = await open_links(nats_settings)
    try:
        if settings.serves_one:
            record_spans("worker", BusSpanExporter(links, worker_id))
        replies = Replies(links.scoring)
        renewal = _renewal(links, replies, credentials, lifetime, worker_id)
        parents = WarmParents(
            overlay=overlay_directory,
            home=scratch,
            memory_bytes=settings.warm_memory_bytes,
            warm_up_timeout=settings.warm_up_timeout_seconds,
        )
        starts = Starts()
        warm_list = WarmList(settings.data_dir.resolve() / "warm_environments.json")
        rewarming = Rewarming(parents, starts, warm_list)
        launcher = Launcher(
            parents,
            NoTokens() if settings.serves_one else ModelTokens(links.bus),
            starts,
            overlay=overlay_directory,
            scratch=scratch,
            load_timeout=settings.load_timeout_seconds,
            limits=Limits(settings.model_memory_bytes, settings.max_answer_bytes),
        )

        def make(launch: ReplicaLaunch, on_change: Callable[[], None]) -> Replica:
            return Replica(
                launch,
                launcher=launcher,
                connection=links.scoring,
                replies=replies,
                deadline_grace=settings.deadline_grace_seconds,
                memory_bytes=settings.model_memory_bytes,
                on_change=on_change,
            )

        replicas = Replicas(
            capacity_slots=settings.capacity_slots,
            kept_logs=settings.kept_logs,
            spawn=context.spawn,
            make=make,
        )
        allowed = read_limits()._replace(memory_bytes=settings.model_memory_bytes)
        usage = UsageMeter(replicas.pids, allowed, on_excess=replicas.end_excessive)
        heartbeat = Heartbeat(
            links,
            replicas,
            parents,
            usage,
            worker_id=worker_id,
            incarnation=settings.incarnation,
            capacity_slots=settings.capacity_slots,
            interval=settings.heartbeat_seconds,
            access_left=renewal.left if renewal is not None else lambda: None,
        )

        async def serve(bus: Bus) -> None:
            await bus.serve(subjects.worker_ensure(worker_id), EnsureReplica, replicas.ensure)
            await bus.serve(subjects.worker_stop(worker_id), StopReplica, replicas.stop)
            await bus.serve(subjects.worker_log(worker_id), ReadReplicaLog, replicas.read_log)
            if not settings.serves_one:
                await bus.serve_stream(
                    subjects.worker_verify(),
                    VerifyModel,
                    Verifier(launcher).verify,
                    queue=subjects.WORKER_QUEUE,
                )

        try:
            await links.serve(serve)
            context.spawn("usage", usage.run())
            context.spawn("heartbeat", heartbeat.run())
            context.spawn("warm parents", rewarming.keep())
            context.spawn("rewarming", rewarming.restore())
            if renewal is not None:
                context.spawn("renewal of credentials", renewal.run())
            log.info("worker_ready", worker_id=worker_id, capacity_slots=settings.capacity_slots)
            context.ready()
            await context.stopping.wait()
            await links.keep()
            await replicas.drain(settings.drain_grace_seconds)
            await replies.flush(FLUSH_SECONDS)
            # The last one: every replica is STOPPED, so nobody has to miss heartbeats first.
            await heartbeat.beat()
        finally:
            await parents.close()
    finally:
        await links.close()


def _renewal(
    links: Links, replies: Replies, files: CredentialFiles, lifetime: Lifetime | None, worker_id: str
) -> Renewal | None:
    """What keeps credentials from ending, if they would."""
    if lifetime is None:
        return None
    return Renewal(worker_id, files, lifetime, lambda: links.bus, lambda: links.replace(replies.hold))


def _empty_directory(path: Path) -> Path:
    """Working directories of runners that died with an earlier worker are of no use to anyone."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path
