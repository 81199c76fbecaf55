"""One accepted request."""

import math
import time
from dataclasses import dataclass, field

from servery_common.contracts import frames
from servery_worker.bodies import Incoming
from servery_worker.result_heads import JSON


@dataclass(slots=True, eq=False)
class Job:
    """From ACCEPT to RESULT or END. ``id`` is the gateway's, ``number`` the agent's own, unique over all gateways."""

    reply: str
    id: int
    content_type: str
    request_id: str
    traceparent: str
    deadline: float
    """Event-loop time."""
    incoming: Incoming
    number: int = 0
    accepted_ns: int = field(default_factory=time.time_ns)
    limit: set["Job"] | None = None
    """Where its deadline stands in a ``TimerWheel``."""
    accepted: bool = False
    """Its gateway will hear that it was taken, whatever happens here."""
    running: bool = False
    """The runner has it."""
    overdue: bool = False
    cancelled: bool = False
    streaming: bool = False
    """Its RESULT has begun; CHUNKs and an END are to come."""
    unacknowledged: int = 0
    """Bytes of its stream that the gateway has not taken in."""
    stream_seconds: float = math.inf
    """Longest its answer may be streamed."""
    stream_ends_at: float = math.inf
    """Event-loop time, once it is streaming, as ``moved_at``."""
    moved_at: float = 0.0
    """When the model last made a piece."""

    @property
    def key(self) -> tuple[str, int]:
        """What the gateway calls it."""
        return self.reply, self.id


def from_record(record: frames.Record, reply: str, deadline: float) -> Job:
    """Make a job of a REQUEST record. Raises FrameError."""
    head = record.head
    total = head.get("total", len(record.body))
    if not isinstance(total, int):
        raise frames.FrameError("a total that is no number")
    return Job(
        reply=reply,
        id=record.id,
        content_type=str(head.get("ct") or JSON),
        request_id=str(head.get("rid") or ""),
        traceparent=str(head.get("tp") or ""),
        deadline=deadline,
        incoming=Incoming(total, record.body),
        stream_seconds=float(head.get("stream_ttl", math.inf)) / 1000,
    )
