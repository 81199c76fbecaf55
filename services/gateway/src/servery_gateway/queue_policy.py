"""Decide on arrival whether a request may wait for a slot. Pure: the time is an argument.

A request is refused when it comes or not at all. One that is let in and times out in the queue has cost its client the
whole wait and the endpoint the room of one that could have been served.

How long it would wait
----------------------
By Little's law requests leave at the rate (requests in slots) / (mean time in a slot), whatever the model does: work on
four at a time, batch a hundred, or share its replicas with other gateways. Both are seen here, so that no configured
rate is needed, and the wait is (requests waiting, and one more) / (that rate). Before anything was answered it is not
known, and only the bounds in number and bytes hold.

How long it may wait
--------------------
A queue is there for bursts. As long as it does its work, a request may wait ``max_wait``, and never so long that the
deadline would pass before it is answered. In overload, when requests come faster than they leave, a long queue helps
nobody: it stays as long as it is, and all that are let in wait it through ("Controlling Queue Delay", Nichols and
Jacobson 2012; "Fail at Scale", Maurer 2015). Then a request may wait about as long as it will be worked on: enough that
no slot is ever idle, short enough that who is let in hardly notices.

CoDel calls it overload when a queue was not empty for an interval. Its senders slow down when they lose a packet;
those of an endpoint are often a fixed number of clients, each waiting for its answer, whose queue stands for ever and
never grows. As long as they fit into the queue none of them needs to be refused, however they began. So it is overload
when the queue's bound was reached. It is over when for five intervals no more came than could leave, or when for one
nobody had to wait, as when nobody came.
"""

from math import ceil
from typing import NamedTuple

from servery_gateway.rejections import Reason

MIN_INTERVAL = 0.1
"""Seconds, as in CoDel: long enough to see more than one round trip."""
SERVICE_TIMES_PER_INTERVAL = 4
ANSWERS_PER_INTERVAL = 16
"""A slow model is given time for so many answers before anything is concluded from them: of fewer, chance would."""
EXCESS = 1.1
"""So many times what left may come in an interval, and one for each slot: answers of a batch leave together."""
INTERVALS_TO_LEAVE = 5
"""Longer than chance makes an overload look like none."""
SERVICE_TIMES_IN_OVERLOAD = 1.1
"""What may be waited in overload, in mean times in a slot. With one it would be a coin's toss, at each request, whether
as many may wait as there are slots."""
CALM_TIMES_IN_OVERLOAD = 2.1
"""What a request may take in overload, from its arrival to its answer, in mean times in a slot when nobody waits. With
more slots than it works on at once a replica has a queue of its own, and a second one on top of it helps nobody."""
MIN_WAIT_IN_OVERLOAD = 0.005
"""Seconds, CoDel's target. The queue must never run empty between an answer and the next request: slots that stay full
keep a replica as fast as it can be, also one that batches."""
MEMORY = 32
"""The mean time in a slot is one of about so many requests, or of one round of all slots."""
CALM_MEMORIES = 10
"""So many times longer is remembered how it is when nobody waits, so that it does not change before an overload is
noticed."""
MAX_RETRY_AFTER = 60
COLD_RETRY_AFTER = 5
"""Seconds, when it is not known how long the first replica will take: of the size of a start."""


class Refusal(NamedTuple):
    """Why a request may not wait, and in how many seconds it is worth trying again."""

    reason: Reason
    retry_after: int


def queue_bound(max_queued: int, declared_slots: int, ready_slots: int) -> int:
    """Return how many requests may wait at an endpoint.

    ``max_queued`` was made for the slots that were declared, some requests for each. Replicas that batch take more at
    once, and so many more may wait for them; without any replica the first ones may.
    """
    return ceil(max_queued * max(1.0, ready_slots / max(1, declared_slots)))


class QueuePolicy:
    """Watches the requests of one served entity and judges those that would have to wait."""

    __slots__ = (
        "_arrived",
        "_busiest",
        "_calm",
        "_calm_time",
        "_ends",
        "_left",
        "_length",
        "_measured",
        "_waiting",
        "overloaded",
        "service_time",
        "slots",
    )

    def __init__(self, now: float, slots: int) -> None:
        self.slots = slots
        """Of all replicas; kept up to date by the owner."""
        self.overloaded = False
        self.service_time: float | None = None
        """Mean seconds in a slot; None before the first answer."""
        self._measured = 0
        self._calm_time: float | None = None
        """The same of times when nobody waited."""
        self._length = MIN_INTERVAL
        self._ends = now + MIN_INTERVAL
        self._busiest = 0
        """Requests in slots, at most, when one came that had to wait."""
        self._arrived = 0
        self._left = 0
        self._waiting = 0
        """Requests that waited when somebody came or left last, without the one that came."""
        self._calm = 0

    def arrived(self, now: float) -> None:
        """A request came, whatever becomes of it."""
        if now >= self._ends:
            self._conclude(now)
        self._arrived += 1

    def left(self, now: float, seconds: float, waiting: int) -> None:
        """A request has left its slot after so many seconds, and so many wait for one."""
        if now >= self._ends:
            self._conclude(now)
        self._left += 1
        self._waiting = waiting
        self._measured += 1
        memory = max(MEMORY, self.slots)
        self.service_time = _moved(self.service_time, seconds, min(self._measured, memory))
        if waiting == 0 and not self.overloaded:
            self._calm_time = _moved(self._calm_time, seconds, min(self._measured, CALM_MEMORIES * memory))

    def wait(self, waiting: int, in_slots: int) -> float | None:
        """Return how many seconds a request would wait behind ``waiting`` others; None when that is not known."""
        if self.service_time is None or in_slots == 0:
            return None
        return (waiting + 1) * self.service_time / in_slots

    def judge(
        self, now: float, *, waiting: int, in_slots: int, deadline: float, max_wait: float
    ) -> Refusal | None:
        """Return why a request that came now may not wait behind ``waiting`` others, or None when it may."""
        if now >= self._ends:
            self._conclude(now)
        self._busiest = max(self._busiest, in_slots)
        self._waiting = waiting
        wait = self.wait(waiting, in_slots)
        if wait is None or self.service_time is None:
            return None
        allowed = min(max_wait, deadline - now - self.service_time)
        if self.overloaded:
            in_overload = max(MIN_WAIT_IN_OVERLOAD, self._wait_in_overload(self.service_time))
            allowed = min(allowed, in_overload + self.service_time / in_slots)
        if wait <= allowed:
            return None
        return Refusal("queue_wait", _seconds(wait))

    def full(self, waiting: int, in_slots: int, *, cold: bool = False) -> Refusal:
        """The endpoint's queue has reached a bound: that is overload, too.

        Not so when it is ``cold``, full of what waited for a first replica: that says nothing of how fast it drains.
        """
        wait = self.wait(waiting, in_slots)
        if cold:
            return Refusal("queue_full", COLD_RETRY_AFTER if wait is None else _seconds(wait))
        self.overloaded = True
        self._calm = 0
        return Refusal("queue_full", _seconds(wait))

    def _wait_in_overload(self, service_time: float) -> float:
        allowed = SERVICE_TIMES_IN_OVERLOAD * service_time
        if self._calm_time is None:
            return allowed
        return min(allowed, CALM_TIMES_IN_OVERLOAD * self._calm_time - service_time)

    def _conclude(self, now: float) -> None:
        """An interval has ended: was it one of overload?"""
        # What is refused does not leave: compared with that, an overload would last as long as it is fought.
        capacity = self._busiest * self._length / self.service_time if self.service_time else 0.0
        if self._arrived > EXCESS * max(capacity, self._left) + self.slots:
            self._calm = 0
        else:
            self._calm = INTERVALS_TO_LEAVE if self._busiest == 0 else self._calm + 1
        if now >= self._ends + self._length and not self._waiting:
            # For a whole interval since nobody had to wait, as nobody came, and nobody waits from before.
            self._calm = INTERVALS_TO_LEAVE
        if self._calm >= INTERVALS_TO_LEAVE:
            self.overloaded = False
        self._arrived = self._left = self._busiest = 0
        rounds = max(SERVICE_TIMES_PER_INTERVAL, ANSWERS_PER_INTERVAL / max(1, self.slots))
        self._length = max(MIN_INTERVAL, rounds * (self.service_time or 0.0))
        self._ends = now + self._length


def _moved(mean: float | None, value: float, memory: int) -> float:
    """Return the mean after another value."""
    return value if mean is None else mean + (value - mean) / memory


def _seconds(wait: float | None) -> int:
    """The whole queue will have been served by then."""
    return 1 if wait is None else min(MAX_RETRY_AFTER, max(1, ceil(wait)))
