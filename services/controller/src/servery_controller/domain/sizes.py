"""Workload sizes: from what a person asks for to numbers of replicas.

One unit of provisioned concurrency is one request worked on at a time. A replica has
``SLOTS_PER_REPLICA`` of them, so Small (4 units) is one replica, Medium (8 to 16) two to four and Large
(16 to 64) four to sixteen.
"""

from dataclasses import dataclass

SLOTS_PER_REPLICA = 4

WORKLOAD_SIZES: dict[str, tuple[int, int]] = {"Small": (4, 4), "Medium": (8, 16), "Large": (16, 64)}
"""Provisioned concurrency, lowest and highest, per ``workload_size``."""

WORKLOAD_TYPES = (
    "CPU",
    "CPU_MEDIUM",
    "CPU_LARGE",
    "GPU_SMALL",
    "GPU_MEDIUM",
    "GPU_LARGE",
    "GPU_XLARGE",
    "GPU_XLARGE_8",
    "MULTIGPU_MEDIUM",
)

SUPPORTED_WORKLOAD_TYPES = tuple(t for t in WORKLOAD_TYPES if "GPU" not in t)
"""Those that this installation can run."""

DEFAULT_WORKLOAD_SIZE = "Small"


@dataclass(frozen=True, slots=True)
class ReplicaRange:
    """Fewest and most replicas."""

    low: int
    high: int


def replica_range(
    workload_size: str | None, low: int | None, high: int | None, *, scale_to_zero: bool
) -> ReplicaRange:
    """Return the replicas for a workload size, or for a pair of provisioned concurrencies.

    A concurrency that is not a multiple of SLOTS_PER_REPLICA is rounded up to whole replicas.
    """
    if low is None or high is None:
        low, high = WORKLOAD_SIZES[workload_size or DEFAULT_WORKLOAD_SIZE]
    most = max(1, -(-high // SLOTS_PER_REPLICA))
    least = 0 if scale_to_zero else max(1, -(-low // SLOTS_PER_REPLICA))
    return ReplicaRange(low=min(least, most), high=most)
