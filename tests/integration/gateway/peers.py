"""The other ends of the gateway: replicas that speak scoring frames, and what a controller publishes."""

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from nats.aio.client import Client
from nats.aio.msg import Msg
from tests.nats_clients import settle

from servery_common.contracts import frames, subjects
from servery_common.contracts.access import Identity, TokenGrant
from servery_common.contracts.routes import EndpointRoute, ReplicaRoute, ServedEntityRoute


@dataclass
class Work:
    """One request as a replica sees it."""

    id: int
    reply: str
    head: dict
    body: bytearray = field(default_factory=bytearray)
    cancelled: bool = False
    nats_headers: dict | None = None


def _is_stale(head: dict) -> bool:
    """As for an agent: the gateway has waited long enough, and given it to another replica."""
    return time.time() * 1000 - head["at"] > frames.ACCEPT_WITHIN_MS


async def echo(work: Work) -> tuple[int, bytes]:
    return 200, bytes(work.body)


class FakeReplica:
    """An agent with its model: accepts at once, then runs ``model`` in a task of its own."""

    def __init__(
        self, client: Client, replica_id: str, model: Callable[[Work], Awaitable[tuple]] = echo
    ) -> None:
        self.client = client
        self.replica_id = replica_id
        self.model = model
        self.refuse: str | None = None
        self.silent = False
        """Reads, but neither accepts nor runs."""
        self.withheld: list[tuple[str, bytes]] | None = None
        """WINDOW records not sent: give it a list to hold the sender of a long body up."""
        self.messages = 0
        self.ran: list[str] = []
        """Request ids the model was given, in order."""
        self.cancels: list[int] = []
        self.work: dict[int, Work] = {}
        self.windows: dict[int, asyncio.Event] = {}
        self.unacknowledged: dict[int, int] = {}
        self._tasks: set[asyncio.Task] = set()

    async def start(self) -> "FakeReplica":
        self._subscription = await self.client.subscribe(subjects.infer(self.replica_id), cb=self._on_message)
        await settle(self.client)
        return self

    async def stop(self) -> None:
        await self._subscription.unsubscribe()
        await self.client.flush()

    def route(self, slots: int = 4) -> ReplicaRoute:
        return ReplicaRoute(replica_id=self.replica_id, slots=slots)

    async def send(self, reply: str, *records: bytes) -> None:
        await self.client.publish(reply, b"".join(records))

    async def _on_message(self, message: Msg) -> None:
        self.messages += 1
        out = []
        for kind, work_id, head, body, _ in frames.decode(message.data):
            if kind == frames.REQUEST:
                if self.silent:
                    continue
                if self.refuse or _is_stale(head):
                    out.append(frames.encode(frames.REFUSE, work_id, {"reason": self.refuse or "expired"}))
                    continue
                self.work[work_id] = Work(work_id, message.reply, head, nats_headers=message.headers)
                out.append(frames.accepted([work_id]))
                out += self._take(work_id, body)
            elif kind == frames.CHUNK and work_id in self.work:
                out += self._take(work_id, body)
            elif kind == frames.CANCEL:
                self.cancels.append(work_id)
                if work_id in self.work:
                    self.work[work_id].cancelled = True
            elif kind == frames.WINDOW and work_id in self.windows:
                self.unacknowledged[work_id] -= head["bytes"]
                self.windows[work_id].set()
        if out:
            await self.send(message.reply, *out)

    def _take(self, id: int, piece) -> list[bytes]:
        work = self.work[id]
        work.body += piece
        total = work.head.get("total", len(work.body))
        if len(work.body) == total:
            self.ran.append(work.head["rid"])
            task = asyncio.ensure_future(self._run(work))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if len(piece) == total:
            return []
        window = frames.encode(frames.WINDOW, id, {"bytes": len(piece)})
        if self.withheld is not None:
            self.withheld.append((work.reply, window))
            return []
        return [window]

    async def release_windows(self) -> None:
        held, self.withheld = self.withheld or [], None
        for reply, window in held:
            await self.send(reply, window)

    async def _run(self, work: Work) -> None:
        status, body, *extra = await self.model(work)
        head = {"status": status, "ct": "application/json", **(extra[0] if extra else {})}
        self.work.pop(work.id, None)
        if len(body) <= frames.CHUNK_BYTES:
            await self.send(work.reply, frames.encode(frames.RESULT, work.id, head, body))
            return
        view = memoryview(body)
        self.unacknowledged[work.id] = 0
        self.windows[work.id] = asyncio.Event()
        for at in range(0, len(view), frames.CHUNK_BYTES):
            piece = view[at : at + frames.CHUNK_BYTES]
            while self.unacknowledged[work.id] + len(piece) > frames.WINDOW_BYTES:
                self.windows[work.id].clear()
                await asyncio.wait_for(self.windows[work.id].wait(), 10)
            self.unacknowledged[work.id] += len(piece)
            if at == 0:
                record = frames.encode(frames.RESULT, work.id, {**head, "total": len(body)}, piece)
            else:
                record = frames.encode(frames.CHUNK, work.id, None, piece)
            await self.send(work.reply, record)


def said(message: str, code: str) -> bytes:
    return json.dumps({"error_code": code, "message": message}).encode()


def entity(name: str, *replicas: ReplicaRoute, weight: int = 100) -> ServedEntityRoute:
    return ServedEntityRoute(
        served_entity_id=f"id{name}".replace("-", ""), name=name, traffic_percentage=weight, replicas=replicas
    )


def endpoint(name: str, *entities: ServedEntityRoute, created_at_ms: int = 1, **fields) -> EndpointRoute:
    endpoint_id = f"e{name}".replace("-", "")
    entities = tuple(
        one.model_copy(update={"served_entity_id": f"{endpoint_id}{one.served_entity_id}"})
        for one in entities
    )
    return EndpointRoute(
        **{
            "endpoint_id": endpoint_id,
            "workspace_id": "7",
            "name": name,
            "created_at_ms": created_at_ms,
            "status": "serving",
            "served_entities": entities,
            "query_grantees": ("user:ann",),
            **fields,
        }
    )


def identity(user_name: str = "ann", **fields) -> Identity:
    return Identity(
        **{"principal_id": f"p{user_name}", "user_name": user_name, "workspace_id": "7", **fields}
    )


def grant(token: str, user_name: str = "ann", expires_at_ms: int | None = None) -> TokenGrant:
    return TokenGrant(
        token_sha256=hashlib.sha256(token.encode()).hexdigest(),
        principal_id=f"p{user_name}",
        expires_at_ms=expires_at_ms,
    )


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of the next answer on a plain connection."""
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))
