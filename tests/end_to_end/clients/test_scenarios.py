"""The same scenario with the newest client and with the one of a year ago, each step a test of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.end_to_end.clients import mlflow_scenario, sdk_scenario

Reports = Callable[[str, str], dict[str, Any]]
generations = pytest.mark.parametrize("generation", ["newest", "a year ago"])


@generations
@pytest.mark.parametrize("step", sdk_scenario.scenario.names())
def test_databricks_sdk(reports: Reports, step: str, generation: str):
    report = reports(generation, "sdk_scenario")
    assert report["steps"][step] is None, f"{report['client']}\n{report['steps'][step]}"


@generations
@pytest.mark.parametrize("step", mlflow_scenario.scenario.names())
def test_mlflow_deployments(reports: Reports, step: str, generation: str):
    report = reports(generation, "mlflow_scenario")
    assert report["steps"][step] is None, f"{report['client']}\n{report['steps'][step]}"


@pytest.mark.parametrize("script", ["sdk_scenario", "mlflow_scenario"])
def test_the_two_generations_are_not_the_same(reports: Reports, script: str):
    assert reports("newest", script)["client"] != reports("a year ago", script)["client"]
