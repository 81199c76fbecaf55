"""Grafana's dashboards as code: ``make dashboards`` writes ``deploy/grafana/dashboards/*.json``.

Built with Grafana's own library, whose classes are made from the schemas of its dashboards. Change these modules, never
the files: Grafana reads those, and a test compares them.
"""

from collections.abc import Mapping
from pathlib import Path

from deploy.grafana.boards.builds import builds
from deploy.grafana.boards.endpoint import endpoint
from deploy.grafana.boards.infrastructure import infrastructure
from deploy.grafana.boards.overview import overview
from grafana_foundation_sdk.cog.encoder import JSONEncoder

DIRECTORY = Path(__file__).parent.parent / "dashboards"


def dashboards() -> Mapping[str, str]:
    """Return the text of each dashboard's file, by its name."""
    made = {
        "overview": overview(),
        "endpoint": endpoint(),
        "builds": builds(),
        "infrastructure": infrastructure(),
    }
    encoder = JSONEncoder(sort_keys=True, indent=2)
    return {f"{name}.json": encoder.encode(board.build()) + "\n" for name, board in made.items()}
