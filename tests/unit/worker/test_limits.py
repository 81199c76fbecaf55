import weakref

import pytest

from servery_runner import limits


@pytest.mark.parametrize(
    ("count", "text"),
    [(4 * 2**30, "4 GiB"), (3 * 2**29, "1.5 GiB"), (768 * 2**20, "768 MiB"), (1000, "1000 bytes")],
)
def test_sizes_are_told_as_people_say_them(count: int, text: str):
    assert limits.readable(count) == text


def test_memory_that_ran_out_is_known_through_errors_that_hide_it():
    hiding = RuntimeError("a library's own words")
    hiding.__cause__ = MemoryError()
    assert limits.is_memory(hiding)
    assert not limits.is_memory(RuntimeError("something else"))


def test_what_a_failed_call_held_is_free_before_its_failure_is_told(capsys: pytest.CaptureFixture[str]):
    class Large:
        pass

    held: list[weakref.ref[Large]] = []

    def predict() -> None:
        large = Large()
        held.append(weakref.ref(large))
        raise MemoryError

    try:
        predict()
    except MemoryError as error:
        reason = limits.out_of_memory(error)
        assert held[0]() is None
    assert reason.startswith("The model needed more than the ")
    assert capsys.readouterr().out == f"out of memory: {reason}\n"
