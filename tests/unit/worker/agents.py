"""An agent of a replica between stand-ins: what it sends, and the runner it gives requests to."""

from collections.abc import Callable, Sequence
from typing import Any

from servery_common.contracts import frames
from servery_common.contracts.builds import Artifacts
from servery_common.contracts.replicas import ReplicaLaunch
from servery_worker.agent import Agent

LAUNCH = ReplicaLaunch(
    replica_id="r1",
    endpoint_id="e1",
    endpoint_name="iris",
    served_entity_id="s1",
    served_entity_name="iris-1",
    artifacts=Artifacts(model_path="m", environment_path="e", python="p", environment_key="k"),
    slots=2,
)


class Sent:
    """Stands in for Replies and keeps what was sent, decoded."""

    def __init__(self) -> None:
        self.records: list[tuple[str, frames.Record]] = []
        self.connected = True
        self.writes = True
        self.soon: list[bool] = []
        self.unwritten: list[Callable[[bool], None]] = []

    def send(self, subject: str, *record: bytes | memoryview) -> None:
        self.records += [(subject, one) for one in frames.decode(b"".join(record))]

    send_or_hold = send

    def accept(self, subject: str, id: int, then: Callable[[bool], None], *, soon: bool = True) -> None:
        self.soon.append(soon)
        self.records.append((subject, frames.Record(frames.ACCEPT, id, {}, b"")))
        if self.writes:
            then(self.connected)
        else:
            self.unwritten.append(then)

    def kinds(self) -> list[int]:
        return [record.kind for _, record in self.records]

    def results(self) -> list[tuple[int, int, bool]]:
        """Id, status, lost."""
        return [
            (record.id, record.head.get("status", 200), record.head.get("lost", False))
            for _, record in self.records
            if record.kind == frames.RESULT
        ]


class Begun(set[int]):
    """Stands in for a BegunTable."""

    has = set[int].__contains__
    is_predicted = has


class FakeRunner:
    """Stands in for a runner process and keeps what it was given."""

    def __init__(self) -> None:
        self.requests: list[tuple[int, tuple[float, str], bytes]] = []
        self.cancelled: list[int] = []
        self.windows: list[tuple[int, int]] = []
        self.flags: list[int] = []
        self.joined = 1
        self.begun = Begun()
        self.on_result: Any = None

    def request(self, id: int, order: bytes, body: Sequence[bytes | memoryview], flags: int = 0) -> None:
        self.requests.append((id, frames.unpack_order(order), b"".join(body)))
        self.flags.append(flags)

    def cancel(self, id: int) -> None:
        self.cancelled.append(id)

    def open_window(self, id: int, count: int) -> None:
        self.windows.append((id, count))

    def answer(self, number: int, status: int = 200, body: bytes = b"{}") -> None:
        self.say(frames.RESULT, number, {"status": status, "ct": "application/json"}, body)

    def begin(self, *numbers: int) -> None:
        self.begun |= set(numbers)

    def say(
        self, kind: int, number: int, head: dict[str, Any] | None, body: bytes = b"", flags: int = 0
    ) -> None:
        (record,) = frames.scan(frames.encode(kind, number, head, body, flags))
        self.on_result(record)


async def deliver(agent: Agent, *records: bytes, reply: str = "servery.replies.g1") -> None:
    agent.on_message(memoryview(b"".join(records)), reply, b"", b"servery.infer.r1")


def request(number: int, body: bytes = b"{}", **head: Any) -> bytes:
    return frames.encode(frames.REQUEST, number, {"ct": "application/json", "ttl": 60_000} | head, body)
