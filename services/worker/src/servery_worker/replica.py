"""One replica: keeps a runner alive behind an agent, from the order to start it to the order to stop it."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

import structlog
from nats.errors import Error as NatsError

from servery_common.contracts import subjects
from servery_common.contracts.replicas import ReplicaLaunch, ReplicaObservation
from servery_common.contracts.states import ReplicaState
from servery_common.service import cancel_until_ended, wait_any
from servery_runner.limits import excess
from servery_worker.agent import Agent
from servery_worker.launcher import Launcher
from servery_worker.lifecycle import Happening, after
from servery_worker.model_log import ModelLog
from servery_worker.replies import Replies
from servery_worker.restarts import Restarts
from servery_worker.runner import Runner, RunnerFailed
from servery_worker.scoring_line import ScoringLine

log = structlog.get_logger(__name__)


class Replica:
    """What the controller ordered, and how it is."""

    def __init__(
        self,
        launch: ReplicaLaunch,
        *,
        launcher: Launcher,
        connection: ScoringLine,
        replies: Replies,
        deadline_grace: float,
        memory_bytes: int,
        on_change: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.launch = launch
        self.state = ReplicaState.STARTING
        self.reason = ""
        self.restarts = 0
        self.log = ModelLog(self._on_line)
        self._launcher = launcher
        self._connection = connection
        self._on_change = on_change
        self._clock = clock
        self._pause = pause
        self._restarts = Restarts()
        self._agent = Agent(launch, replies, deadline_grace=deadline_grace, on_overdue=self._on_overdue)
        self._runner: Runner | None = None
        self._disposals: set[asyncio.Task[None]] = set()
        self._memory_bytes = memory_bytes
        self._ended_because = ""
        self._excessive = False
        self._never_ready = True
        self._ordered_again = asyncio.Event()
        self._stop_ordered = asyncio.Event()

    def observe(self) -> ReplicaObservation:
        """As told in heartbeats."""
        return ReplicaObservation(
            replica_id=self.launch.replica_id,
            endpoint_id=self.launch.endpoint_id,
            served_entity_id=self.launch.served_entity_id,
            state=self.state,
            reason=self.reason,
            slots=self.launch.slots,
            max_in_flight=self._agent.capacity,
            in_flight=self._agent.in_flight,
            restarts=self.restarts,
            never_ready=self._never_ready,
            batches=tuple(self._agent.company),
        )

    @property
    def pid(self) -> int | None:
        """The process that holds the model now, if there is one."""
        return self._runner.pid if self._runner is not None else None

    async def run(self) -> None:
        """Serve until ``stop``, STOPPED at the end. Returns; it does not raise because of what the model does."""
        serving = asyncio.create_task(self._subscribe_and_serve(), name=f"runner of {self.launch.replica_id}")
        try:
            # An order to stop may have come before this began, or come while it subscribes.
            await wait_any(serving, self._stop_ordered)
        finally:
            # A cancel is lost if it comes in the moment a process was forked.
            await cancel_until_ended(serving)
            await self._clear_away()
            self._happened(Happening.STOPPED, self.reason)
        if not serving.cancelled():
            serving.result()

    def order_again(self) -> None:
        """The controller wants it. Wakes one that has failed; changes nothing about any other."""
        self._ordered_again.set()

    def drain(self) -> None:
        """Take nothing new from now on."""
        self._agent.draining = True
        self._happened(Happening.DRAIN, self.reason)

    async def finished(self, grace: float) -> None:
        """Wait until everything accepted is answered, at most ``grace`` seconds."""
        try:
            await asyncio.wait_for(self._agent.idle(), grace)
        except TimeoutError:
            log.warning(
                "replica_not_drained",
                replica_id=self.launch.replica_id,
                in_flight=self._agent.in_flight,
                seconds=grace,
            )

    def stop(self) -> None:
        """End ``run``; what is unanswered is answered with an error."""
        self._stop_ordered.set()

    async def _subscribe_and_serve(self) -> None:
        self._connection.disconnect_callbacks.append(self._agent.connection_lost)
        await self._connection.receive(subjects.infer(self.launch.replica_id), self._agent.on_message)
        await self._keep_alive()

    async def _clear_away(self) -> None:
        self._agent.give_up("The replica was stopped.")
        if self._runner is not None:
            self._dispose(self._runner)
        if self._disposals:
            await asyncio.wait(self._disposals)
        with contextlib.suppress(ValueError):
            self._connection.disconnect_callbacks.remove(self._agent.connection_lost)
        with contextlib.suppress(NatsError):
            await self._connection.ignore(subjects.infer(self.launch.replica_id))

    async def _keep_alive(self) -> None:
        while True:
            try:
                runner = await self._start()
            except RunnerFailed as failure:
                self._agent.give_up(f"The model cannot be started: {failure.error}")
                self._count(ready_seconds=0.0, answered=0)
                self._happened(Happening.FAILED, self._explain(str(failure)))
            else:
                await self._serve(runner)
                await self._bury(runner)
            if self.state is ReplicaState.FAILED:
                # Stays, refusing everything, until somebody has seen why and orders it away or back.
                self._ordered_again.clear()
                await self._ordered_again.wait()
                self._happened(Happening.ORDERED_AGAIN, self.reason)
            await self._pause(self._restarts.delay)
            self.restarts += 1

    async def _start(self) -> Runner:
        return await self._launcher.start(
            self.launch.artifacts,
            self.log,
            served_entity_id=self.launch.served_entity_id,
            environment_vars=self.launch.environment_vars,
            slots=self.launch.slots,
            # Requests that wait are as good as the example, and want an answer.
            warm_up=not self._agent.in_flight,
        )

    async def _serve(self, runner: Runner) -> None:
        """Serve with this runner until it is dead."""
        self._runner = runner
        self._ended_because = ""
        self._excessive = False
        self._agent.attach(runner)
        self._never_ready = False
        self._happened(Happening.LOADED)
        ready_at = self._clock()
        await runner.dead.wait()
        self._count(ready_seconds=self._clock() - ready_at, answered=self._agent.answered)
        # Held for the replacement, if that will be there in a moment.
        self._agent.suspend(holding=runner.quick and self._restarts.fruitless <= 1)

    async def _bury(self, runner: Runner) -> None:
        """Answer what it was working on and tell how it ended."""
        self._runner = None
        reason = await runner.end_reason()
        ended_itself = runner.ended_itself()
        if self._ended_because:
            reason, ended_itself = self._ended_because, self._excessive
        self._agent.bury(reason, ended_itself=ended_itself)
        self.log.append(f"Servery: the model's process {reason}.")
        self._dispose(runner)
        self._happened(Happening.DIED, self._explain(f"the model's process {reason}"))

    def _count(self, *, ready_seconds: float, answered: int) -> None:
        self._restarts = self._restarts.after(ready_seconds=ready_seconds, answered=answered)

    def _explain(self, reason: str) -> str:
        # One that failed to start the first time is not started again by itself.
        return reason if self.state is ReplicaState.STARTING else self._restarts.explain(reason)

    def _dispose(self, runner: Runner) -> None:
        """Not waited for: its replacement starts while its last output is read."""
        disposal = asyncio.create_task(self._launcher.dispose(runner), name="runner disposal")
        self._disposals.add(disposal)
        disposal.add_done_callback(self._disposals.discard)

    def end_excessive(self) -> None:
        """Replace the model's process: it holds more memory than it may, as the request it works on would again."""
        self._end_runner(f"was ended because it used {excess(self._memory_bytes)}", excessive=True)

    def _on_overdue(self) -> None:
        self._end_runner("was ended because a request computed past its deadline")

    def _end_runner(self, because: str, *, excessive: bool = False) -> None:
        if self._runner is None or self._runner.dead.is_set():
            return  # It ended before, and not because of this.
        self._ended_because = because
        self._excessive = excessive
        self._runner.kill()

    def _happened(self, happening: Happening, reason: str = "") -> None:
        before, self.state = self.state, after(self.state, happening)
        self.reason = reason
        log.info(
            "replica_state_changed",
            replica_id=self.launch.replica_id,
            endpoint=self.launch.endpoint_name,
            before=before,
            state=self.state,
            happening=happening.name,
            reason=reason,
        )
        self._on_change()

    def _on_line(self, line: str) -> None:
        log.debug("model_printed", replica_id=self.launch.replica_id, line=line)
