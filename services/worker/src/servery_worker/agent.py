"""The agent of one replica: takes requests from gateways, hands them to its runner, sends the answers back.

It never looks into a body. Whatever it accepted and its gateway did not cancel gets exactly one RESULT: from the
runner, or from here when the runner died under it (``lost``), the deadline passed or the replica was stopped. It
never runs a request twice: a runner marks each request that its model is about to see (``servery_runner.begun``), and
only those it did not mark are given to the runner that replaces it. A RESULT that begins a stream is followed by
exactly one END, from the same two places.
"""

import asyncio
import functools
import json
import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import orjson
import structlog

from servery_common.contracts import frames
from servery_common.contracts.replicas import BATCH_BOUNDS, ReplicaLaunch
from servery_common.errors import BadRequest, DeadlineExceeded, ServeryError, Unavailable
from servery_common.timer_wheel import TimerWheel
from servery_runner.begun import Numbers
from servery_worker import spans
from servery_worker.admission import Capacity, refusal
from servery_worker.answers import Answers
from servery_worker.job import Job, from_record
from servery_worker.large_bodies import LargeBodies
from servery_worker.replies import Replies
from servery_worker.result_heads import JSON, ResultHeads, content_type, error_status, prediction_time
from servery_worker.runner import Runner
from servery_worker.staleness import Staleness

log = structlog.get_logger(__name__)

SOLO_SECONDS = 5.0
"""After a process died under several requests, each is predicted by itself for so long: the one that did it, sent
again, takes no others with it."""
DEADLINE_GRANULARITY = 0.05
"""Seconds a deadline may be noticed late."""
TOO_SLOW = "Timed out while evaluating the model. Verify that the model evaluates within the timeout."

_EMPTY: dict[str, Any] = {}


class Agent:
    """The trusted half of a replica."""

    def __init__(
        self,
        launch: ReplicaLaunch,
        replies: Replies,
        *,
        deadline_grace: float,
        on_overdue: Callable[[], None],
    ) -> None:
        self._launch = launch
        self._grace = deadline_grace
        self._on_overdue = on_overdue
        self._replies = replies
        self._answers = Answers(replies)
        self._staleness = Staleness()
        self._runner: Runner | None = None
        self._heads = ResultHeads()
        self._large: LargeBodies[tuple[str, int]] = LargeBodies(launch.slots)
        self._solo_until = 0.0
        self._jobs: dict[tuple[str, int], Job] = {}
        self._running: dict[int, Job] = {}
        self._numbers = Numbers(launch.slots)
        self._deadlines: TimerWheel[Job] = TimerWheel(
            asyncio.get_running_loop(), DEADLINE_GRANULARITY, self._on_deadline
        )
        self._idle = asyncio.Event()
        self._idle.set()
        self._holding = False
        self._last_given: Job | None = None
        self.draining = False
        self.capacity = launch.slots
        """Requests it holds at a time: more than are predicted at a time when they are predicted together."""
        self.answered = 0
        """Requests the present runner answered."""
        self.company = [0] * (len(BATCH_BOUNDS) + 1)
        """Requests answered, by how many were predicted together with each; since the replica began."""

    @property
    def in_flight(self) -> int:
        """Requests accepted and not yet answered."""
        return len(self._jobs)

    async def idle(self) -> None:
        """Wait until everything accepted is answered and sent."""
        await self._idle.wait()
        await self._answers.sent()

    def on_message(self, payload: memoryview, reply: str, _headers: bytes, _subject: bytes) -> None:
        """Take in a frame from a gateway."""
        try:
            for kind, flags, number, head, body in frames.scan(payload):
                parsed = orjson.loads(head) if head else _EMPTY
                self._on_record(frames.Record(kind, number, parsed, body, flags), reply)
        except ValueError as error:
            log.warning("frame_unreadable", reply=reply, error=str(error))

    def connection_lost(self) -> None:
        """Pieces of bodies were lost with the connection: end what waits for them, of requests and of answers."""
        self._answers.drop_all()
        for job in list(self._jobs.values()):
            if not job.incoming.complete:
                self._forget(job)
                given_back = frames.encode(frames.REFUSE, job.id, {"reason": "unknown"})
                self._replies.send_or_hold(job.reply, given_back)

    def attach(self, runner: Runner) -> None:
        """Use this runner from now on and give it what was held for it."""
        runner.on_result = self._on_result
        self.capacity = self._launch.slots * runner.joined
        self._runner = runner
        self._holding = False
        self.answered = 0
        for job in list(self._jobs.values()):
            self._run_if_complete(job)

    def suspend(self, *, holding: bool) -> None:
        """The runner is gone. ``holding``: accept nevertheless, its replacement will be there in a moment."""
        gone, self._runner = self._runner, None
        self._holding = holding
        for job in list(self._running.values()):
            if gone is None or job.streaming or gone.begun.has(job.number):
                continue
            if job.cancelled:
                self._forget(job)
            else:
                job.running = False
                del self._running[job.number]
        if holding:
            return
        for job in list(self._jobs.values()):
            if not job.running:
                self._fail(job, Unavailable("The model's process is being restarted."))

    def bury(self, reason: str, *, ended_itself: bool) -> None:
        """Answer what the runner that is gone was working on.

        ``ended_itself``: the model made it end. If it had one request only, that one did it, and would do it again:
        it is refused as the model's failure, which no client retries. Of several any may have been the one.
        """
        culprit = ended_itself and len(self._running) == 1
        if ended_itself and len(self._running) > 1:
            self._solo_until = asyncio.get_running_loop().time() + SOLO_SECONDS
        for job in list(self._running.values()):
            if job.overdue:
                self._fail(job, DeadlineExceeded(TOO_SLOW))
            elif culprit:
                self._fail(job, BadRequest(f"The model ended its process on this request: it {reason}."))
            else:
                problem = f"The model's process {reason} while it worked on this request."
                self._fail(job, Unavailable(problem), lost=True)

    def give_up(self, reason: str) -> None:
        """Answer everything that is left: there will be no runner soon enough."""
        self._holding = False
        for job in list(self._jobs.values()):
            self._fail(job, Unavailable(reason), lost=job.running)

    def _on_record(self, record: frames.Record, reply: str) -> None:
        try:
            if record.kind == frames.REQUEST:
                self._on_request(record, reply)
            elif record.kind == frames.CHUNK:
                self._on_chunk(record, reply)
            elif record.kind == frames.WINDOW:
                self._on_window((reply, record.id), int(record.head["bytes"]))
            elif record.kind == frames.CANCEL:
                self._on_cancel((reply, record.id))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # One bad record; the others of its frame belong to other requests.
            log.warning("record_unreadable", kind=record.kind, reply=reply, error=repr(error))

    def _on_request(self, record: frames.Record, reply: str) -> None:
        if (reply, record.id) in self._jobs:
            return
        ttl_ms = float(record.head.get("ttl", self._launch.timeout_seconds * 1000))
        capacity = Capacity(
            draining=self.draining,
            runnable=self._runner is not None or self._holding,
            in_flight=len(self._jobs),
            slots=self.capacity,
        )
        sent_at_ms = record.head.get("at")
        stale = sent_at_ms is not None and self._staleness.is_stale(reply, sent_at_ms, time.time() * 1000)
        reason = refusal(capacity, ttl_ms, stale=stale)
        if reason is not None:
            self._replies.send(reply, frames.encode(frames.REFUSE, record.id, {"reason": reason}))
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(ttl_ms / 1000, self._launch.timeout_seconds)
        job = from_record(record, reply, deadline)
        job.number = self._numbers.take()
        self._set_deadline(job, deadline)
        self._jobs[job.key] = job
        self._idle.clear()
        then = functools.partial(self._on_accept_sent, job)
        self._replies.accept(reply, record.id, then, soon=not self._runner_has_more())
        if not job.incoming.complete:
            self._acknowledge(job, len(record.body))

    def _runner_has_more(self) -> bool:
        """Whether the runner has something to go on with: then a request may as well wait here until the next answer,
        which saves its gateway a message. Not where those that wait are predicted together."""
        last, runner = self._last_given, self._runner
        if last is None or runner is None or runner.joined > 1:
            return False
        return last.number in self._running and not runner.begun.has(last.number)

    def _on_accept_sent(self, job: Job, sent: bool) -> None:
        if self._jobs.get(job.key) is not job:
            return  # It was cancelled meanwhile.
        if sent:
            job.accepted = True
            self._run_if_complete(job)
        else:
            # Its gateway, if that has a connection, does not know that it is here, and may have it run elsewhere.
            self._forget(job)
            given_back = frames.encode(frames.REFUSE, job.id, {"reason": "unknown"})
            self._replies.send_or_hold(job.reply, given_back)

    def _on_chunk(self, record: frames.Record, reply: str) -> None:
        job = self._jobs.get((reply, record.id))
        if job is None or job.running:
            return
        try:
            job.incoming.add(record.body)
        except frames.FrameError as error:
            self._fail(job, BadRequest(f"The request body cannot be read: {error}."))
            return
        self._acknowledge(job, len(record.body))
        self._run_if_complete(job)

    def _acknowledge(self, job: Job, count: int) -> None:
        take = self._large.complete if job.incoming.complete else self._large.credit
        if acknowledged := take(job.key, count):
            self._open_window(job.key, acknowledged)

    def _open_window(self, key: tuple[str, int], count: int) -> None:
        self._replies.send(key[0], frames.encode(frames.WINDOW, key[1], {"bytes": count}))

    def _on_cancel(self, key: tuple[str, int]) -> None:
        self._answers.drop(key)
        job = self._jobs.get(key)
        if job is None:
            return
        job.cancelled = True
        if not job.running:
            self._forget(job)
        elif self._runner is not None:
            # It keeps its slot until the runner says so: a prediction that has begun cannot be taken back.
            self._runner.cancel(job.number)
            if job.streaming:
                self._expect_close(job)

    def _run_if_complete(self, job: Job) -> None:
        # Not before its gateway will hear that it was accepted: were this process frozen in between, the model would
        # run what its gateway gives to another replica.
        if self._runner is None or job.running or not (job.accepted and job.incoming.complete):
            return
        if asyncio.get_running_loop().time() >= job.deadline:
            self._fail(job, DeadlineExceeded(TOO_SLOW))
            return
        job.running = True
        self._running[job.number] = job
        self._last_given = job
        order = frames.pack_order(job.deadline, "" if job.content_type == JSON else job.content_type)
        flags = frames.TRACED if spans.sampled(job.traceparent) else 0
        if self._solo_until and self._solo_until > asyncio.get_running_loop().time():
            flags |= frames.SOLO
        self._runner.request(job.number, order, job.incoming.pieces, flags)

    def _on_window(self, key: tuple[str, int], count: int) -> None:
        job = self._jobs.get(key)
        if job is None or not job.streaming:
            self._answers.on_window(key, count)
        elif self._runner is not None:
            self._heard_of(job)
            if count:
                job.unacknowledged = max(0, job.unacknowledged - count)
                self._runner.open_window(job.number, count)

    def _on_deadline(self, job: Job) -> None:
        if not job.running:
            self._fail(job, DeadlineExceeded(TOO_SLOW))
        elif job.streaming and not job.cancelled and self._runner is not None:
            # Its gateway is gone, or did not notice its end: a stream can be ended without the others' runner.
            self._runner.cancel(job.number)
            self._send_end(job, {"status": 504}, json.dumps(DeadlineExceeded(TOO_SLOW).body()).encode())
            job.cancelled = True
            self._expect_close(job)
        elif job.cancelled or self._runner is None or self._runner.begun.is_predicted(job.number):
            job.overdue = True
            self._on_overdue()
        else:
            # It waits in the runner. Not even given back within another grace, the runner does not react any more.
            job.cancelled = True
            self._runner.cancel(job.number)
            self._answer(job, DeadlineExceeded(TOO_SLOW))
            self._set_deadline(job, asyncio.get_running_loop().time())

    def _on_result(self, record: frames.RawRecord) -> None:
        """Take an answer from the runner. Raises FrameError for what is none."""
        job = self._running.get(record.id)
        if job is None:
            return
        if record.kind == frames.RESULT:
            self._on_answer(job, record)
        elif record.kind == frames.CHUNK:
            self._on_piece(job, record.body)
        elif record.kind == frames.END:
            self._on_end(job, frames.read_head(record.head), record.body)

    def _on_answer(self, job: Job, record: frames.RawRecord) -> None:
        if job.streaming:
            raise frames.FrameError("a second result")
        if record.flags & frames.STREAM:
            self._on_stream(job, record)
        elif record.flags & frames.NOT_RUN:
            self._fail(job, DeadlineExceeded(TOO_SLOW))
        else:
            head = self._heads.read(record.head)
            self.answered += 1
            self.company[bisect_left(BATCH_BOUNDS, head.company)] += 1
            self._forget(job)
            if not job.cancelled:
                self._answers.send(job.key, head.packed, record.body)
                self._trace(job, head.status, head.timings, head.company)

    def _on_stream(self, job: Job, record: frames.RawRecord) -> None:
        head = {"ct": content_type(frames.read_head(record.head))}
        job.streaming = True
        job.stream_ends_at = asyncio.get_running_loop().time() + job.stream_seconds
        if not job.cancelled:
            self._replies.send(job.reply, frames.encode(frames.RESULT, job.id, head, flags=frames.STREAM))
            self._heard_of(job)
        self._on_piece(job, record.body)

    def _on_end(self, job: Job, said: dict[str, Any], body: bytes | memoryview) -> None:
        if not job.streaming or len(body) > frames.CHUNK_BYTES:
            raise frames.FrameError("the end of no stream, or a longer one than a record holds")
        head: dict[str, Any] = prediction_time(said)
        if body:
            head["status"] = error_status(said)
        self.answered += 1
        self.company[0] += 1
        self._forget(job)
        if not job.cancelled:
            self._send_end(job, head, body)
            self._trace(job, head.get("status", 200), dict(said.get("t") or {}))

    def _on_piece(self, job: Job, piece: bytes | memoryview) -> None:
        job.unacknowledged += len(piece)
        if not job.streaming or job.unacknowledged > frames.STREAM_WINDOW_BYTES:
            raise frames.FrameError("more of an answer than its window allows")
        job.moved_at = asyncio.get_running_loop().time()
        if piece and not job.cancelled:
            self._replies.send(job.reply, frames.start(frames.CHUNK, job.id, b"", len(piece)), piece)

    def _heard_of(self, job: Job) -> None:
        """The gateway still wants this stream. What the model makes is no sign of that, and renews nothing."""
        if not job.cancelled:
            now = asyncio.get_running_loop().time()
            self._set_deadline(job, min(now + self._launch.timeout_seconds, job.stream_ends_at))

    def _expect_close(self, job: Job) -> None:
        """A stream was canceled: its model has the rest of its time for the piece it is at, then costs its process."""
        now = asyncio.get_running_loop().time()
        self._set_deadline(job, max(now, job.moved_at + self._launch.timeout_seconds))

    def _set_deadline(self, job: Job, deadline: float) -> None:
        if job.limit is not None:
            job.limit.discard(job)
        job.limit = self._deadlines.add(job, deadline + self._grace)

    def _send_end(self, job: Job, head: dict[str, Any], body: bytes | memoryview) -> None:
        self._replies.send(job.reply, frames.encode(frames.END, job.id, head, body))

    def _fail(self, job: Job, error: ServeryError, *, lost: bool = False) -> None:
        log.warning(
            "request_lost" if lost else "request_failed",
            replica_id=self._launch.replica_id,
            endpoint_id=self._launch.endpoint_id,
            request_id=job.request_id,
            trace_id=spans.trace_id(job.traceparent),
            error=error.message,
        )
        self._forget(job)
        if not job.cancelled:
            self._answer(job, error, lost=lost)

    def _answer(self, job: Job, error: ServeryError, *, lost: bool = False) -> None:
        """Tell the gateway that it came to nothing."""
        head: dict[str, Any] = {"status": error.status} | ({"lost": True} if lost else {})
        body = json.dumps(error.body()).encode()
        if job.streaming:
            self._send_end(job, head, body)
        else:
            self._answers.send(job.key, frames.pack_head(head), body)
        self._trace(job, error.status, {})

    def _trace(self, job: Job, status: int, timings: dict[str, Any], company: int = 1) -> None:
        if spans.sampled(job.traceparent):
            spans.record(
                job.traceparent,
                attributes={
                    "servery.replica_id": self._launch.replica_id,
                    "servery.endpoint": self._launch.endpoint_name,
                    "servery.request_id": job.request_id,
                    "servery.batch_size": company,
                },
                started_ns=job.accepted_ns,
                ended_ns=time.time_ns(),
                status=status,
                timings=timings,
            )

    def _forget(self, job: Job) -> None:
        if self._jobs.pop(job.key, None) is not None:
            self._numbers.give_back(job.number)
        self._running.pop(job.number, None)
        for key, count in self._large.remove(job.key):
            self._open_window(key, count)
        if job.limit is not None:
            job.limit.discard(job)
        if not self._jobs:
            self._idle.set()
