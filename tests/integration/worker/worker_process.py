"""A real worker process, and the controller's side of talking to it."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from servery_common.contracts import subjects
from servery_common.contracts.builds import Artifacts
from servery_common.contracts.replicas import (
    Done,
    EnsureReplica,
    ReplicaLaunch,
    ReplicaObservation,
    StopReplica,
    WorkerHeartbeat,
)
from servery_common.contracts.states import ReplicaState
from servery_common.messaging.port import Bus


class WorkerProcess:
    """``python -m servery_worker`` on a data directory of its own."""

    def __init__(self, nats_url: str, data_dir: Path, **settings: str) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        self.id = uuid.uuid4().hex
        (data_dir / "worker_id").write_text(self.id)
        self.log_path = data_dir / "worker.log"
        environment = os.environ | {
            "SERVERY_NATS_URL": nats_url,
            "SERVERY_DATA_DIR": str(data_dir),
            "SERVERY_ARTIFACTS_DIR": str(data_dir),
            "SERVERY_ADMIN_TOKEN": "a secret no model may see",
            "MLFLOW_TRACKING_URI": "http://secret.invalid",
        }
        with self.log_path.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "servery_worker"],
                env=environment | settings,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def stop(self, patience: float = 40.0) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def artifacts(model_path: Path, environment_key: str = "testenvironment") -> Artifacts:
    """The tests' own interpreter stands in for a model environment: it has MLflow."""
    return Artifacts(
        model_path=str(model_path),
        environment_path=sys.prefix,
        python=sys.executable,
        environment_key=environment_key,
    )


class WorkerOrders:
    """What the controller does with one worker: orders, and the last heartbeat."""

    def __init__(self, bus: Bus, worker_id: str) -> None:
        self._bus = bus
        self.worker_id = worker_id
        self._changed = asyncio.Condition()
        self.beat: WorkerHeartbeat | None = None
        self.states: dict[str, list[ReplicaState]] = {}
        self._reasons: dict[str, list[str]] = {}

    async def start(self) -> "WorkerOrders":
        subject = subjects.worker_heartbeat(self.worker_id)
        await self._bus.on_signal(subject, WorkerHeartbeat, self._on_beat)
        await self.until(lambda beat: True)
        return self

    async def launch(self, model_path: Path, *, slots: int = 4, wait: bool = True, **fields: Any) -> str:
        """Have a replica made; returns its id once it is READY."""
        replica_id = fields.pop("replica_id", None) or uuid.uuid4().hex
        launch = ReplicaLaunch(
            replica_id=replica_id,
            endpoint_id="e1",
            endpoint_name="test",
            served_entity_id=fields.pop("served_entity_id", "s1"),
            served_entity_name="test-1",
            artifacts=fields.pop("artifacts", None) or artifacts(model_path),
            slots=slots,
            **fields,
        )
        await self.ensure(launch)
        if wait:
            await self.until_state(replica_id, ReplicaState.READY)
        return replica_id

    async def ensure(self, launch: ReplicaLaunch) -> None:
        subject = subjects.worker_ensure(self.worker_id)
        await self._bus.request(subject, EnsureReplica(launch=launch), Done, timeout=5)

    def reasons(self, replica_id: str) -> list[str]:
        """Why a replica was not ready, each time it was told of."""
        return self._reasons.get(replica_id, [])

    async def stop(self, replica_id: str, grace: float = 5.0) -> None:
        order = StopReplica(replica_id=replica_id, grace_seconds=grace)
        await self._bus.request(subjects.worker_stop(self.worker_id), order, Done, timeout=5)

    async def until_state(
        self, replica_id: str, state: ReplicaState, within: float = 60.0
    ) -> ReplicaObservation:
        # A replica that failed may still be stopped; it will not become anything else.
        ends = {state} if state is ReplicaState.STOPPED else {state, ReplicaState.FAILED}
        beat = await self.until(lambda beat: _state(beat, replica_id) in ends, within)
        found = next(one for one in beat.replicas if one.replica_id == replica_id)
        assert found.state == state, found.reason
        return found

    async def until(self, true: Callable[[WorkerHeartbeat], bool], within: float = 60.0) -> WorkerHeartbeat:
        async with asyncio.timeout(within), self._changed:
            await self._changed.wait_for(lambda: self.beat is not None and true(self.beat))
        assert self.beat is not None
        return self.beat

    async def _on_beat(self, beat: WorkerHeartbeat) -> None:
        async with self._changed:
            self.beat = beat
            for one in beat.replicas:
                seen = self.states.setdefault(one.replica_id, [])
                if not seen or seen[-1] != one.state:
                    seen.append(one.state)
                reasons = self._reasons.setdefault(one.replica_id, [])
                if one.reason and one.reason not in reasons:
                    reasons.append(one.reason)
            self._changed.notify_all()


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"


async def until_gone(*pids: int, within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while remaining := [pid for pid in pids if alive(pid)]:
        if time.monotonic() > deadline:
            for pid in remaining:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"still alive: {remaining}")
        await asyncio.sleep(0.02)


def _state(beat: WorkerHeartbeat, replica_id: str) -> ReplicaState | None:
    return next((one.state for one in beat.replicas if one.replica_id == replica_id), None)
