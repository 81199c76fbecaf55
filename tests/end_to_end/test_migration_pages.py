"""The pages for people who come from elsewhere do what they say: their blocks run in order, as they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from tests.end_to_end.client import Client, Registered, describe
from tests.models import zoo

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"(?P<skip><!-- not run: .+? -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)


class Block(NamedTuple):
    """A block of a page that is to be run."""

    language: str
    text: str

    def said(self) -> object | None:
        """The JSON that the block's last line says it prints."""
        last = self.text.rstrip().splitlines()[-1]
        return json.loads(last.removeprefix("# ")) if last.startswith("# {") else None


def blocks(page: str) -> Iterator[Block]:
    for found in BLOCK.finditer((DOCS / page).read_text(encoding="utf-8")):
        if not found["skip"]:
            yield Block(found["language"], found["text"])


@pytest.fixture
def run(client: Client, tmp_path: Path) -> Callable[[Block], str]:
    """Runs a block as a reader would, with the variables of `servery env`."""
    access = client.access
    environment = os.environ | {
        "DATABRICKS_HOST": access.host,
        "DATABRICKS_TOKEN": access.token,
        "MLFLOW_TRACKING_URI": access.tracking_uri,
        "SERVERY_DATA_DIR": str(client.stack.directory),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }

    def run(block: Block) -> str:
        command = [sys.executable, "-c"] if block.language == "python" else ["bash", "-c"]
        ended = subprocess.run(
            [*command, block.text],
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert ended.returncode == 0, f"{block.text}\n{ended.stdout}\n{ended.stderr}"
        if expected := block.said():
            assert json.loads(ended.stdout) == expected
        return ended.stdout

    return run


def test_from_databricks(client: Client, tmp_path: Path, run: Callable[[Block], str]):
    zoo.save(zoo.IRIS_CLASSIFIER, tmp_path / "flowers")  # what was downloaded from Databricks
    scrapes: list[str] = []
    try:
        for block in blocks("from-databricks.md"):
            if block.language == "yaml":
                (job,) = yaml.safe_load(block.text)["scrape_configs"]
                scrapes.append(job["metrics_path"])
            else:
                run(block)
        (path,) = scrapes
        answer = client.http.get(path)
        assert answer.status_code == 200, describe(answer)
    finally:
        client.delete("flowers")
        client.http.post("/api/2.0/secrets/scopes/delete", json={"scope": "flowers"})


def test_from_mlflow_models_serve(client: Client, register: Registered, run: Callable[[Block], str]):
    assert register(zoo.IRIS_CLASSIFIER, name="flowers-local") == "1"
    try:
        for block in blocks("from-mlflow-models-serve.md"):
            run(block)
    finally:
        client.delete("flowers-local")


@pytest.mark.parametrize("page", ["from-databricks.md", "from-mlflow-models-serve.md", "compatibility.md"])
def test_links_lead_somewhere(page: str):
    text = (DOCS / page).read_text(encoding="utf-8")
    targets = {target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target}
    absent = [target for target in targets if not (DOCS / target).exists()]
    assert not absent
