from servery_gateway.shadow_tally import IDLE_ROUNDS, ShadowTallies


def test_totals_are_told_after_a_change_and_in_turn() -> None:
    tallies = ShadowTallies()
    tallies.add("e", "s")
    (first,) = tallies.read()
    assert (first.endpoint_id, first.served_entity_id, first.same) == ("e", "s", 0)
    tally = tallies.changing("s")
    assert tally is not None
    tally.same += 2
    tally.latency.record(3.0)
    (second,) = tallies.read()
    assert (second.same, second.latency.sum_ms) == (2, 3.0)
    idle = [one for _ in range(IDLE_ROUNDS) for one in tallies.read()]
    assert idle == [second] * IDLE_ROUNDS  # the only one has its turn each time


def test_counters_stay_with_a_served_entity_and_go_with_it() -> None:
    tallies = ShadowTallies()
    tallies.add("e", "s")
    tally = tallies.changing("s")
    tallies.add("e", "s")
    assert tallies.changing("s") is tally
    tallies.remove("s")
    assert tallies.changing("s") is None
    assert tallies.read() == []
