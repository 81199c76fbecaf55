from servery_gateway.token_bucket import TokenBucket


def take_all(bucket: TokenBucket, now: float) -> int:
    taken = 0
    while bucket.take(now):
        taken += 1
    return taken


def test_a_full_bucket_is_a_burst_and_then_it_fills_at_its_rate() -> None:
    bucket = TokenBucket(rate=10, capacity=5, now=100)
    assert take_all(bucket, 100) == 5
    assert not bucket.take(100.05)
    assert bucket.take(100.125)
    assert not bucket.take(100.125)
    assert take_all(bucket, 100.5) == 4


def test_a_long_pause_fills_it_no_further_than_its_capacity() -> None:
    bucket = TokenBucket(rate=10, capacity=5, now=100)
    take_all(bucket, 100)
    assert take_all(bucket, 5000) == 5


def test_what_is_given_back_can_be_taken_again() -> None:
    bucket = TokenBucket(rate=1, capacity=1, now=0)
    assert bucket.take(0)
    bucket.give_back()
    assert bucket.take(0)
    assert not bucket.take(0)


def test_a_bucket_that_owes_gives_nothing_until_it_has_paid() -> None:
    bucket = TokenBucket(rate=10, capacity=5, now=0)
    bucket.refill(-2, rate=10, capacity=5, now=0)
    assert bucket.level(0) == -2
    assert not bucket.take(0.29)
    assert bucket.take(0.31)
