"""The runner: one model, one socket. Loads on LOAD, answers each REQUEST with one RESULT, or a stream and its END.

Threads: the main thread loads and then sleeps; the reader takes records off the socket, so that the end
of the agent is noticed at once, whatever the model does; ``slots`` threads predict.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import queue
import socket
import threading
import time
from typing import Any, NoReturn

from servery_common.contracts import frames
from servery_runner import loading, process, request_body
from servery_runner.channel import Channel
from servery_runner.scoring import AnswerStream, Scorer
from servery_runner.streaming import EVENT_STREAM, Flow, pieces

CLIENT_CLOSED_REQUEST = 499
"""Status of a request that was cancelled before it started: answered so that each REQUEST gets one RESULT."""


def run(channel_socket: socket.socket) -> NoReturn:
    """Serve the agent on this socket until it is gone."""
    channel = Channel(channel_socket)
    order = channel.receive()
    if order is None or order.kind != frames.LOAD:
        os._exit(0)
    requests = _Requests(channel)
    threading.Thread(target=requests.read, name="reader", daemon=True).start()
    os.environ.update(json.loads(bytes(order.body) or b"{}"))
    os.chdir(order.head["directory"])
    started = time.monotonic()
    try:
        scorer = loading.load(order.head["model_path"])
        example_predicted = False
        if order.head.get("verify"):
            # Should the process die from here on, it was the prediction.
            channel.send(frames.READY, 0, {"verifying": True})
            process.say("predicting the input example")
            example_predicted = loading.predict_example(scorer, order.head["model_path"])
    except loading.LoadFailure as failure:
        channel.send(frames.FAILED, 0, failure.head())
        os._exit(1)
    for number in range(order.head["slots"]):
        threading.Thread(target=requests.work, args=(scorer,), name=f"predict-{number}", daemon=True).start()
    channel.send(frames.READY, 0, _description(scorer, example_predicted, time.monotonic() - started))
    while True:
        # Signals are handled in this thread, so it has to stay.
        time.sleep(3600)


class _Requests:
    """Requests between the reader, which takes them in, and the threads that answer them."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._waiting: dict[int, frames.Record] = {}
        self._flows: dict[int, Flow] = {}
        self._order: queue.SimpleQueue[int] = queue.SimpleQueue()

    def read(self) -> NoReturn:
        """Take records until the agent is gone, then end the process, whatever the model is doing."""
        while True:
            record = self._channel.receive()
            if record is None:
                os._exit(0)
            if record.kind == frames.REQUEST:
                self._flows[record.id] = Flow()
                self._waiting[record.id] = record
                self._order.put(record.id)
            elif record.kind == frames.CANCEL:
                self._cancel(record.id)
            elif record.kind == frames.WINDOW:
                flow = self._flows.get(record.id)
                if flow is not None:
                    flow.acknowledge(record.head["bytes"])

    def _cancel(self, id: int) -> None:
        flow = self._flows.get(id)
        if self._waiting.pop(id, None) is not None:
            self._flows.pop(id, None)
            self._channel.send(frames.RESULT, id, {"status": CLIENT_CLOSED_REQUEST})
        elif flow is not None:
            # A prediction that has begun cannot be taken back; a stream can end between two items.
            flow.cancel()

    def work(self, scorer: Scorer) -> NoReturn:
        """Answer requests in order of arrival. Each pop is atomic: cancelled or started, never both."""
        while True:
            request = self._waiting.pop(self._order.get(), None)
            if request is not None:
                self._answer(scorer, request)

    def _answer(self, scorer: Scorer, request: frames.Record) -> None:
        flow = self._flows[request.id]
        content_type = request.head.get("ct") or "application/json"
        body = request_body.read(bytes(request.body), content_type, scorer.declared)
        answer = (scorer.stream if body.stream else scorer.answer)(body.content, content_type)
        try:
            if isinstance(answer, AnswerStream):
                self._stream(answer, request.id, flow)
            else:
                head = {"status": answer.status, "ct": answer.content_type, "t": answer.timings}
                self._channel.send(frames.RESULT, request.id, head, answer.body)
        except OSError:
            os._exit(0)
        finally:
            del self._flows[request.id]

    def _stream(self, answer: AnswerStream, id: int, flow: Flow) -> None:
        """Send each event as soon as the model made it and the client has room for it."""
        self._channel.send(frames.RESULT, id, {"status": 200, "ct": EVENT_STREAM, "stream": True})
        with contextlib.closing(answer.events()) as events:
            for piece in (piece for event in events for piece in pieces(event)):
                if not flow.take(len(piece)):
                    break
                self._channel.send(frames.CHUNK, id, {}, piece)
        head: dict[str, Any] = {"t": answer.timings()}
        body = b""
        if flow.cancelled:
            head["status"] = CLIENT_CLOSED_REQUEST
        elif answer.error is not None:
            head["status"], body = answer.error
        self._channel.send(frames.END, id, head, body)


def _description(scorer: Scorer, example_predicted: bool, seconds: float) -> dict[str, object]:
    import mlflow

    metadata = scorer.model.metadata
    return {
        "mlflow": mlflow.__version__,
        "python": platform.python_version(),
        "signature": metadata.signature is not None,
        "example": bool(getattr(metadata, "saved_input_example_info", None)),
        "example_predicted": example_predicted,
        "seconds": round(seconds, 3),
    }
