"""The token file is found by databricks-sdk, is only its owner's, and goes with the runner."""

import asyncio
import json
from pathlib import Path

import pytest
from databricks.sdk.core import Config
from tests.waiting import until

from servery_common.contracts import subjects
from servery_common.contracts.access import IssueModelToken, ModelTokenIssued
from servery_common.errors import Unavailable
from servery_common.messaging.testing import InMemoryBus
from servery_worker import model_credentials
from servery_worker.model_credentials import MARKERS, TOKEN_FILE, ModelCredentials, variables, write_token
from servery_worker.model_token import ModelTokens


def test_a_bare_databricks_client_authenticates_with_what_a_model_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in variables(tmp_path, "http://gateway:8080").items():
        monkeypatch.setenv(name, value)
    write_token(tmp_path, "a.model.token")
    config = Config()
    assert config.host == "http://gateway:8080"
    assert config.authenticate() == {"Authorization": "Bearer a.model.token"}
    assert config.auth_type == "model-serving"


def test_the_file_is_readable_by_its_owner_only_and_replaced_whole(tmp_path: Path):
    write_token(tmp_path, "first")
    write_token(tmp_path, "second")
    [file] = tmp_path.iterdir()
    assert file.name == TOKEN_FILE
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text()) == {"OAUTH_TOKEN": [{"oauthTokenValue": "second"}]}


def test_an_unknown_host_is_not_said(tmp_path: Path):
    assert variables(tmp_path, "") == MARKERS | {"SERVING_CREDENTIALS_DIR": str(tmp_path)}


async def test_a_model_of_nobody_gets_no_directory_to_look_in(tmp_path: Path):
    credentials = ModelCredentials(ModelTokens(InMemoryBus()), "", tmp_path)
    assert await credentials.open() == MARKERS
    await credentials.close()


async def test_a_token_that_comes_late_appears_and_the_directory_goes_at_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(model_credentials, "SHORTEST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(model_credentials, "LONGEST_RETRY_SECONDS", 0.01)
    bus = InMemoryBus()
    here = asyncio.Event()

    async def issue(request: IssueModelToken) -> ModelTokenIssued:
        if not here.is_set():
            raise Unavailable("The controller is away.")
        return ModelTokenIssued(token="late", expires_at_ms=2**53, host="")

    await bus.serve(subjects.controller_issue_model_token(), IssueModelToken, issue)
    credentials = ModelCredentials(ModelTokens(bus), "s1", tmp_path)
    given = await credentials.open()
    file = Path(given["SERVING_CREDENTIALS_DIR"]) / TOKEN_FILE
    assert not file.exists()
    here.set()
    await until(file.exists)
    await credentials.close()
    assert list(tmp_path.iterdir()) == []
