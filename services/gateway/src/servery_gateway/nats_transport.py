"""Scoring frames over NATS: the one file of the inference path that knows NATS.

Requests to the same replica in one turn of the event loop leave in one message (``outbox``). The reply subject
ends in the gateway's id and is subscribed to once; answers are told apart by the ids in the frames. When nobody
listens to a replica's subject the server says so, naming the subject, and the dispatcher hears ``on_gone``.
"""

import asyncio

import structlog
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from servery_common.contracts import frames, subjects
from servery_gateway.inbox import JSON, AnswerTooLong, Inbox, predict_ms
from servery_gateway.outbox import Frame, Outbox
from servery_gateway.transport import Outcome, ReplicaRequest, TransportListener

SETTLE_SECONDS = 1.0
MAX_UNSENT_BYTES = 2 * 1024 * 1024
"""Long bodies wait while the client holds more than this: what a short request may have in front of it.
The client's own back-pressure is off (``connect_inference``)."""
BACK_PRESSURE_SECONDS = 0.001
MAX_UNREAD_BYTES = 512 * 1024 * 1024
"""Answers nats-py holds before it drops some. Windows keep the sum far below."""

_INFER_PREFIX = subjects.infer("x")[:-1]

log = structlog.get_logger(__name__)


class NatsTransport:
    """Implements ``ReplicaTransport``. ``attach`` gives it its connection, ``listener`` its reader."""

    def __init__(self, gateway_id: str, max_answer_bytes: int) -> None:
        self._replies = subjects.replies(gateway_id)
        self._client: Client | None = None
        self._listener: TransportListener | None = None
        self._outboxes: dict[str, Outbox] = {}
        self._replica_of: dict[int, str] = {}
        self._streams: set[int] = set()
        """Attempts whose answer is being streamed."""
        self._inbox = Inbox(max_answer_bytes)
        self._max_answer_bytes = max_answer_bytes
        self._wake = asyncio.Event()

    def listen(self, listener: TransportListener) -> None:
        """Report to this listener from now on."""
        self._listener = listener

    async def attach(self, client: Client) -> None:
        """Use this connection from now on."""
        await client.subscribe(self._replies, cb=self._on_message, pending_bytes_limit=MAX_UNREAD_BYTES)
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

    def send(self, replica_id: str, request: ReplicaRequest) -> None:
        """Implement ReplicaTransport."""
        self._replica_of[request.id] = replica_id
        self._outbox(replica_id).add(request)
        self._wake.set()

    def cancel(self, replica_id: str, id: int) -> None:
        """Implement ReplicaTransport."""
        self._replica_of.pop(id, None)
        self._streams.discard(id)
        self._inbox.forget(id)
        self._outbox(replica_id).cancel(id)
        self._wake.set()

    def acknowledge(self, replica_id: str, id: int, count: int) -> None:
        """Implement ReplicaTransport."""
        if id in self._replica_of:
            self._outbox(replica_id).acknowledge_answer(id, count)
            self._wake.set()

    def probe(self, replica_id: str) -> None:
        """Implement ReplicaTransport: an empty frame means nothing to an agent, and shows whether there is one."""
        self._outbox(replica_id).add_probe()
        self._wake.set()

    async def settle(self) -> None:
        """Implement ReplicaTransport."""
        client = self._client
        if client is None:
            return
        try:
            await client.flush(int(SETTLE_SECONDS))
        except (errors.Error, OSError, TimeoutError, ValueError):
            return
        # The answers have been read; this lets the subscription's task hand them on.
        await asyncio.sleep(0)

    async def run(self) -> None:
        """Send what is handed over, for ever."""
        while True:
            await self._wake.wait()
            # Clear before sending: what is handed over meanwhile must wake us again.
            self._wake.clear()
            for replica_id, outbox in list(self._outboxes.items()):
                await self._send_from(replica_id, outbox)

    async def _send_from(self, replica_id: str, outbox: Outbox) -> None:
        while (frame := outbox.take_short()) is not None:
            await self._publish(replica_id, frame)
        if outbox.has_piece:
            if self._client is not None and self._client.pending_data_size > MAX_UNSENT_BYTES:
                await asyncio.sleep(BACK_PRESSURE_SECONDS)
            elif (frame := outbox.take_piece()) is not None:
                await self._publish(replica_id, frame)
            # One piece per round: short requests, to this replica and others, go in between.
            self._wake.set()
        elif outbox.empty and self._outboxes.get(replica_id) is outbox:
            del self._outboxes[replica_id]

    async def _publish(self, replica_id: str, frame: Frame) -> None:
        client = self._client
        if client is None:
            return
        headers = None if frame.traceparent is None else {"traceparent": frame.traceparent}
        try:
            await client.publish(subjects.infer(replica_id), frame.payload, self._replies, headers)
        except (errors.Error, OSError) as error:
            # Lost connections are reported by connection_lost(); anything else must not end this loop.
            log.warning("frame_not_sent", replica_id=replica_id, error=repr(error))

    async def _on_message(self, message: Msg) -> None:
        if message.headers:
            self._on_status(message.headers)
            return
        try:
            for record in frames.decode(message.data):
                self._on_record(record)
        except (frames.FrameError, ValueError, TypeError, AttributeError) as error:
            log.error("frame_not_understood", error=repr(error), bytes=len(message.data))

    def _on_status(self, headers: dict[str, str]) -> None:
        subject = headers.get("Nats-Subject", "")
        if (
            headers.get("Status") == "503"
            and subject.startswith(_INFER_PREFIX)
            and self._listener is not None
        ):
            self._listener.on_gone(subject.removeprefix(_INFER_PREFIX))

    def _on_record(self, record: frames.Record) -> None:
        kind, attempt, head = record.kind, record.id, record.head
        replica_id, listener = self._replica_of.get(attempt), self._listener
        if replica_id is None or listener is None:
            return
        if kind == frames.ACCEPT:
            listener.on_accept(attempt)
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
            self._wake.set()
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
        if outcome is None:
            self._outbox(replica_id).acknowledge_answer(record.id, len(record.body))
            self._wake.set()
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

    def _outbox(self, replica_id: str) -> Outbox:
        outbox = self._outboxes.get(replica_id)
        if outbox is None:
            outbox = self._outboxes[replica_id] = Outbox()
        return outbox
