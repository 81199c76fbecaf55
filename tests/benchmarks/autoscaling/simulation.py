"""Replicas with slots, one first-in-first-out queue, and a policy that is asked how many replicas there should be.

Time goes in steps. In each: replicas that have started become ready, requests that are done leave, requests of the step
arrive, and those that waited longest get the free slots. Who waited how long follows exactly from the counts, because
the queue keeps the order of arrival: the request that is started as the n-th arrived as the n-th. Request n also takes
the same time whatever the policy, so that policies are compared on the very same requests.

Any free slot serves any request, as behind one gateway. A replica that is taken away takes nothing new and is paid for
until its last request is done. Which of the requests under way were its own is drawn by lot: the slots are alike.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

STEP = 0.05
"""Seconds. Service times are rounded to steps by chance, so that their mean stays."""
STEPS_PER_SECOND = round(1 / STEP)


@dataclass(frozen=True)
class Workload:
    """Requests as they come, and the replicas they meet. The same for every policy."""

    arrivals: NDArray[np.int64]
    """In each step."""
    services: NDArray[np.int64]
    """Of each request in the order of arrival, in steps."""
    startups: NDArray[np.int64]
    """Of the replicas in the order in which they are asked for, in steps; used again from the beginning."""
    slots: int = 4
    bound: float = 0.5
    """Seconds a request may wait for a slot: longer violates the objective."""
    max_replicas: int = 2000
    min_replicas: int = 1
    initial_replicas: int = 1


class Second(NamedTuple):
    """What a policy is told after each second."""

    now: float
    running: float
    """Mean over the second, as a gateway reports it."""
    waiting: float
    ended: int
    service_seconds: float
    """Mean of those that ended; 0 when none did."""
    ready: int
    desired: int
    startup_seconds: float
    """As seen so far."""


Policy = Callable[[Second], int]
"""Returns how many replicas there should be."""


@dataclass
class Result:
    """What became of one workload under one policy."""

    requests: int
    waited_seconds: float
    """Request-seconds in the queue."""
    violations: int
    """Requests that waited longer than the bound."""
    replica_seconds: float
    """Paid: starting, ready and draining."""
    completed: int
    in_service_seconds: float
    """Request-seconds in slots."""
    left_waiting: int
    left_running: int
    seconds: list[Second] = field(default_factory=list[Second])


def simulate(workload: Workload, policy: Policy, seed: int = 0) -> Result:
    """Let the requests come, and ask the policy each second. All are waited for that still run at the end."""
    replicas = _Replicas(workload, seed)
    arrivals: list[int] = workload.arrivals.tolist()
    arrived: list[int] = np.concatenate(([0], np.cumsum(workload.arrivals))).tolist()
    services: list[int] = workload.services.tolist()
    bound = round(workload.bound / STEP)
    leaving, size = replicas.leaving, len(replicas.leaving)
    # The service time of a request that is done, in steps, summed by the step in which it is done.
    worked = [0] * size
    started = waited = violations = completed = in_slots = busy = 0
    area_busy = area_waiting = ended = ended_steps = 0
    startup_seconds = 2.0
    seconds: list[Second] = []
    paid = 0
    for step in range(len(arrivals)):
        place = step % size
        # Those of replicas that are being drained count as running, and hold no slot of the others.
        done = leaving[place]
        if done:
            leaving[place] = 0
            busy -= done
            completed += done
            ended += done
        ended_steps += worked[place]
        worked[place] = 0
        drained = replicas.step(step)
        completed += drained
        ended += drained
        free = replicas.ready * workload.slots - busy
        start = min(free, arrived[step + 1] - started)
        if start > 0:
            late = arrived[max(0, step - bound)]
            if late > started:
                violations += min(late, started + start) - started
            for steps in services[started : started + start]:
                if steps:
                    at = (step + steps) % size
                    leaving[at] += 1
                    worked[at] += steps
                    busy += 1
                else:
                    completed += 1
                    ended += 1
            started += start
        queue = arrived[step + 1] - started
        running = busy + replicas.draining_requests
        waited += queue
        in_slots += running
        area_busy += running
        area_waiting += queue
        paid += replicas.paid
        if (step + 1) % STEPS_PER_SECOND == 0:
            if replicas.startup_seconds:
                startup_seconds += 0.3 * (replicas.startup_seconds - startup_seconds)
                replicas.startup_seconds = 0.0
            second = Second(
                now=(step + 1) * STEP,
                running=area_busy / STEPS_PER_SECOND,
                waiting=area_waiting / STEPS_PER_SECOND,
                ended=ended,
                service_seconds=ended_steps * STEP / ended if ended else 0.0,
                ready=replicas.ready,
                desired=replicas.desired,
                startup_seconds=startup_seconds,
            )
            seconds.append(second)
            area_busy = area_waiting = ended = ended_steps = 0
            wanted = min(max(policy(second), workload.min_replicas), workload.max_replicas)
            busy -= replicas.want(wanted, step, busy)
    still = arrived[-1] - started
    late = arrived[max(0, len(arrivals) - 1 - bound)]
    violations += max(0, late - started)
    return Result(
        requests=arrived[-1],
        waited_seconds=waited * STEP,
        violations=violations,
        replica_seconds=paid * STEP,
        completed=completed,
        in_service_seconds=in_slots * STEP,
        left_waiting=still,
        left_running=busy + replicas.draining_requests,
        seconds=seconds,
    )


class _Replicas:
    """Those that start, are ready, and are drained."""

    def __init__(self, workload: Workload, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._slots = workload.slots
        self._startups: list[int] = workload.startups.tolist()
        self._asked = 0
        longest = int(workload.services.max(initial=1))
        self.leaving = [0] * (longest + 2)
        """Requests in slots of ready replicas by the step they are done in, round and round."""
        self._drained_requests = [0] * (longest + 2)
        self._drained_replicas = [0] * (longest + 2)
        self.ready = workload.initial_replicas
        self._starting: list[tuple[int, int]] = []
        """Step in which each is ready, and in which it was asked for."""
        self._draining = 0
        self.draining_requests = 0
        self.startup_seconds = 0.0
        """Of those that became ready, until somebody takes note."""

    @property
    def desired(self) -> int:
        return self.ready + len(self._starting)

    @property
    def paid(self) -> int:
        return self.ready + len(self._starting) + self._draining

    def step(self, step: int) -> int:
        """Let time pass; return how many requests of replicas that are drained are done."""
        if self._starting and self._starting[0][0] <= step:
            came = [asked for at, asked in self._starting if at <= step]
            self._starting = self._starting[len(came) :]
            self.ready += len(came)
            self.startup_seconds = (step - came[-1]) * STEP
        place = step % len(self._drained_requests)
        done = self._drained_requests[place]
        if self._draining:
            self._draining -= self._drained_replicas[place]
            self._drained_replicas[place] = 0
            self.draining_requests -= done
            self._drained_requests[place] = 0
        return done

    def want(self, wanted: int, step: int, busy: int) -> int:
        """Start or take away; return how many requests under way are now those of replicas that are drained."""
        if wanted > self.desired:
            for _ in range(wanted - self.desired):
                startup = self._startups[self._asked % len(self._startups)]
                self._asked += 1
                self._starting.append((step + 1 + startup, step + 1))
            self._starting.sort()
            return 0
        # Those that are not ready yet go first: nobody would miss them.
        surplus = self.desired - wanted
        kept = max(0, len(self._starting) - surplus)
        surplus -= len(self._starting) - kept
        self._starting = self._starting[:kept]
        return self._drain(surplus, step, busy) if surplus else 0

    def _drain(self, count: int, step: int, busy: int) -> int:
        """Slots are alike: each of all slots holds each of the requests under way as likely as any other."""
        size = len(self.leaving)
        ends = [at - step for at in range(step + 1, step + size) for _ in range(self.leaving[at % size])]
        assert len(ends) == busy
        places = self._random.permutation(self.ready * self._slots)[:busy]
        last: dict[int, int] = {}
        moved = 0
        for place, steps in zip(places.tolist(), ends, strict=True):
            replica = place // self._slots
            if replica < count:
                at = (step + steps) % size
                self.leaving[at] -= 1
                self._drained_requests[at] += 1
                last[replica] = max(last.get(replica, 0), steps)
                moved += 1
        for steps in last.values():
            self._drained_replicas[(step + steps) % size] += 1
        self._draining += len(last)
        self.draining_requests += moved
        self.ready -= count
        return moved


def rounded(seconds: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.int64]:
    """Return times in steps, up or down by chance, so that the mean stays."""
    steps = seconds / STEP
    return (np.floor(steps) + (random.random(len(steps)) < steps % 1)).astype(np.int64)
