"""The arithmetic, with the numbers worked out by hand."""

from math import sqrt

import pytest

from servery_scaler.staffing import (
    MAX_GROWTH,
    backlog_load,
    capacity,
    expected,
    offered_load,
    peak,
    recent,
    rise,
)


def test_while_nobody_waits_the_load_is_what_runs():
    assert offered_load(running=8.0, waiting=0.0, arrived=100.0, service_seconds=0.2) == 8.0


def test_while_somebody_waits_it_is_what_arrives_times_how_long_each_takes():
    assert offered_load(running=4.0, waiting=90.0, arrived=100.0, service_seconds=0.2) == 20.0
    assert offered_load(running=4.0, waiting=1.0, arrived=0.0, service_seconds=0.2) == 4.0


@pytest.mark.parametrize(("service_seconds", "room"), [(0.0, 60.0), (0.03, 6.0), (0.3, 60.0), (30.0, 60.0)])
def test_what_waits_is_as_much_as_its_work_and_no_more_than_its_number(service_seconds, room):
    assert backlog_load(60.0, service_seconds, 0.3) == pytest.approx(room)


def test_the_room_for_chance_is_the_square_root_and_more_where_help_comes_late():
    assert capacity(100.0, 0.7, 0.0) == pytest.approx(107)
    assert capacity(100.0, 0.7, 15.0) == pytest.approx(114)
    assert capacity(0.0, 0.7, 60.0) == 0


def test_the_peak_is_the_largest_mean_of_successive_seconds():
    assert peak([0, 9, 0, 3, 3, 3], 3) == 4
    assert peak([4, 2], 5) == 3
    assert peak([], 5) == 0
    assert recent([9, 1, 3], 2) == 2


def test_a_ramp_rises_by_the_least_of_its_steps_less_what_chance_would_do():
    assert rise([0, 100, 130, 160, 200]) == pytest.approx(30 - 0.5 * sqrt(200))
    assert rise([100, 130, 125, 160]) == 0
    assert rise([1, 2, 3]) == 0


def test_a_ramp_is_followed_to_a_multiple_of_what_was_seen():
    assert expected(100.0, 10.0, 3.0) == 130
    assert expected(100.0, 10.0, 600.0) == 100 * MAX_GROWTH
