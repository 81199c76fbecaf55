"""Scoring frames over NATS: the one file of the inference path that knows NATS.

Requests to the same replica in one turn of the event loop leave in one message (``outbox``). The reply subject
ends in the gateway's and the replica's id, and one subscription takes all of them; answers are told apart by the ids in
the frames. What a replica says of a request it was not sent is ignored. When nobody
listens to a replica's subject the server says so, naming the subject, and the dispatcher hears ``on_gone``.
"""

import asyncio
import re
import time
from typing import Any

import structlog
from nats import errors

from servery_common.contracts import frames, subjects
from servery_common.messaging.inference import InferenceClient
from servery_gateway.inbox import JSON, AnswerTooLong, Inbox, predict_ms
from servery_gateway.outbox import Frame, Outbox
from servery_gateway.transport import Outcome, ReplicaRequest, TransportListener

SETTLE_SECONDS = 1.0
MAX_UNSENT_BYTES = 1024 * 1024
"""Long bodies wait while more than this was not yet written: it is what a short request may have in front of it."""
BACK_PRESSURE_SECONDS = 0.001

_NOBODY_LISTENS = re.compile(
    rb"NATS/1\.0 503\b.*?\r\nNats-Subject: *" + re.escape(subjects.infer("x")[:-1]).encode() + rb"(\S+)\r\n",
    re.DOTALL,
)
"""What the server says to a message that reached nobody."""

log = structlog.get_logger(__name__)


class NatsTransport:
    """Implements ``ReplicaTransport``. ``attach`` gives it its connection, ``listener`` its reader."""

    def __init__(self, gateway_id: str, max_answer_bytes: int) -> None:
        self._gateway_id = gateway_id
        self._replica_at = len(subjects.all_replies(gateway_id)) - 1
        """Where the replica's id begins in a reply subject."""
        self._client: InferenceClient | None = None
        self._listener: TransportListener | None = None
        self._outboxes: dict[str, Outbox] = {}
        self._replica_of: dict[int, str] = {}
        self._streams: set[int] = set()
        """Attempts whose answer is being streamed."""
        self._inbox = Inbox(max_answer_bytes)
        self._max_answer_bytes = max_answer_bytes
        self._loop = asyncio.get_running_loop()
        self._sending_soon = False
        self._pieces_later: asyncio.TimerHandle | None = None

    def listen(self, listener: TransportListener) -> None:
        """Report to this listener from now on."""
        self._listener = listener

    async def attach(self, client: InferenceClient) -> None:
        """Use this connection from now on."""
        await client.receive(subjects.all_replies(self._gateway_id), self._on_message)
        self._client = client

    def connection_lost(self) -> None:
        """Forget everything under way and report it; to be called when the connection is lost."""
        self._outboxes.clear()
        self._replica_of.clear()
        self._streams.clear()
        self._inbox.clear()
        if self._listener is not None:
            self._listener.on_disconnect()

    @property
    def connected(self) -> bool:
        """Implement ReplicaTransport."""
        return self._client is not None and self._client.is_connected

    @property
    def congested(self) -> bool:
        """Implement ReplicaTransport."""
        return self._client is not None and self._client.unsent > MAX_UNSENT_BYTES

    def send(self, replica_id: str, request: ReplicaRequest) -> None:
        """Implement ReplicaTransport."""
        self._replica_of[request.id] = replica_id
        self._outbox(replica_id).add(request)
        self._send_soon()

    def cancel(self, replica_id: str, id: int) -> None:
        """Implement ReplicaTransport."""
        self._replica_of.pop(id, None)
        self._streams.discard(id)
        self._inbox.forget(id)
        self._outbox(replica_id).cancel(id)
        self._send_soon()

    def acknowledge(self, replica_id: str, id: int, count: int) -> None:
        """Implement ReplicaTransport."""
        if id in self._replica_of:
            self._outbox(replica_id).acknowledge_answer(id, count)
            self._send_soon()

    def probe(self, replica_id: str) -> None:
        """Implement ReplicaTransport: an empty frame means nothing to an agent, and shows whether there is one."""
        self._outbox(replica_id).add_probe()
        self._send_soon()

    def is_waiting(self, replica_id: str, id: int) -> bool:
        """Implement ReplicaTransport."""
        outbox = self._outboxes.get(replica_id)
        return outbox is not None and outbox.is_waiting(id)

    async def settle(self) -> None:
        """Implement ReplicaTransport."""
        client = self._client
        if client is None:
            return
        try:
            await client.flush(int(SETTLE_SECONDS))
        except (errors.Error, OSError, TimeoutError, ValueError):
            return

    def _send_soon(self) -> None:
        """In this turn of the event loop, behind what else it has to hand over."""
        if not self._sending_soon:
            self._sending_soon = True
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        self._sending_soon = False
        for replica_id, outbox in list(self._outboxes.items()):
            while (frame := outbox.take_short()) is not None:
                self._publish(replica_id, frame)
        self._send_pieces()

    def _send_pieces(self) -> None:
        """One piece for each replica at a time: short requests go in between."""
        for replica_id, outbox in list(self._outboxes.items()):
            if outbox.has_piece:
                if self._client is not None and self._client.unsent > MAX_UNSENT_BYTES:
                    if self._pieces_later is None:
                        self._pieces_later = self._loop.call_later(BACK_PRESSURE_SECONDS, self._resume_pieces)
                    return
                if (frame := outbox.take_piece(time.time_ns() // 1_000_000)) is not None:
                    self._publish(replica_id, frame)
                self._send_soon()
            elif outbox.empty:
                del self._outboxes[replica_id]

    def _resume_pieces(self) -> None:
        self._pieces_later = None
        self._send_pieces()

    def _publish(self, replica_id: str, frame: Frame) -> None:
        if self._client is None:
            return
        try:
            self._client.send(
                subjects.infer(replica_id),
                frame.parts,
                reply=subjects.replies(self._gateway_id, replica_id),
                traceparent=frame.traceparent,
            )
        except errors.Error as error:
            # Lost connections are reported by connection_lost(); anything else must not end what calls this.
            log.warning("frame_not_sent", replica_id=replica_id, error=repr(error))

    def _on_message(self, payload: memoryview, _reply: str, headers: bytes, subject: bytes) -> None:
        sender = subject[self._replica_at :].decode()
        if headers:
            self._on_status(sender, headers)
            return
        try:
            # A head that was just read is not read again: answers of one prediction have the same.
            before, head = b"", dict[str, Any]()
            for raw in frames.scan(payload):
                try:
                    if raw.head != before:
                        before, head = raw.head, frames.read_head(raw.head)
                    self._on_record(sender, frames.Record(raw.kind, raw.id, head, raw.body, raw.flags))
                except Exception as error:
                    self._on_bad_record(sender, raw, error)
        except frames.FrameError as error:
            log.error("frame_not_understood", error=repr(error), bytes=len(payload))

    def _on_bad_record(self, sender: str, record: frames.RawRecord, error: Exception) -> None:
        """One record that makes no sense must not take the answers behind it along; its request is lost at once."""
        log.error("record_not_understood", kind=record.kind, id=record.id, error=repr(error))
        if self._replica_of.get(record.id) == sender and self._listener is not None:
            self.cancel(sender, record.id)  # There may be more of it to come.
            self._listener.on_result(record.id, Outcome(502, JSON, b"", lost=True))

    def _on_status(self, replica_id: str, headers: bytes) -> None:
        subject = _NOBODY_LISTENS.match(headers)
        if subject is not None and subject[1].decode() == replica_id and self._listener is not None:
            self._listener.on_gone(replica_id)

    def _on_record(self, replica_id: str, record: frames.Record) -> None:
        kind, attempt, head = record.kind, record.id, record.head
        listener = self._listener
        if listener is None:
            return
        if kind == frames.ACCEPT:
            for accepted in frames.accepted_ids(record.body):
                if self._replica_of.get(accepted) == replica_id:
                    listener.on_accept(accepted)
        elif self._replica_of.get(attempt) != replica_id:
            return
        elif kind == frames.RESULT and record.flags & frames.STREAM:
            self._streams.add(attempt)
            listener.on_stream(attempt, int(head.get("status", 200)), str(head.get("ct", JSON)))
        elif attempt in self._streams:
            self._on_stream_record(listener, replica_id, record)
        elif kind in (frames.RESULT, frames.CHUNK):
            self._on_answer(listener, replica_id, record)
        elif kind == frames.REFUSE:
            self._forget(replica_id, attempt)
            listener.on_refuse(attempt, str(head.get("reason", "unknown")))
        elif kind == frames.WINDOW:
            self._outbox(replica_id).open_window(attempt, int(head.get("bytes", 0)))
            self._send_soon()
            listener.on_progress(attempt)

    def _on_stream_record(self, listener: TransportListener, replica_id: str, record: frames.Record) -> None:
        kind, attempt, head, body = record.kind, record.id, record.head, record.body
        if kind == frames.CHUNK:
            listener.on_piece(attempt, bytes(body))
        elif kind == frames.END:
            self._forget(replica_id, attempt)
            failure = None
            if "status" in head:
                failure = Outcome(int(head["status"]), JSON, bytes(body), bool(head.get("lost", False)))
            listener.on_stream_end(attempt, failure, predict_ms(head))

    def _on_answer(self, listener: TransportListener, replica_id: str, record: frames.Record) -> None:
        take = self._take_result if record.kind == frames.RESULT else self._take_chunk
        try:
            outcome = take(record)
        except AnswerTooLong:
            self.cancel(replica_id, record.id)
            problem = f"The model's answer is longer than the limit of {self._max_answer_bytes} bytes."
            outcome = Outcome(400, "text/plain", problem.encode())
        if outcome is None or record.kind == frames.CHUNK:
            self._outbox(replica_id).acknowledge_answer(record.id, len(record.body))
            self._send_soon()
        if outcome is None:
            return
        self._forget(replica_id, record.id)
        listener.on_result(record.id, outcome)

    def _take_result(self, record: frames.Record) -> Outcome | None:
        return self._inbox.result(record.id, record.head, record.body)

    def _take_chunk(self, record: frames.Record) -> Outcome | None:
        return self._inbox.chunk(record.id, record.body)

    def _forget(self, replica_id: str, id: int) -> None:
        """The attempt is over."""
        self._replica_of.pop(id, None)
        self._streams.discard(id)
        outbox = self._outboxes.get(replica_id)
        if outbox is not None:
            outbox.forget(id)
            if outbox.has_piece:
                self._send_soon()  # Of the one that waited for it.

    def _outbox(self, replica_id: str) -> Outbox:
        outbox = self._outboxes.get(replica_id)
        if outbox is None:
            outbox = self._outboxes[replica_id] = Outbox()
        return outbox
