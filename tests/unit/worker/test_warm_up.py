"""The threads are real; what happens when is told by events."""

import queue
import threading
from typing import NoReturn

import pytest

from servery_runner import warm_up
from servery_runner.loading import LoadFailure


class Serving:
    """Stands in for the predict loop: notes which threads come to serve, and lets them end."""

    def __init__(self) -> None:
        self.threads: queue.Queue[str] = queue.Queue()

    def __call__(self) -> NoReturn:
        self.threads.put(threading.current_thread().name)
        threading.Event().wait()
        raise AssertionError


def test_the_thread_that_predicted_the_example_serves(capfd: pytest.CaptureFixture[str]):
    predicted: list[str] = []

    def predict() -> bool:
        predicted.append(threading.current_thread().name)
        return True

    serve = Serving()
    assert warm_up.first_thread(predict, serve)
    assert serve.threads.get(timeout=10) == predicted[0] == "predict-0"
    assert "warm-up: predicted the input example" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("says", "line"),
    [
        (LoadFailure("predict", "ValueError: no such flower"), "failed: ValueError: no such flower"),
        (None, "no input example"),
    ],
)
def test_an_example_that_fails_or_is_missing_keeps_nothing_from_serving(
    says: LoadFailure | None, line: str, capfd: pytest.CaptureFixture[str]
):
    def predict() -> bool:
        if says is not None:
            raise says
        return False

    serve = Serving()
    assert warm_up.first_thread(predict, serve)
    serve.threads.get(timeout=10)
    assert line in capfd.readouterr().out


def test_an_example_that_takes_too_long_is_not_waited_for_and_its_thread_never_serves(
    capfd: pytest.CaptureFixture[str],
):
    threads: queue.Queue[threading.Thread] = queue.Queue()
    let = threading.Event()

    def predict() -> bool:
        threads.put(threading.current_thread())
        return let.wait(10)

    serve = Serving()
    assert not warm_up.first_thread(predict, serve, seconds=0)
    let.set()
    slow = threads.get(timeout=10)
    slow.join(10)
    assert not slow.is_alive()
    assert serve.threads.empty()
    said = capfd.readouterr().out
    assert "takes more than 0 s; requests are taken in the meantime" in said
    assert "and beside requests" in said
