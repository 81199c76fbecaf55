"""How much memory a replica in a container has, by its ``workload_type``; a model is verified with as much. Pure."""

GIB = 1024**3
MEMORY_BY_WORKLOAD_TYPE = {"CPU": 4 * GIB, "CPU_MEDIUM": 8 * GIB, "CPU_LARGE": 16 * GIB}
"""As Databricks' documentation has it for what serves four requests at a time. Smallest first."""
WORKER_BYTES = 256 * 1024**2
"""What the worker itself may need beside the model."""
LEAST_MODEL_BYTES = 512 * 1024**2


def memory_of(workload_type: str, machine_bytes: int) -> int:
    """Return the bytes a replica may hold: never more than nine tenths of what there is."""
    return min(MEMORY_BY_WORKLOAD_TYPE.get(workload_type, 4 * GIB), machine_bytes * 9 // 10)


def model_memory_of(replica_bytes: int) -> int:
    """Return what of a replica's memory its model's process may use."""
    return max(replica_bytes - WORKER_BYTES, LEAST_MODEL_BYTES)


def larger_than(replica_bytes: int, machine_bytes: int) -> str | None:
    """Return the smallest ``workload_type`` with more than ``replica_bytes`` on this machine; None: there is none."""
    return next(
        (name for name in MEMORY_BY_WORKLOAD_TYPE if memory_of(name, machine_bytes) > replica_bytes), None
    )
