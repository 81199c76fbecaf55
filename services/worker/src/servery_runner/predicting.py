"""The threads that predict: take what waits, have it answered, send the answers.

A prediction of several requests that fails, or whose answer cannot be cut into theirs, is repeated request by
request: one bad row fails by itself.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
from typing import Any, NoReturn, Optional, Union

from servery_common.contracts import frames
from servery_runner import limits, request_body, rows, scoring
from servery_runner.backlog import Backlog, Request
from servery_runner.begun import BegunMarks
from servery_runner.channel import Channel, Received
from servery_runner.effort import Meter
from servery_runner.scoring import JSON, Answer, AnswerStream, Scorer
from servery_runner.streaming import EVENT_STREAM, Flow, pieces

CLIENT_CLOSED_REQUEST = 499
"""Status of a request that was not run: answered so that each REQUEST gets one RESULT."""


class Requests:
    """The requests of one runner, between the thread that takes them in and those that answer them."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._backlog: Optional[Backlog] = None
        self._scorer: Optional[Scorer] = None
        self._begun: Optional[BegunMarks] = None
        self._flows: dict[int, Flow] = {}

    def open(self, backlog: Backlog, scorer: Scorer, begun: BegunMarks) -> None:
        """From now on put requests here, and answer them with this model."""
        self._begun = begun
        self._scorer = scorer
        self._backlog = backlog

    def start_threads(self, count: int) -> None:
        """Have so many threads ``work``."""
        for number in range(count):
            threading.Thread(
                target=limits.ending_the_process(self.work), name=f"predict-{number + 1}", daemon=True
            ).start()

    def work(self) -> NoReturn:
        """Answer requests, after ``open``, as long as the process lives."""
        assert self._backlog is not None
        assert self._scorer is not None
        self._work(self._backlog, self._scorer)

    def read(self) -> NoReturn:
        """Take records until the agent is gone, then end the process, whatever the model is doing."""
        while True:
            records = self._channel.receive()
            if records is None:
                os._exit(0)
            # The agent sends nothing before it was told that the model is loaded.
            if self._backlog is not None:
                self._take_in(self._backlog, records)

    def _take_in(self, backlog: Backlog, records: list[Received]) -> None:
        fresh: list[Request] = []
        for record in records:
            if record.kind == frames.REQUEST:
                request = _request(record)
                self._flows[request.id] = request.flow
                fresh.append(request)
                continue
            if fresh:  # What follows may be about these.
                backlog.put(fresh)
                fresh = []
            flow = self._flows.get(record.id)
            if record.kind == frames.CANCEL:
                if backlog.cancel(record.id):
                    self._not_run(record.id)
                elif flow is not None:
                    # A prediction that has begun cannot be taken back; a stream can end between two items.
                    flow.cancel()
            elif record.kind == frames.WINDOW and flow is not None:
                flow.acknowledge(frames.read_head(record.head)["bytes"])
        if fresh:
            backlog.put(fresh)

    def _work(self, backlog: Backlog, scorer: Scorer) -> NoReturn:
        meter = Meter()
        while True:
            taken = backlog.take()
            rows_done: Optional[int] = 0
            meter.start()
            began = time.monotonic()
            try:
                for request in taken.expired:
                    self._not_run(request.id)
                if len(taken.batch) == 1:
                    rows_done = self._answer(scorer, taken.batch[0])
                elif taken.batch:
                    rows_done = self._answer_together(backlog, scorer, taken.batch)
            except OSError:
                os._exit(0)  # The agent is gone.
            seconds, effort = time.monotonic() - began, meter.read()
            backlog.done(rows_done, seconds, None if effort is None else effort.busy)

    def _not_run(self, id: int) -> None:
        self._flows.pop(id, None)
        self._channel.send(frames.RESULT, id, {"status": CLIENT_CLOSED_REQUEST}, flags=frames.NOT_RUN)

    def _answer(self, scorer: Scorer, request: Request) -> Optional[int]:
        """Answer one request; return its rows, None if they were not counted, 0 if its time says nothing of others."""
        self._begin([request])
        try:
            answer = _score(scorer, request)
            if isinstance(answer, AnswerStream):
                self._stream(answer, request)
                return 0
            self._channel.send_packed(_result(request, answer, _head(answer), answer.body))
        finally:
            self._flows.pop(request.id, None)
        if answer.status != 200:
            return 0
        return None if request.rows is None else request.rows.length

    def _answer_together(self, backlog: Backlog, scorer: Scorer, batch: list[Request]) -> int:
        """As ``_answer``, for several; 0 when they are to be answered one by one."""
        self._begin(batch)
        parts = [request.rows for request in batch if request.rows is not None]
        try:
            results = _score_together(scorer, batch, parts)
        except MemoryError as error:
            limits.out_of_memory(error)
            results = None
        except Exception:
            # One by one each gets an answer; a thread that ended here would answer nobody any more.
            traceback.print_exc()
            results = None
        if results is None:
            self._repeat(backlog, batch)
            return 0
        self._channel.send_packed(results)
        for request in batch:
            self._flows.pop(request.id, None)
        return sum(part.length for part in parts)

    def _repeat(self, backlog: Backlog, batch: list[Request]) -> None:
        """Have each predicted by itself, but for those nobody waits for any more."""
        left = [request for request in batch if request.flow.cancelled]
        for request in left:
            self._not_run(request.id)
        repeated = [request for request in batch if not request.flow.cancelled]
        if self._begun is not None:
            self._begun.put_back(request.id for request in repeated)
        backlog.put_back(repeated)

    def _begin(self, batch: list[Request]) -> None:
        """Should the process die from here on, these were what it was working on."""
        if self._begun is not None:
            self._begun.mark(request.id for request in batch)

    def _stream(self, answer: AnswerStream, request: Request) -> None:
        """Send each event as soon as the model made it and the client has room for it."""
        flow = request.flow
        self._channel.send(frames.RESULT, request.id, {"ct": EVENT_STREAM}, flags=frames.STREAM)
        with contextlib.closing(answer.events()) as events:
            for piece in (piece for event in events for piece in pieces(event)):
                if not flow.take(len(piece)):
                    break
                self._channel.send(frames.CHUNK, request.id, {}, piece)
        timings = answer.timings()
        head: dict[str, Any] = _predict_time(timings)
        if request.traced:
            head["t"] = timings
        body = b""
        if flow.cancelled:
            head["status"] = CLIENT_CLOSED_REQUEST
        elif answer.error is not None:
            head["status"], body = answer.error
        self._channel.send(frames.END, request.id, head, body)


def _score(scorer: Scorer, request: Request) -> Union[Answer, AnswerStream]:
    """The answer to one request, a streamed one with its first item computed. Never raises."""
    try:
        body = request_body.read(request.body, request.content_type, scorer.declared)
        if body.stream:
            return scorer.stream(body.content, request.content_type)
        # Its rows were read already if it might have been joined.
        part = request.rows if body.content is request.body else None
        return scorer.answer(body.content, request.content_type, part)
    except MemoryError as error:
        return scoring.out_of_memory(error)
    except Exception as error:
        traceback.print_exc()
        return scoring.unreadable(error)


def _score_together(scorer: Scorer, batch: list[Request], parts: list[rows.Rows]) -> Optional[bytes]:
    """The RESULT records of a batch; None when its answer is none of them together. Raises MemoryError."""
    answer = scorer.answer_together(parts)
    if answer.status != 200:
        return None
    bodies = rows.split(answer.body.decode(), [part.length for part in parts])
    if bodies is None:
        return None
    head = _head(answer)
    packed = frames.pack_head(head)
    return b"".join(
        _result(one, answer, head, body, len(batch))
        if one.traced
        else frames.pack(frames.RESULT, one.id, packed, body)
        for one, body in zip(batch, bodies)
    )


def _request(record: Received) -> Request:
    until, content_type = frames.unpack_order(record.head)
    return Request(
        record.id,
        content_type or JSON,
        record.body,
        until=until,
        solo=bool(record.flags & frames.SOLO),
        traced=bool(record.flags & frames.TRACED),
    )


def _head(answer: Answer) -> dict[str, Any]:
    head: dict[str, Any] = _predict_time(answer.timings)
    if answer.status != 200:
        head["status"] = answer.status
    if answer.content_type != JSON:
        head["ct"] = answer.content_type
    return head


def _predict_time(timings: dict[str, tuple[int, int]]) -> dict[str, Any]:
    if "predict" not in timings:
        return {}
    began, ended = timings["predict"]
    return {"p": (ended - began) // 1000}


def _result(request: Request, answer: Answer, head: dict[str, Any], body: bytes, company: int = 1) -> bytes:
    """One RESULT record. ``company``: how many requests shared the prediction."""
    if request.traced:
        began = min((start for start, _ in answer.timings.values()), default=request.put_ns)
        stages = {**answer.timings, "batch_wait": (request.put_ns, max(began, request.put_ns))}
        head = {**head, "n": company, "t": stages}
    return frames.encode(frames.RESULT, request.id, head, body)
