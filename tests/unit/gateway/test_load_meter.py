import pytest

from servery_gateway.load_meter import LoadMeter


def test_means_are_weighted_by_time() -> None:
    meter = LoadMeter(0.0)
    meter.change(0.0, in_flight=4)
    meter.change(0.25, in_flight=-4, queued=2, ended=4)
    window = meter.take(1.0, since=0.0)
    assert window.in_flight == pytest.approx(1.0)
    assert window.queued == pytest.approx(1.5)
    assert (window.requests, window.seconds) == (4, 1.0)


def test_a_window_begins_with_what_the_last_one_left() -> None:
    meter = LoadMeter(0.0)
    meter.change(0.5, in_flight=2)
    meter.take(1.0, since=0.0)
    window = meter.take(2.0, since=1.0)
    assert (window.in_flight, window.requests) == (2.0, 0)


def test_an_empty_window_has_no_load() -> None:
    assert LoadMeter(3.0).take(3.0, since=3.0).in_flight == 0.0


def test_the_time_in_a_slot_is_a_mean_of_those_that_ended() -> None:
    meter = LoadMeter(0.0)
    meter.change(0.0, in_flight=2)
    meter.change(0.2, in_flight=-1, ended=1)
    meter.change(0.6, in_flight=-1, ended=1)
    assert meter.take(2.0, since=0.0).service_seconds == pytest.approx(0.4)
    assert meter.take(3.0, since=2.0).service_seconds == 0.0
