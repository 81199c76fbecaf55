"""Each process of a stack killed once under load; ``python -m tests.resilience.control_plane`` does it longer."""

from tests.end_to_end.stack import run_stack
from tests.resilience.control_plane import check, trial


def test_nothing_that_was_acknowledged_is_lost_when_processes_are_killed():
    for stack in run_stack():
        check(trial(stack, rounds=1, rate=20))
