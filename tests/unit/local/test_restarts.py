from servery_local.restarts import RestartPolicy

POLICY = RestartPolicy(first_delay=1.0, longest_delay=30.0, stable_after=60.0, attempts=3)


def test_the_delay_doubles_up_to_its_limit() -> None:
    delays = [POLICY.delay(deaths, chance=1.0) for deaths in range(1, 8)]
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_chance_takes_at_most_half_of_the_delay() -> None:
    assert POLICY.delay(3, chance=0.0) == 2.0
    assert POLICY.delay(3, chance=0.5) == 3.0


def test_many_deaths_do_not_overflow() -> None:
    assert POLICY.delay(100_000, chance=1.0) == 30.0


def test_a_stable_life_forgets_earlier_deaths() -> None:
    assert POLICY.deaths_after(5, lifetime=59.9) == 6
    assert POLICY.deaths_after(5, lifetime=60.0) == 1


def test_only_a_child_that_was_never_ready_is_given_up() -> None:
    assert not POLICY.is_hopeless(2, was_ready=False)
    assert POLICY.is_hopeless(3, was_ready=False)
    assert not POLICY.is_hopeless(1000, was_ready=True)
