import pytest
from hypothesis import given
from hypothesis import strategies as st

from servery_worker.warm_memory import Kept, to_end


def idle(key: str, memory_bytes: int, used_at: float) -> Kept:
    return Kept(key, memory_bytes, in_use=False, used_at=used_at)


@pytest.mark.parametrize(
    ("budget", "ended"),
    [(600, []), (599, ["old"]), (500, ["old"]), (300, ["old", "middle"]), (299, ["old", "middle", "new"])],
)
def test_the_least_recently_used_end_first_until_the_rest_fits(budget: int, ended: list[str]):
    parents = [idle("middle", 200, 2.0), idle("new", 300, 3.0), idle("old", 100, 1.0)]
    assert to_end(parents, budget) == ended


def test_one_in_use_neither_ends_nor_counts():
    busy = Kept("busy", 10_000, in_use=True, used_at=0.0)
    assert to_end([busy, idle("idle", 100, 1.0)], 100) == []
    assert to_end([busy, idle("idle", 100, 1.0)], 0) == ["idle"]


parents = st.lists(
    st.builds(Kept, st.uuids().map(str), st.integers(0, 100), st.booleans(), st.floats(0, 1000)), max_size=12
)


@given(parents, st.integers(0, 500))
def test_what_is_kept_fits_and_was_used_after_all_that_ended(found: list[Kept], budget: int):
    ended = set(to_end(found, budget))
    kept = [one for one in found if not one.in_use and one.environment_key not in ended]
    gone = [one for one in found if one.environment_key in ended]
    assert sum(one.memory_bytes for one in kept) <= budget
    assert not any(one.in_use for one in gone)
    assert all(one.used_at <= other.used_at for one in gone for other in kept)
    if gone:
        newest = max(gone, key=lambda one: one.used_at)
        assert sum(one.memory_bytes for one in kept) + newest.memory_bytes > budget
