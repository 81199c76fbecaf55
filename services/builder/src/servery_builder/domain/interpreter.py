"""Which installed Python a model gets.

The exact version it was logged with if it is installed, else the newest patch of the same minor version: patch
releases fix bugs and keep the ABI, so packages resolve to the same wheels. Another minor version is another
environment and is never chosen silently.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from servery_builder.domain.build import BuildError
from servery_common.contracts.builds import FailureCode

OLDEST_PYTHON = Version("3.9")
"""The runner that loads models supports this Python and newer."""


@dataclass(frozen=True)
class Interpreter:
    """A CPython found on this machine."""

    version: str
    path: str


def wanted_version(logged: str | None, platform_version: str) -> Version:
    """Return the version to look for; raises ``BuildError`` for one no runner supports."""
    try:
        wanted = Version(logged or platform_version)
    except InvalidVersion as error:
        raise BuildError(
            FailureCode.PYTHON_NOT_AVAILABLE,
            f"The model asks for Python {logged!r}, which is not a version; log it again.",
        ) from error
    if wanted < OLDEST_PYTHON:
        raise BuildError(
            FailureCode.PYTHON_NOT_AVAILABLE,
            f"The model asks for Python {wanted}, but models run on Python {OLDEST_PYTHON} and newer; log it again"
            " with a newer Python.",
        )
    return wanted


def choose(wanted: Version, installed: Sequence[Interpreter]) -> Interpreter | None:
    """Return the interpreter to use, or None when no patch of the same minor version is installed."""
    same_minor = [found for found in installed if Version(found.version).release[:2] == wanted.release[:2]]
    exact = [found for found in same_minor if Version(found.version) == wanted]
    if exact:
        return exact[0]
    return max(same_minor, key=lambda found: Version(found.version), default=None)


def not_available(wanted: Version, installed: Sequence[Interpreter]) -> BuildError:
    """Say which Python is missing and which are there."""
    versions = sorted({Version(found.version) for found in installed})
    there = ", ".join(str(version) for version in versions) or "none"
    minor = ".".join(str(part) for part in wanted.release[:2])
    return BuildError(
        FailureCode.PYTHON_NOT_AVAILABLE,
        f"The model needs Python {wanted}, but no Python {minor} is installed here and none could be downloaded"
        f" (installed: {there}); install Python {minor} for the builder and the workers or log the model with"
        " another Python.",
    )
