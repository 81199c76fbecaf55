"""Predict the input example once before a replica takes requests, in a thread that will serve them.

A first prediction imports what libraries import late, starts their thread pools and fills their caches: of a small
model it takes ten times the usual. It happened when the model was verified whether it can predict, so what comes of
it here decides nothing: a failure is printed, and an example that takes too long is not waited for.
"""

from __future__ import annotations

import threading
import time
from typing import Callable, NoReturn

from servery_runner import limits, process
from servery_runner.loading import LoadFailure

LONGEST_SECONDS = 5.0
"""A replica is not kept from serving for longer. Then its requests are predicted beside the example."""


def first_thread(
    predict: Callable[[], bool], serve: Callable[[], NoReturn], seconds: float = LONGEST_SECONDS
) -> bool:
    """Have a thread predict and serve afterwards; return when it has predicted. False: it takes too long, and will end.

    ``predict`` returns False when there is no example, and raises LoadFailure.
    """
    turn = _Turn()

    def work() -> None:
        began = time.monotonic()
        line = _predict(predict)
        if turn.done():
            process.say(f"warm-up: {line} ({time.monotonic() - began:.3f} s)")
            serve()
        process.say(f"warm-up: {line}, after {time.monotonic() - began:.1f} s and beside requests")

    threading.Thread(target=limits.ending_the_process(work), name="predict-0", daemon=True).start()
    if turn.wait(seconds):
        return True
    process.say(
        f"warm-up: the input example takes more than {seconds:g} s; requests are taken in the meantime"
    )
    return False


class _Turn:
    """Either the prediction is done in time, or nobody waits for it any more: never both."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given_up = False
        self._done = threading.Event()

    def done(self) -> bool:
        """It is done; True when it was waited for."""
        with self._lock:
            if not self._given_up:
                self._done.set()
            return not self._given_up

    def wait(self, seconds: float) -> bool:
        """Wait until it is done; False when that takes longer."""
        self._done.wait(seconds)
        with self._lock:
            self._given_up = not self._done.is_set()
            return not self._given_up


def _predict(predict: Callable[[], bool]) -> str:
    """How it went, for the model's log."""
    try:
        predicted = predict()
    except LoadFailure as failure:
        return f"the input example failed: {failure.error}"
    return "predicted the input example" if predicted else "the model has no input example to predict"
