"""docs/compatibility.yaml as data, and the page made of it: ``python -m tests.contract.compatibility`` writes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "docs" / "compatibility.yaml"
PAGE = ROOT / "docs" / "compatibility.md"

VERDICTS = {
    "works": "works",
    "differs": "**differs**",
    "refused": "501",
    "own": "Servery's own",
}
SCENARIOS = "end_to_end/clients/{}_scenario.py"

INTRODUCTION = """\
# Compatibility with Databricks Model Serving

<!-- Generated from compatibility.yaml by `make compatibility`. -->

Route by route and field by field: what works, what differs and how, and what is refused with 501. Each line names the
tests that show it. Those of the form `sdk: …` and `mlflow: …` are steps of one scenario that runs with the newest
`databricks-sdk` and `mlflow` and with those of a year ago.

Out of scope are Databricks' other products. What Servery does not offer of the APIs below says so with
501 `NOT_IMPLEMENTED` and a message, never with a 404 that would look like a typing error.

How to move: [from Databricks](from-databricks.md), [from `mlflow models serve`](from-mlflow-models-serve.md).
"""


@dataclass(frozen=True)
class Route:
    """A listed call."""

    named_method: str
    """``ANY`` for a route that takes every method."""
    path: str
    verdict: str

    @property
    def method(self) -> str:
        """A method to call it with."""
        return "GET" if self.named_method == "ANY" else self.named_method

    @property
    def public(self) -> bool:
        """Whether it needs no credentials."""
        return self.path.startswith(("/.well-known/", "/oidc/", "/healthz", "/readyz"))

    def filled(self, value: str = "no-such-thing") -> str:
        """The path with a value for every parameter."""
        return re.sub(r"\{[^}]*\}", value, self.path)


def load() -> dict[str, Any]:
    """The file."""
    return yaml.safe_load(SOURCE.read_text(encoding="utf-8"))


def routes() -> list[Route]:
    """Every listed call."""
    rows = [row for group in load()["routes"] for row in group["rows"]]
    return [Route(*row["call"].split(" ", 1), verdict=row["verdict"]) for row in rows]


def rows() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every line of the page, with a name for messages."""
    data = load()
    for group in data["routes"]:
        yield from ((row["call"], row) for row in group["rows"])
    for group in data["fields"]:
        yield from ((f"{group['title']}: {name}", row) for name, row in group["rows"].items())
    for group in data["behaviours"]:
        yield from ((row["what"], row) for row in group["rows"])
    yield from ((row["open"], row) for row in data["choices"])


def page() -> str:
    """The page."""
    data = load()
    parts = [INTRODUCTION, "## Routes\n"]
    for group in data["routes"]:
        parts.append(f"### {group['title']}\n")
        parts.append(
            _table(("call", "", "notes", "shown by"), [(f"`{row['call']}`", row) for row in group["rows"]])
        )
    parts.append("## Fields\n")
    for group in data["fields"]:
        parts.append(f"### {group['title']} (`{group['sdk']}`)\n")
        lines = [(f"`{name}`", row) for name, row in group["rows"].items()]
        parts.append(_table(("field", "", "notes", "shown by"), lines))
    for group in data["behaviours"]:
        parts.append(f"## {group['title']}\n")
        parts.append(
            _table(("behaviour", "", "notes", "shown by"), [(row["what"], row) for row in group["rows"]])
        )
    parts.append("## What Databricks' documentation leaves open\n")
    parts.append("No public source settles these. What Servery does:\n")
    chosen = [f"| {_cell(row['open'])} | {_cell(row['choice'])} | {_tests(row)} |" for row in data["choices"]]
    parts.append(
        "\n".join(("| open question | Servery's answer | shown by |", "|---|---|---|", *chosen)) + "\n"
    )
    return "\n".join(parts)


def _table(titles: tuple[str, ...], lines: list[tuple[str, dict[str, Any]]]) -> str:
    head = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    body = [
        f"| {_cell(first)} | {VERDICTS[row['verdict']]} | {_cell(row.get('note', ''))} | {_tests(row)} |"
        for first, row in lines
    ]
    return "\n".join(head + body) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _tests(row: dict[str, Any]) -> str:
    return "<br>".join(_link(test) for test in row["tests"])


def _link(test: str) -> str:
    path, name = place(test)
    client = test.split(".", 1)[0] if "::" not in test else None
    shown = f"{client}: {name}" if client else name.removeprefix("test_")
    return f"[{shown.replace('_', ' ')}](../tests/{path})"


def place(test: str) -> tuple[str, str]:
    """The file below tests/ and the function that a named test stands for."""
    if "::" in test:
        path, name = test.split("::")
        return path, name
    client, step = test.split(".", 1)
    return SCENARIOS.format(client), step


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
