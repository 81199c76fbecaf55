"""The quota of a workspace, from the command line to the gateway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.end_to_end.client import Client, fine

BURST = 10
"""What any quota allows at once."""

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def servery(client: Client) -> Command:
    """Runs the ``servery`` command as the operator, or with another token."""

    def run(*arguments: str, token: str = client.access.token) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).with_name("servery")), *arguments],
            env={**os.environ, "DATABRICKS_HOST": client.access.host, "DATABRICKS_TOKEN": token},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def former_quota(client: Client, servery: Command) -> Iterator[int]:
    """Other tests of the stack need the workspace's quota as it was."""
    former = qps_of(servery("quota", "get", "--json"))
    yield former
    assert qps_of(servery("quota", "set", f"qps={former}", "--json")) == former


def qps_of(answer: subprocess.CompletedProcess[str]) -> int:
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return json.loads(answer.stdout)["qps"]


def test_a_workspace_is_held_to_its_quota_until_it_is_raised(
    client: Client, servery: Command, misbehaving: str, former_quota: int
):
    assert qps_of(servery("quota", "set", "qps=1", "--json")) == 1
    answers = [client.score(misbehaving, fine()) for _ in range(3 * BURST)]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(answers) - len(refused) >= BURST
    assert refused, "thirty at once are more than ten"
    for answer in refused:
        message = client.assert_error(answer, "REQUEST_LIMIT_EXCEEDED")
        assert "`servery quota set qps=N --workspace 1`" in message
        assert int(answer.headers["retry-after"]) >= 1

    assert (
        servery("quota", "set", "qps=3000", "--workspace", "1")
        .stdout.strip()
        .endswith("(1): 3000 requests per second, unlimited compute slots")
    )
    with ThreadPoolExecutor(8) as threads:
        raised = list(threads.map(lambda _: client.score(misbehaving, fine()), range(300)))
    assert {answer.status_code for answer in raised} == {200}
    assert qps_of(servery("quota", "set", "qps=default", "--json")) == 200


def test_quotas_are_shown_and_only_operators_choose_them(client: Client, servery: Command):
    made = json.loads(servery("workspace", "create", "e2e-quotas", "--admin", "eve", "--json").stdout)
    token, workspace_id = made["token_value"], made["workspace_id"]
    try:
        assert qps_of(servery("quota", "get", "--json", token=token)) == 200
        refused = servery("quota", "set", "qps=5000", token=token)
        assert refused.returncode == 1
        assert "PERMISSION_DENIED" in refused.stderr
        assert qps_of(servery("quota", "set", "qps=5000", "--workspace", "e2e-quotas", "--json")) == 5000
        rows = [line.split() for line in servery("quota", "list").stdout.splitlines()]
        assert [workspace_id, "e2e-quotas", "5000", "unlimited"] in rows
        assert qps_of(servery("quota", "get", "--json", token=token)) == 5000
        assert servery("quota", "list", token=token).returncode == 1
    finally:
        assert servery("workspace", "delete", "e2e-quotas").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("qps=0",), "from 1 to 1,000,000"),
        (("qps=2000000",), "from 1 to 1,000,000"),
        (("qps=-5",), "qps=N"),
        (("qps=nan",), "qps=N"),
        (("3000",), "qps=N"),
        (("qps=10", "--workspace", "nowhere"), "there is no workspace nowhere"),
    ],
)
def test_what_is_no_quota_is_refused_with_the_reason(servery: Command, arguments: tuple[str, ...], said: str):
    answer = servery("quota", "set", *arguments)
    assert answer.returncode != 0
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr
