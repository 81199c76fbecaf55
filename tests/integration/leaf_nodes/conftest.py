"""Two networks: a control plane's NATS here, a compute plane's there, and a wire between them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.infrastructure import free_port
from tests.integration.leaf_nodes.planes import Issued, PlaneServer, compute_plane_server, control_plane
from tests.integration.leaf_nodes.wire import Wire


@dataclass
class Planes:
    """Both, connected."""

    issued: Issued
    here: PlaneServer
    """The control plane's."""
    there: PlaneServer
    """The compute plane's."""
    leaf_port: int
    """Where the latter listens to the former."""
    wire: Wire


@pytest.fixture(scope="module")
def planes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planes]:
    root: Path = tmp_path_factory.mktemp("planes")
    issued = Issued(root / "credentials")
    leaf_port = free_port()
    wire = Wire(leaf_port)
    there = compute_plane_server(root / "there", issued, leaf_port)
    here = control_plane(root / "here", issued, wire.port)
    there.start()
    here.start()
    yield Planes(issued, here, there, leaf_port, wire)
    here.stop()
    there.stop()
    wire.end()
