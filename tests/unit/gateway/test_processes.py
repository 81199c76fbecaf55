from servery_gateway.processes import FIRST_DELAY, LONGEST_DELAY, restart_delay


def test_a_process_that_dies_again_and_again_is_started_less_and_less_often() -> None:
    delays = [restart_delay(deaths) for deaths in range(1, 20)]
    assert delays[0] == FIRST_DELAY
    assert delays == sorted(delays)
    assert delays[1] == 2 * FIRST_DELAY
    assert delays[-1] == LONGEST_DELAY
