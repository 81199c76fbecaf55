"""Who is looked at in a tick."""

from servery_scaler.agenda import Agenda


def test_who_is_looked_at_stays_until_it_rests():
    agenda = Agenda()
    agenda.look("a")
    assert agenda.take(0) == ["a"]
    assert agenda.take(1) == ["a"]
    agenda.rest("a", None)
    assert agenda.take(2) == []


def test_who_rests_until_a_time_is_looked_at_then_and_not_before():
    agenda = Agenda()
    agenda.rest("a", 10.0)
    agenda.rest("a", 20.0)
    assert agenda.take(19) == []
    assert agenda.take(20) == ["a"]


def test_who_comes_to_rest_again_and_again_is_queued_once():
    agenda = Agenda()
    for at in range(1000):
        agenda.look("a")
        agenda.rest("a", at + 100.0)
    assert len(agenda._queue) == 1
    assert agenda.take(1098) == []
    assert agenda.take(1099) == ["a"]


def test_who_is_gone_has_no_time_left():
    agenda = Agenda()
    agenda.rest("a", 10.0)
    agenda.drop("a")
    assert agenda.take(20) == []
    agenda.rest("b", 30.0)
    agenda.rest("b", None)
    assert agenda.take(40) == []


def test_a_time_that_is_brought_forward_is_kept_to():
    agenda = Agenda()
    agenda.rest("a", until=1800.0)
    agenda.rest("a", until=60.0)
    assert agenda.take(59.0) == []
    assert agenda.take(60.0) == ["a"]
    agenda.rest("a", until=None)
    assert agenda.take(5000.0) == []
