"""A small gateway: frames to one replica and back, as ``contracts.frames`` describes."""

import asyncio
import itertools
import json
import uuid
from dataclasses import dataclass, field
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from servery_common.contracts import frames, subjects


@dataclass
class Call:
    """One request and what came back for it."""

    body: bytes
    sent: int = 0
    acknowledged: int = 0
    accepted: asyncio.Event = field(default_factory=asyncio.Event)
    refused: str | None = None
    head: dict[str, Any] = field(default_factory=dict)
    answer: bytearray = field(default_factory=bytearray)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    streaming: bool = False
    takes: bool = True
    """Whether what is streamed is acknowledged, as it is for a client that reads."""
    end: dict[str, Any] | None = None
    """Head of the END record."""
    failure: bytes = b""
    """Body of the END record."""
    came: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by each record of a stream."""

    @property
    def events(self) -> list[Any]:
        """The items streamed so far."""
        whole = bytes(self.answer).split(b"\n\n")[:-1]
        return [json.loads(event.removeprefix(b"data: ")) for event in whole]

    async def streamed(self, count: int) -> None:
        """Wait until so many items have come."""
        while len(self.events) < count:
            self.came.clear()
            await asyncio.wait_for(self.came.wait(), 20)

    @property
    def status(self) -> int:
        return self.head.get("status", 200)

    @property
    def content_type(self) -> str:
        return self.head.get("ct", "application/json")

    @property
    def json(self) -> Any:
        return json.loads(self.answer)


class ScoringClient:
    """Sends requests to replicas and collects their answers."""

    def __init__(self, nats: Client, replica_id: str = "any") -> None:
        """``replica_id``: the one whose credentials allow it to answer this client."""
        self._nats = nats
        self._reply = subjects.replies(uuid.uuid4().hex, replica_id)
        self._ids = itertools.count(1)
        self._numbers = itertools.count(1)
        self._calls: dict[int, tuple[str, Call]] = {}

    async def start(self) -> "ScoringClient":
        await self._nats.subscribe(self._reply, cb=self._on_message)
        return self

    async def send(self, replica_id: str, body: bytes, *, ttl: int = 30_000, **head: Any) -> tuple[int, Call]:
        """Send a request; does not wait for anything."""
        number, call = next(self._ids), Call(body)
        self._calls[number] = replica_id, call
        first = body[: frames.CHUNK_BYTES]
        call.sent = len(first)
        head = {"ct": "application/json", "ttl": ttl, "rid": f"request-{number}", "total": len(body)} | head
        await self._publish(replica_id, frames.encode(frames.REQUEST, number, head, first))
        await self._send_rest(number)
        return number, call

    async def ask(self, replica_id: str, do: str, *, within: float = 20.0, **options: Any) -> Call:
        """Have the obedient model do something and return the finished call."""
        _, call = await self.send(replica_id, do_body(do), **options)
        await asyncio.wait_for(call.done.wait(), within)
        return call

    async def cancel(self, id: int) -> None:
        await self._publish(self._calls[id][0], frames.encode(frames.CANCEL, id))

    async def _send_rest(self, id: int) -> None:
        replica_id, call = self._calls[id]
        while call.sent < len(call.body) and call.sent - call.acknowledged < frames.WINDOW_BYTES:
            piece = call.body[call.sent : call.sent + frames.CHUNK_BYTES]
            call.sent += len(piece)
            await self._publish(replica_id, frames.encode(frames.CHUNK, id, self._numbered(), piece))

    async def _publish(self, replica_id: str, frame: bytes) -> None:
        await self._nats.publish(subjects.infer(replica_id), frame, reply=self._reply)

    async def _on_message(self, message: Msg) -> None:
        for record in frames.decode(message.data):
            if record.kind == frames.ACCEPT:
                for accepted in frames.accepted_ids(record.body):
                    self._calls[accepted][1].accepted.set()
                continue
            replica_id, call = self._calls[record.id]
            if record.kind == frames.REFUSE:
                call.refused = record.head["reason"]
                call.done.set()
            elif record.kind == frames.WINDOW:
                call.acknowledged += record.head["bytes"]
                await self._send_rest(record.id)
            elif call.streaming or record.flags & frames.STREAM:
                await self._on_stream(replica_id, call, record)
            else:
                call.head |= record.head
                call.answer += record.body
                if "total" in call.head:
                    await self.take(record.id, len(record.body))
                if len(call.answer) == call.head.get("total", len(call.answer)):
                    call.done.set()

    async def _on_stream(self, replica_id: str, call: Call, record: frames.Record) -> None:
        if record.kind == frames.RESULT:
            call.streaming = True
            call.head |= record.head
        elif record.kind == frames.CHUNK:
            call.answer += record.body
            if call.takes:
                await self.take(record.id, len(record.body))
        elif record.kind == frames.END:
            call.end, call.failure = record.head, bytes(record.body)
            call.done.set()
        call.came.set()

    async def take(self, id: int, count: int) -> None:
        """Acknowledge bytes of a stream."""
        head = self._numbered(bytes=count)
        await self._publish(self._calls[id][0], frames.encode(frames.WINDOW, id, head))

    def _numbered(self, **head: int) -> dict[str, int]:
        return {**head, "n": next(self._numbers)}


def do_body(do: str) -> bytes:
    return json.dumps({"dataframe_split": {"columns": ["do"], "data": [[do]]}}).encode()
