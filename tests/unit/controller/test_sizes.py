import pytest

from servery_controller.domain.sizes import ReplicaRange, replica_range


@pytest.mark.parametrize(
    ("size", "low", "high", "zero", "expected"),
    [
        (None, None, None, False, ReplicaRange(1, 1)),
        ("Small", None, None, False, ReplicaRange(1, 1)),
        ("Small", None, None, True, ReplicaRange(0, 1)),
        ("Medium", None, None, False, ReplicaRange(2, 4)),
        ("Large", None, None, False, ReplicaRange(4, 16)),
        (None, 4, 12, False, ReplicaRange(1, 3)),
        (None, 1, 5, False, ReplicaRange(1, 2)),
        (None, 0, 4, False, ReplicaRange(1, 1)),
    ],
)
def test_sizes_become_replicas(size, low, high, zero, expected):
    assert replica_range(size, low, high, scale_to_zero=zero) == expected
