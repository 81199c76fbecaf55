"""The files that Grafana reads: what the code makes, and what Grafana's own types can hold."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from deploy.grafana.boards import DIRECTORY, dashboards
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

FILES = sorted(path.name for path in DIRECTORY.glob("*.json"))


def load(name: str) -> dict[str, Any]:
    return json.loads((DIRECTORY / name).read_text())


def panels(name: str) -> Iterator[dict[str, Any]]:
    for panel in load(name)["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels", ())
        else:
            yield panel


def test_the_files_are_what_the_code_makes() -> None:
    assert {name: (DIRECTORY / name).read_text() for name in FILES} == dict(dashboards()), (
        "run `make dashboards`"
    )


@pytest.mark.parametrize("name", FILES)
def test_grafanas_types_hold_all_that_is_in_a_file(name: str) -> None:
    document = load(name)
    read = Dashboard.from_json(document)
    assert json.loads(JSONEncoder(sort_keys=True).encode(read)) == document


@pytest.mark.parametrize("name", FILES)
def test_every_panel_has_a_unit_says_what_to_do_and_asks_the_provisioned_prometheus(name: str) -> None:
    seen = list(panels(name))
    assert seen
    for panel in seen:
        assert len(panel["description"]) > 15, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "prometheus"}, panel["title"]
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            assert target["expr"], panel["title"]
            assert target["legendFormat"] or panel["type"] == "stat", panel["title"]


@pytest.mark.parametrize("name", FILES)
def test_panels_have_ids_of_their_own_and_do_not_lie_on_each_other(name: str) -> None:
    document = load(name)
    ids = [panel["id"] for panel in document["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in document["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_panels_of_latency_lead_to_traces() -> None:
    with_traces = [
        panel
        for name in FILES
        for panel in panels(name)
        if any("servery_gateway_request_duration" in one["expr"] for one in panel["targets"])
        and panel["type"] == "timeseries"
    ]
    assert len(with_traces) >= 4
    for panel in with_traces:
        assert all(target["exemplar"] for target in panel["targets"]), panel["title"]
        [link] = panel["fieldConfig"]["defaults"]["links"]
        assert "jaeger" in link["url"], panel["title"]


def test_dashboards_have_names_that_links_can_keep() -> None:
    assert {name: load(name)["uid"] for name in FILES} == {
        "builds.json": "servery-builds",
        "endpoint.json": "servery-endpoint",
        "infrastructure.json": "servery-infrastructure",
        "overview.json": "servery-overview",
    }
