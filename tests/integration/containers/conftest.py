"""What the compose file runs, part by part, with the credentials its own service issues."""

from collections.abc import Iterator

import pytest
from tests.containers.engine import ROOT, built, postgres_with_tls, why_no_engine


@pytest.fixture(scope="session")
def engine() -> None:
    if reason := why_no_engine():
        pytest.skip(f"needs a Docker engine: {reason}")


@pytest.fixture(scope="session")
def credentials_image(engine: None) -> Iterator[str]:
    """The service that issues credentials, as it is in the sources."""
    file = str(ROOT / "deploy" / "docker" / "Dockerfile")
    with built("servery-credentials", ROOT, "--file", file, "--build-arg", "SERVICE=credentials") as image:
        yield image


@pytest.fixture(scope="session")
def postgres_image(engine: None) -> Iterator[str]:
    """An image whose Postgres can do TLS."""
    with postgres_with_tls() as image:
        yield image
