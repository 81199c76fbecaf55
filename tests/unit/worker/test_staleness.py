from servery_worker.staleness import Staleness


def judge(staleness: Staleness, *sent_and_read: tuple[float, float], gateway: str = "g") -> list[bool]:
    return [staleness.is_stale(gateway, sent, read) for sent, read in sent_and_read]


def test_a_request_read_in_time_is_fresh_and_one_read_late_is_stale():
    assert judge(Staleness(), (1000, 1001), (2000, 2249), (3000, 3300)) == [False, False, True]


def test_what_piled_up_while_the_worker_was_frozen_is_stale_down_to_the_last():
    backlog = [(2000 + i, 7000 + i / 10) for i in range(20)]
    assert judge(Staleness(), (1000, 1001), *backlog, (7100, 7101)) == [False, *[True] * 20, False]


def test_what_piled_up_of_a_gateway_that_was_never_heard_of_is_stale_down_to_the_last():
    backlog = [(2000 + i * 100, 7000 + i / 10) for i in range(20)]
    assert judge(Staleness(), *backlog, (7100, 7101)) == [*[True] * 20, False]


def test_clocks_that_disagree_cost_a_new_gateway_no_more_than_a_second():
    requests = [(1000 + i * 100, 6001 + i * 100) for i in range(12)]
    assert judge(Staleness(), *requests, (3000, 8301)) == [*[True] * 10, False, False, True]
    behind = Staleness()
    assert judge(behind, (6000, 1001), (6030, 1031), (7000, 2400)) == [False, False, True]


def test_a_clock_that_was_set_stops_nothing_for_longer_than_a_second():
    staleness = Staleness()
    after = [(2000 + i * 100, 12_000 + i * 100) for i in range(12)]
    assert judge(staleness, (1000, 1001), *after) == [False, *[True] * 10, False, False]


def test_clocks_that_drift_are_followed():
    staleness = Staleness()
    drifting = [(t, t + t * 0.001) for t in range(0, 3_600_000, 10_000)]
    assert not any(judge(staleness, *drifting))


def test_gateways_are_judged_apart():
    staleness = Staleness()
    assert judge(staleness, (1000, 6000), gateway="a") == [True]
    assert judge(staleness, (1000, 1001), gateway="b") == [False]
