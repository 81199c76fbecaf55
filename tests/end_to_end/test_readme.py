"""The README's tour does what it says: its snippets run as they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.end_to_end.client import Client

README = (Path(__file__).parents[2] / "README.md").read_text()
TOUR = README[README.index("## A five-minute tour") : README.index("### Sizes")]


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TOUR, re.DOTALL)


def test_the_tour(client: Client, tmp_path: Path):
    access = client.access
    environment = os.environ | {
        "DATABRICKS_HOST": access.host,
        "DATABRICKS_TOKEN": access.token,
        "MLFLOW_TRACKING_URI": access.tracking_uri,
    }

    def run(*command: str) -> str:
        ended = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False
        )
        assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    log_model, create_with_sdk = snippets("python")
    bash = snippets("bash")
    (deploy,) = [one for one in bash if one.startswith("servery deploy models:/flowers/1")]
    (score,) = [one for one in bash if one.startswith("curl")]
    try:
        run(sys.executable, "-c", log_model)
        deployed = client.stack.command(*deploy.split()[1:], timeout=180)
        assert deployed.returncode == 0, deployed.stdout
        run(sys.executable, "-c", create_with_sdk)
        assert client.get("flowers-sdk")["state"]["ready"] == "READY"
        assert json.loads(run("bash", "-c", score)) == {"predictions": [0]}
    finally:
        client.delete("flowers")
        client.delete("flowers-sdk")
