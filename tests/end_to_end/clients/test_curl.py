"""curl lines as people write them, run by a shell: what counts is what curl makes of them."""
# ruff: noqa: E501

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.end_to_end.client import Client, Registered
from tests.models import zoo
from tests.models.estimators import IRIS

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

Shell = Callable[[str], Any]
RECORDS: list[Any] = IRIS.to_dict(orient="records")


@pytest.fixture(scope="module")
def iris(client: Client, register: Registered) -> Iterator[str]:
    """An endpoint of the iris classifier."""
    client.deploy("curl-iris", "iris_classifier", register(zoo.IRIS_CLASSIFIER))
    yield "curl-iris"
    client.delete("curl-iris")


@pytest.fixture
def shell(client: Client, iris: str, tmp_path: Path) -> Shell:
    """Runs a line with the usual variables, in a directory with the files it names; returns the JSON answer."""
    (tmp_path / "body.json").write_text(json.dumps({"dataframe_records": RECORDS}))
    padded = {"dataframe_records": [{**record, "note": "x" * 700_000} for record in RECORDS]}
    (tmp_path / "big.json").write_text(json.dumps(padded))
    IRIS.to_csv(tmp_path / "body.csv", index=False)
    netrc = tmp_path / ".netrc"
    netrc.write_text(
        f"machine {urlsplit(client.access.host).hostname} login token password {client.access.token}\n"
    )
    netrc.chmod(0o600)
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "DATABRICKS_HOST": client.access.host,
        "DATABRICKS_TOKEN": client.access.token,
        "ENDPOINT": iris,
        "URL": f"{client.access.host}/serving-endpoints/{iris}/invocations",
        "API": f"{client.access.host}/api/2.0/serving-endpoints",
    }

    def run(line: str) -> Any:
        ended = subprocess.run(
            ["bash", "-c", line],
            env=variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert ended.returncode == 0, f"{line}\n{ended.stdout}\n{ended.stderr}"
        return json.loads(ended.stdout)

    return run


INLINE = '{"dataframe_split": {"columns": ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"], "data": [[5.1, 3.5, 1.4, 0.2]]}}'

THREE = [0, 1, 2]

SCORING = {
    "basic, data from a file": (
        'curl -s -u token:$DATABRICKS_TOKEN -X POST -H "Content-Type: application/json" -d @body.json $URL',
        THREE,
    ),
    "basic, no content type": ("curl -s -u token:$DATABRICKS_TOKEN $URL -d @body.json", THREE),
    "bearer, raw data": (
        f"""curl -s -X POST -H "Authorization: Bearer $DATABRICKS_TOKEN" -H "Content-Type: application/json" --data-raw '{INLINE}' $URL""",
        [0],
    ),
    "lower-case header names": (
        f"""curl -s -H "authorization: bearer $DATABRICKS_TOKEN" -H "content-type: application/json; charset=utf-8" -d '{INLINE}' $URL""",
        [0],
    ),
    "password from .netrc": ("curl -s -n -X POST $URL -d @body.json", THREE),
    "trailing slash": ("curl -s -n $URL/ -d @body.json", THREE),
    "csv from a file": ('curl -s -n -H "Content-Type: text/csv" --data-binary @body.csv $URL', THREE),
    "from standard input": (
        "cat body.json | curl -s -n -H 'Content-Type: application/json' -d @- $URL",
        THREE,
    ),
    "chunked": (
        "cat body.json | curl -s -n -H 'Transfer-Encoding: chunked' -H 'Content-Type: application/json' -T - -X POST $URL",
        THREE,
    ),
    "expects 100-continue": (
        'curl -s -n --expect100-timeout 20 -H "Expect: 100-continue" -H "Content-Type: application/json" -d @body.json $URL',
        THREE,
    ),
    "2 MB, for which curl expects 100-continue by itself": (
        'curl -s -n --expect100-timeout 20 -H "Content-Type: application/json" -d @big.json $URL',
        THREE,
    ),
    "http/1.0": ("curl -s -n --http1.0 -H 'Content-Type: application/json' -d @body.json $URL", THREE),
    "compressed answer is welcome": (
        "curl -s -n --compressed -H 'Content-Type: application/json' -d @body.json $URL",
        THREE,
    ),
    "a served entity by its name": (
        """served=$(curl -s -n $API/$ENDPOINT | python3 -c 'import json, sys; print(json.load(sys.stdin)["config"]["served_entities"][0]["name"])'); curl -s -n $DATABRICKS_HOST/serving-endpoints/$ENDPOINT/served-models/$served/invocations -d @body.json""",
        THREE,
    ),
}


@pytest.mark.parametrize("line", SCORING)
def test_scoring(shell: Shell, line: str):
    command, expected = SCORING[line]
    assert shell(command) == {"predictions": expected}


@pytest.mark.parametrize("url", ["$API", "$API/"])
def test_listing_with_and_without_a_trailing_slash(shell: Shell, iris: str, url: str):
    listed = shell(f"curl -s -n -X GET {url}")
    assert iris in [endpoint["name"] for endpoint in listed["endpoints"]]


def test_management_without_a_content_type(shell: Shell, new_name: Callable[[], str]):
    """``-d`` alone says "form": the API takes JSON whatever curl calls it."""
    name = new_name()
    created = shell(f"""curl -s -n -X POST $API -d '{{"name": "{name}"}}'""")
    assert created["name"] == name
    assert shell(f"curl -s -n $API/{name}/")["name"] == name
    assert shell(f"curl -s -n -X DELETE $API/{name}") == {}


def test_logs_of_a_config_version(shell: Shell):
    logs = """curl -s -n "$API/$ENDPOINT/served-models/$served/build-logs?config_version=1\""""
    described = shell("curl -s -n $API/$ENDPOINT")
    (served,) = described["config"]["served_entities"]
    assert shell(f"served={served['name']}; {logs}")["logs"].strip()


def test_a_wrong_password_is_an_error_that_fail_with_body_shows(shell: Shell):
    line = "curl -s --fail-with-body -u token:dapi0000 $API; code=$?; test $code -eq 22"
    assert shell(line)["error_code"] == "UNAUTHENTICATED"
