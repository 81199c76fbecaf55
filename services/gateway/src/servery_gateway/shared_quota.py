"""One workspace's quota, divided among the gateways that its requests come to. Pure: time is an argument.

All gateways draw on one imaginary token bucket. About every ``ROUND`` each tells the others what it was asked for and
what it let in, so each knows the level of that bucket as it was a moment ago, and deals itself a part of it, and of
what flows in, for the time until the next round: the part that its own demand is of everybody's.

The level makes it exact. A part that was too large, because a gateway was not heard yet or has died, or whose
requests go elsewhere, is a debt, and one that was too small a credit, which the rounds that follow even out. So
demand may be a rough measure, and a message that was lost costs one round's error, once.
"""

from collections.abc import Collection
from math import ceil
from typing import NamedTuple

from servery_gateway.token_bucket import TokenBucket

ROUND = 0.1
"""Seconds between two reports."""
SILENCE = 0.5
"""Seconds after which a gateway that reported nothing more counts no longer: its part goes to the others."""
IDLE = 2.0
"""Seconds without a request after which a gateway reports nothing more, and forgets a workspace once its bucket is
full."""
BURST_SECONDS = 0.25
MIN_BURST = 10
DEBT_SECONDS = 2.0
"""More than what flows in within this time is never owed."""
_SMOOTHING = 0.5
"""How much of a measured demand is that of the last round."""
_CAUTION = 0.5
"""How much of a scarce level is dealt out: what others took since they last reported is not known yet, and as many as
there are would take it again, round after round."""
_NEGLIGIBLE = 0.01
"""Requests a round below which a demand is none."""


class Peer(NamedTuple):
    """What another gateway said last."""

    demand: float
    """Requests a second it was asked for, those it refused too."""
    level: float
    """Tokens of the common bucket, as it sees it."""
    heard_at: float


class Report(NamedTuple):
    """What the others are told."""

    demand: float
    admitted: int
    """Requests let in since the report before."""
    level: float


def burst_of(qps: int) -> float:
    """How many requests may come at once after a pause."""
    return max(float(MIN_BURST), qps * BURST_SECONDS)


def share_of(own: float, others: Collection[float]) -> float:
    """Return the part of a quota a gateway may deal out, by its own demand and that of the others.

    Never less than a quarter of an equal part, so that a demand that grows from little meets something. Without a
    demand of its own it is an equal part: who knows how much is about to come.
    """
    equal = 1 / (1 + len(others))
    if own <= 0:
        return equal
    return max(own / (own + sum(others)), equal / 4)


class SharedQuota:
    """The quota of one workspace in one gateway."""

    __slots__ = (
        "_admitted",
        "_arrived",
        "_arrived_at",
        "_bucket",
        "_demand",
        "_divided",
        "_elsewhere",
        "_level",
        "_peers",
        "_saved",
        "_settled_at",
        "qps",
    )

    def __init__(self, qps: int, now: float) -> None:
        self.qps = qps
        self._bucket = TokenBucket(float(qps), burst_of(qps), now)
        self._peers: dict[str, Peer] = {}
        self._level = burst_of(qps)
        self._settled_at = now
        self._demand = 0.0
        self._arrived = 0
        self._arrived_at = now - IDLE
        self._admitted = 0
        self._elsewhere = 0
        """Requests others let in since the last round."""
        self._divided = False
        """Whether the bucket holds a part only."""
        self._saved = 0.0

    def admit(self, now: float) -> bool:
        """Whether one more request may come in."""
        self._arrived += 1
        if not self._bucket.take(now):
            return False
        self._admitted += 1
        return True

    def give_back(self) -> None:
        """The request let in last was refused for another reason."""
        self._bucket.give_back()
        self._admitted -= 1

    def retry_after(self, now: float) -> int:
        """In how many whole seconds there is room again, as far as is known."""
        return max(1, ceil((1.0 - self._bucket.level(now)) / self.qps))

    def hear(self, gateway_id: str, report: Report, now: float) -> None:
        """Take in what another gateway reports."""
        known = self._peers or self._arrived or self._demand
        self._peers[gateway_id] = Peer(report.demand, report.level, now)
        if known:
            self._elsewhere += report.admitted
            return
        # Nothing came here lately: whoever speaks knows better how full the bucket is, but for what is still owed.
        self._level = min(self._level, report.level)
        self._divided = True
        self._deal(burst_of(self.qps), now)

    def settle(self, now: float, *, alone: bool) -> Report | None:
        """End a round: deal out anew and return what to report, None when there was nothing for long.

        ``alone``: nobody can be heard at present. Everybody goes on with the part dealt last.
        """
        elapsed = max(now - self._settled_at, 1e-6)
        self._settled_at = now
        if self._arrived:
            self._arrived_at = now
        if alone:
            self._peers = {name: peer._replace(heard_at=now) for name, peer in self._peers.items()}
            self._arrived = self._admitted = self._elsewhere = 0
            return None
        self._measure(elapsed)
        self._peers = {name: peer for name, peer in self._peers.items() if now - peer.heard_at < SILENCE}
        burst = burst_of(self.qps)
        self._level += self.qps * elapsed - self._admitted - self._elsewhere
        self._level = min(self._level, burst)
        if self._peers:
            self._agree()
        self._level = max(self._level, -self.qps * DEBT_SECONDS)
        if self._peers:
            self._deal(burst, now)
        elif self._divided:
            self._bucket.refill(self._level, float(self.qps), burst, now)
        else:
            self._level = self._bucket.level(now)
        self._divided = bool(self._peers)
        report = Report(self._demand, self._admitted, self._level)
        self._arrived = self._admitted = self._elsewhere = 0
        return report if now - self._arrived_at < IDLE else None

    def forgettable(self, now: float) -> bool:
        """Whether nothing is lost by beginning anew: nobody asks for anything, and the bucket is full again.

        It is within a time that is bounded: the burst and ``DEBT_SECONDS`` are all that can be missing.
        """
        if self._peers or self._divided or now - self._arrived_at < IDLE:
            return False
        return self._bucket.level(now) >= burst_of(self.qps)

    def _measure(self, elapsed: float) -> None:
        rate = self._arrived / max(elapsed, ROUND)
        if self._demand:
            self._demand += _SMOOTHING * (rate - self._demand)
        else:
            self._demand = rate
        if self._demand * ROUND < _NEGLIGIBLE:
            self._demand = 0.0

    def _agree(self) -> None:
        """Take the mean of everybody's level, by demand: it leaves the sum of what is dealt out as it is."""
        weight = self._demand + sum(peer.demand for peer in self._peers.values())
        if weight <= 0:
            return
        mean = self._level * self._demand + sum(peer.level * peer.demand for peer in self._peers.values())
        self._level += _SMOOTHING * (mean / weight - self._level)

    def _deal(self, burst: float, now: float) -> None:
        share = share_of(self._demand, [peer.demand for peer in self._peers.values()])
        if self._level > burst / 2:
            # Nobody is short: a gateway whose requests have just begun to come must not be, either. All together deal
            # out no more than twice what there is.
            part = self._level * max(share, min(0.5, 2 / (1 + len(self._peers))))
        else:
            part = self._level * share * _CAUTION
        # Parts of a small quota are less than a request: they are saved up until they make one.
        self._saved = (
            0.0 if self._admitted else min(1.0, self._saved + max(0.0, part + share * self.qps * ROUND))
        )
        if self._level >= 1.0:
            part = max(part, self._saved)
        self._bucket.refill(part, share * self.qps, max(share * burst, part, 1.0), now)
