from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from servery_controller.compute.docker_settings import DockerSettings
from servery_controller.compute.subnets import free_subnets


def free(taken: list[str], pool: str = "10.213.0.0/27", begin: int = 0) -> list[str]:
    return [str(one) for one in free_subnets(IPv4Network(pool), map(IPv4Network, taken), begin)]


def test_a_pool_is_dealt_out_in_pieces_of_eight_addresses():
    assert free([]) == ["10.213.0.0/29", "10.213.0.8/29", "10.213.0.16/29", "10.213.0.24/29"]
    assert len(free([], "10.213.0.0/16")) == 8192


def test_who_begins_somewhere_in_the_middle_comes_round():
    assert free(["10.213.0.8/29"], begin=1) == ["10.213.0.16/29", "10.213.0.24/29", "10.213.0.0/29"]
    assert free(["10.213.0.8/29"], begin=3_000_000_001) == free(["10.213.0.8/29"], begin=1)


@pytest.mark.parametrize(
    ("taken", "left"),
    [
        (["10.0.0.0/8"], []),
        (["10.213.0.0/28", "10.213.0.16/28"], []),
        (["10.213.0.4/30"], ["10.213.0.8/29", "10.213.0.16/29", "10.213.0.24/29"]),
        (["10.213.0.16/28", "172.17.0.0/16"], ["10.213.0.0/29", "10.213.0.8/29"]),
        (["10.213.0.0/29", "10.213.0.0/28", "10.213.0.0/30"], ["10.213.0.16/29", "10.213.0.24/29"]),
    ],
    ids=["around it", "all of it", "a part of one", "several and none", "one within another"],
)
def test_networks_of_others_count_whatever_their_size(taken: list[str], left: list[str]):
    assert free(taken) == left
    assert sorted(free(taken, begin=7)) == sorted(left)


@given(
    st.lists(st.tuples(st.integers(-1024, 2047), st.integers(20, 32)), max_size=10),
    st.integers(0, 2**32 - 1),
)
def test_those_that_are_free_are_all_that_overlap_with_nothing(taken: list[tuple[int, int]], begin: int):
    pool = IPv4Network("10.213.4.0/22")
    first = int(pool.network_address)
    others = [IPv4Network((first + offset, length), strict=False) for offset, length in taken]
    expected = {
        one for one in pool.subnets(new_prefix=29) if not any(one.overlaps(other) for other in others)
    }
    found = list(free_subnets(pool, others, begin))
    assert set(found) == expected
    assert len(found) == len(expected)


def test_a_pool_without_room_for_one_replica_is_refused():
    assert DockerSettings(subnets=IPv4Network("10.213.0.8/29"))
    for subnets in ("10.213.0.8/30", "10.213.0.1/16", "fd00::/64", "everything"):
        with pytest.raises(ValidationError):
            DockerSettings.model_validate({"subnets": subnets})
