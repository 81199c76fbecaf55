import os
from pathlib import Path

import pytest

from servery_runner.begun import MOST_JOINED, BegunMarks, BegunTable, Numbers


@pytest.fixture
def table(tmp_path: Path) -> BegunTable:
    return BegunTable(tmp_path, slots=2)


def test_what_was_marked_and_nothing_else_has_begun(table: BegunTable):
    marks = BegunMarks(table.path, slots=2)
    numbers = Numbers(slots=2)
    first, second, third = numbers.take(), numbers.take(), numbers.take()
    marks.mark([first, third])
    assert [table.has(number) for number in (first, second, third)] == [True, False, True]


def test_a_place_that_is_used_again_says_nothing_of_the_next_request(table: BegunTable):
    marks, numbers = BegunMarks(table.path, slots=2), Numbers(slots=2)
    taken = [numbers.take() for _ in range(2 * MOST_JOINED)]
    marks.mark(taken)
    numbers.give_back(taken[5])
    again = numbers.take()
    assert not table.has(again)
    marks.mark([again])
    assert table.has(again)


def test_no_two_numbers_are_the_same_nor_have_the_same_place_at_a_time():
    numbers, used, held = Numbers(slots=1), set[int](), list[int]()
    for turn in range(500):
        if len(held) == MOST_JOINED or (held and turn % 3 == 0):
            numbers.give_back(held.pop(turn % len(held)))
        number = numbers.take()
        assert number not in used
        used.add(number)
        held.append(number)
        assert len({one % MOST_JOINED for one in held}) == len(held)


def test_more_than_all_places_is_refused():
    numbers = Numbers(slots=1)
    for _ in range(MOST_JOINED):
        numbers.take()
    with pytest.raises(IndexError):
        numbers.take()


def test_of_a_table_that_was_cut_short_everything_counts_as_begun(table: BegunTable):
    os.truncate(table.path, 0)
    assert table.has(MOST_JOINED * 2)


def test_what_waits_to_be_predicted_once_more_has_begun_and_is_not_being_predicted(table: BegunTable):
    marks = BegunMarks(table.path, slots=2)
    marks.mark([5, 6])
    marks.put_back([5])
    assert [(table.has(one), table.is_predicted(one)) for one in (5, 6, 7)] == [
        (True, False),
        (True, True),
        (False, False),
    ]


def test_nothing_is_left_behind(table: BegunTable, tmp_path: Path):
    table.close()
    assert list(tmp_path.iterdir()) == []
