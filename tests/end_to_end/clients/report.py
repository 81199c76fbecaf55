"""Runs the steps of a client's scenario in order and prints what became of them, as JSON.

Standard library only: it runs beside whatever version of a client is tried, in that client's environment. A
scenario's steps share what they made, so a step that fails may fail later ones; each has its own line in the report.
"""

import contextlib
import fcntl
import hashlib
import json
import pathlib
import sys
import tempfile
import time
import traceback


class Scenario:
    """The named steps of one script."""

    def __init__(self):
        self.steps = []

    def step(self, function):
        """Add a function as the next step."""
        self.steps.append(function)
        return function

    def names(self):
        """The names of the steps, in order."""
        return [function.__name__ for function in self.steps]

    def run(self, world, client):
        """Run every step with ``world`` and print the report: a step's entry is None, or what went wrong."""
        outcome = {}
        for function in self.steps:
            try:
                function(world)
                outcome[function.__name__] = None
            except Exception:
                outcome[function.__name__] = traceback.format_exc()
        json.dump({"client": client, "steps": outcome}, sys.stdout)


def arguments():
    """What the tests pass to the script."""
    return json.loads(sys.argv[1])


@contextlib.contextmanager
def alone(host):
    """Scenarios run side by side on one stack: what is one of a workspace is tried by one of them at a time."""
    name = f"servery-scenario-{hashlib.sha256(host.encode()).hexdigest()[:16]}.lock"
    with pathlib.Path(tempfile.gettempdir(), name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def equal(seen, expected):
    """Assert equality and show both sides."""
    assert seen == expected, f"{seen!r} instead of {expected!r}"


def raises(error, function, *args, **options):
    """Assert that a call raises what ``except error`` would catch; return it."""
    try:
        answer = function(*args, **options)
    except Exception as raised:
        assert isinstance(raised, error), f"{type(raised).__name__} instead of {error.__name__}: {raised}"  # noqa: PT017
        return raised
    raise AssertionError(f"no {error.__name__}, but {answer!r}")


def eventually(look, seconds=10):
    """Call ``look`` until it returns something true; its own errors count as "not yet" until time is up."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = look()
            if found:
                return found
        except Exception:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.2)
