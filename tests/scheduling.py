"""Which files of tests run in the same process where several run side by side (``pytest -n``).

pytest-xdist keeps a file together. These folders are kept together too: their files share fixtures of the session that
take long to make, such as a whole stack or an image, and each process would make its own.
"""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling

TOGETHER = (
    "tests/end_to_end/compose/",
    "tests/end_to_end/",
    "tests/integration/builder/engine/",
    "tests/integration/compute/",
    "tests/integration/containers/",
    "tests/resilience/",
)
"""The first that a test is below is its own."""

APART = (
    "tests/end_to_end/test_operator_metrics.py",
    "tests/end_to_end/test_restart.py",
    "tests/integration/compute/test_container_credentials.py",
)
"""Files that use nothing of what the others of their folder share."""


def unit_of(test: str) -> str:
    """The folder or the file that a test, named as pytest names it, is run with."""
    file = test.split("::", 1)[0]
    if file in APART:
        return file
    return next((folder for folder in TOGETHER if file.startswith(folder)), file)


class KeepTogether(LoadFileScheduling):
    """Distribute ``unit_of`` each test, in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)
