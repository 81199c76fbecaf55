import pytest

from servery_common.errors import InvalidParameter
from servery_controller.domain.directory import check_name, find_cycle


@pytest.mark.parametrize(
    "subgroups",
    [{}, {1: [2, 3], 2: [4], 3: [4]}, {n: [n + 1] for n in range(2000)}, {2: [1], 1: []}],
)
def test_groups_that_share_members_are_no_cycle(subgroups: dict[int, list[int]]):
    assert find_cycle(subgroups) is None


@pytest.mark.parametrize(
    ("subgroups", "cycle"),
    [
        ({1: [1]}, {1}),
        ({1: [2], 2: [1]}, {1, 2}),
        ({9: [1], 1: [5, 2], 2: [3], 3: [7, 1]}, {1, 2, 3}),
        ({n: [(n + 1) % 2000] for n in range(2000)}, set(range(2000))),
    ],
)
def test_a_cycle_is_found_and_named_without_what_leads_to_it(
    subgroups: dict[int, list[int]], cycle: set[int]
):
    assert set(find_cycle(subgroups) or []) == cycle


def test_names_lose_the_blanks_around_them():
    assert check_name("userName", "  ann@example.com ") == "ann@example.com"


@pytest.mark.parametrize("name", ["", "  ", "a\0b", "a\nb", "x" * 256, "\ud800"])
def test_names_that_nobody_can_read_are_refused(name: str):
    with pytest.raises(InvalidParameter, match="userName"):
        check_name("userName", name)
