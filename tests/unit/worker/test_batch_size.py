import pytest

from servery_runner.batch_size import BatchSize


def seen(fixed: float, per_row: float, *, max_rows: int = 128, cpu: float = 1.0) -> BatchSize:
    size = BatchSize(max_rows)
    for rows in (1, 2, 4, 8, 16, 32, 64):
        seconds = fixed + per_row * rows
        size.record(rows, seconds, cpu)
    return size


def test_a_model_whose_rows_cost_next_to_nothing_gets_as_many_as_may_be():
    assert seen(0.002, 0.000_002).limit == 128


def test_a_model_whose_time_is_all_in_the_rows_gets_them_one_by_one():
    assert seen(0.0, 0.05).limit == 1


@pytest.mark.parametrize(("fixed", "per_row", "limit"), [(0.02, 0.01, 8), (0.01, 0.001, 40)])
def test_rows_are_joined_until_they_take_a_few_times_what_is_spared(fixed: float, per_row: float, limit: int):
    assert seen(fixed, per_row).limit == pytest.approx(limit, abs=1)


def test_what_was_never_tried_is_approached_by_doubling():
    size, limits = BatchSize(128), []
    for _ in range(8):
        limits.append(size.limit)
        size.record(size.limit, 0.002)
    assert limits == [2, 4, 8, 16, 32, 64, 128, 128]


def test_a_model_that_becomes_slow_is_noticed():
    size = seen(0.002, 0.000_002)
    for _ in range(200):
        for rows in (1, size.limit):
            size.record(rows, 0.05 * rows)
    assert size.limit == 1


def test_a_model_that_waits_for_something_else_is_told_from_one_that_computes():
    assert not seen(0.02, 0.0).waits
    size = seen(0.02, 0.0, cpu=0.01)
    for _ in range(5):
        size.record(1, 0.02, 0.01)
    assert size.waits


def test_before_anything_was_seen_two_rows_are_tried():
    assert BatchSize(128).limit == 2
    assert BatchSize(1).limit == 1


def test_predictions_side_by_side_tell_something_only_when_they_use_little():
    size = seen(0.02, 0.0)
    for _ in range(50):
        size.record(1, 0.08, 0.6, alone=False)
    assert not size.waits, "six tenths may be those of the others"
    for _ in range(20):
        size.record(1, 0.08, 0.3, alone=False)
    assert size.waits, "one of them may go on for minutes, and none would ever be alone"


@pytest.mark.parametrize("own", [0.05, 0.15, 0.3, 0.4])
def test_a_model_that_waits_most_of_the_time_goes_on_side_by_side(own: float):
    size = seen(0.02, 0.0)
    for _ in range(200):
        if size.waits:
            size.record(1, 0.02, min(1.0, 4 * own), alone=False)
        else:
            size.record(1, 0.02, own)
    assert size.waits
    for _ in range(200):
        size.record(1, 0.02, min(1.0, 4 * own), alone=False)
        assert size.waits


def test_what_was_not_measured_tells_nothing():
    size = seen(0.02, 0.0, cpu=0.1)
    before = size.waits
    for _ in range(50):
        size.record(1, 0.02, None)
    assert size.waits == before
