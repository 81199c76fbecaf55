"""The alert rules: checked and tested by Prometheus' own tool, and each with words for whoever is woken."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = [
    rule
    for path in sorted((PROMETHEUS / "rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]


def promtool(*arguments: str) -> None:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("needs promtool, which Debian's package prometheus has")
    ended = subprocess.run([found, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_prometheus_takes_the_rules() -> None:
    promtool("check", "rules", *map(str, (PROMETHEUS / "rules").glob("*.yml")))


def test_prometheus_takes_the_configuration() -> None:
    promtool("check", "config", str(PROMETHEUS / "prometheus.yml"))


def test_alerts_fire_on_what_they_are_for_and_on_nothing_else() -> None:
    promtool("test", "rules", *map(str, (PROMETHEUS / "tests").glob("*.yml")))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do_and_has_a_section_in_the_runbook(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"]["summary"]
    runbook = rule["annotations"]["runbook"]
    assert "\n" not in runbook
    assert runbook.endswith(f"docs/runbook.md#{rule['alert'].lower()}")
    assert len(runbook.split(" docs/")[0]) > 40


def test_the_runbook_has_no_section_without_an_alert() -> None:
    sections = re.findall(r"^## (\S+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    assert sections == [rule["alert"] for rule in RULES]
