"""Builds from the order to the result."""

import asyncio
from pathlib import Path

import pytest
from tests.integration.builder.peers import FakeWorker, Orderer, Registry

from servery_builder.settings import BuilderSettings
from servery_common.contracts import subjects
from servery_common.contracts.builds import BuildFailed, BuildStarted, BuildSucceeded, FailureCode
from servery_common.contracts.message import Message
from servery_common.contracts.replicas import ModelVerified
from servery_common.contracts.states import BuildState
from servery_common.errors import InvalidParameter
from servery_common.messaging.bus import NatsBus
from servery_common.postgres import Pool

pytestmark = pytest.mark.usefixtures("builder")


async def test_a_model_becomes_an_environment_of_its_own(
    registry: Registry, orderer: Orderer, worker: FakeWorker
) -> None:
    build_id = await orderer.order(registry.register(["six==1.16.0"]))
    status = await orderer.ended(build_id)

    assert status.state is BuildState.SUCCEEDED
    assert status.artifacts is not None
    assert (Path(status.artifacts.model_path) / "MLmodel").is_file()
    assert await installed(status.artifacts.python) == {"mlflow_skinny": "3.1.0", "six": "1.16.0"}
    assert [request.artifacts for request in worker.requests] == [status.artifacts]
    log = await orderer.log(build_id)
    assert "six==1.16.0" in log
    assert "model loaded" in log
    assert "The build succeeded" in log


async def test_a_second_model_with_the_same_requirements_installs_nothing(
    registry: Registry, orderer: Orderer, worker: FakeWorker, pool: Pool
) -> None:
    first = await orderer.ended(await orderer.order(registry.register(["six==1.16.0", "iniconfig"])))
    second_id = await orderer.order(registry.register(["iniconfig  # tools", "Six == 1.16.0"]))
    second = await orderer.ended(second_id)

    assert first.artifacts is not None
    assert second.artifacts is not None
    assert second.artifacts.environment_path == first.artifacts.environment_path
    assert second.artifacts.model_path != first.artifacts.model_path
    row = await pool.fetchrow("SELECT environment_cached FROM builds WHERE build_id = $1", second_id)
    assert row is not None
    assert row["environment_cached"]


async def test_a_name_that_means_something_in_an_address_is_built(
    registry: Registry, orderer: Orderer, worker: FakeWorker
) -> None:
    ended = await orderer.ended(await orderer.order(registry.register(["six==1.16.0"], name="a#b?c d.e")))
    assert ended.state is BuildState.SUCCEEDED, ended.reason


async def test_two_builds_of_the_same_environment_at_once_make_it_once(
    registry: Registry, orderer: Orderer, worker: FakeWorker, pool: Pool
) -> None:
    orders = [await orderer.order(registry.register(["six==1.15.0"])) for _ in range(2)]
    for build_id in orders:
        assert (await orderer.ended(build_id)).state is BuildState.SUCCEEDED
    cached = await pool.fetch("SELECT environment_cached FROM builds")
    assert sorted(row["environment_cached"] for row in cached) == [False, True]


async def test_a_repeated_order_changes_nothing_and_a_result_is_announced_once(
    registry: Registry, orderer: Orderer, worker: FakeWorker, bus: NatsBus
) -> None:
    told: list[Message] = []

    async def note(message: Message) -> None:
        told.append(message)

    async def listen() -> None:
        handlers = dict.fromkeys((BuildStarted, BuildSucceeded, BuildFailed), note)
        await bus.consume(subjects.EVENTS_STREAM, "test-events", subjects.ALL_BUILD_EVENTS, handlers)

    listening = asyncio.create_task(listen())
    model = registry.register(["six==1.16.0"])
    build_id = await orderer.order(model)
    before = await orderer.ended(build_id)
    await orderer.order(model, build_id)
    # An order that came later is done: so was the repetition.
    later = await orderer.order(model)
    await orderer.ended(later)

    assert await orderer.describe(build_id) == before
    assert len(worker.requests) == 2
    async with asyncio.timeout(10):
        while not any(isinstance(m, BuildSucceeded) and m.build_id == later for m in told):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert [type(m) for m in told if getattr(m, "build_id", "") == build_id] == [BuildStarted, BuildSucceeded]
    listening.cancel()


@pytest.mark.parametrize(
    ("requirements", "code", "reason"),
    [
        (
            ["servery-no-such-package"],
            "PACKAGE_NOT_FOUND",
            "There is no package named servery-no-such-package ",
        ),
        (["six==99.0"], "PACKAGE_NOT_FOUND", "There is no version 99.0 of six "),
        (["six==1.16.0", "python-dateutil==2.8.2", "six<1.5"], "VERSION_CONFLICT", "six"),
        (["./wheels/gone-1.0-py3-none-any.whl"], "ARTIFACT_MISSING", "gone-1.0-py3-none-any.whl"),
        (["-r more.txt"], "ARTIFACT_MISSING", "more.txt"),
        (["six=1.0"], "INSTALL_FAILED", "'six=1.0'"),
    ],
)
async def test_requirements_that_cannot_be_installed_fail_with_one_sentence(
    registry: Registry, orderer: Orderer, requirements: list[str], code: str, reason: str
) -> None:
    build_id = await orderer.order(registry.register(requirements))
    status = await orderer.ended(build_id)

    assert (status.state, status.code) == (BuildState.FAILED, code)
    assert reason in status.reason
    assert "\n" not in status.reason
    assert status.reason in await orderer.log(build_id)


async def test_a_failed_environment_leaves_nothing_behind(
    registry: Registry, orderer: Orderer, settings: BuilderSettings
) -> None:
    await orderer.ended(await orderer.order(registry.register(["six==99.0"])))
    assert [path.name for path in (settings.artifacts_dir / "environments").iterdir()] == [".locks"]


async def test_a_python_nobody_has_is_named_together_with_those_that_are_there(
    registry: Registry, orderer: Orderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = await orderer.ended(await orderer.order(registry.register([], python="3.99.1")))
    assert status.code == "PYTHON_NOT_AVAILABLE"
    assert "3.99.1" in status.reason
    assert "installed: 3." in status.reason


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ({"without": ("MLmodel",)}, "MLmodel"),
        ({"flavor": {"data": "weights"}}, "weights"),
    ],
)
async def test_missing_files_of_a_model_are_named_before_anything_is_installed(
    registry: Registry, orderer: Orderer, settings: BuilderSettings, model: dict, named: str
) -> None:
    status = await orderer.ended(await orderer.order(registry.register([], **model)))
    assert status.code == "ARTIFACT_MISSING"
    assert named in status.reason
    assert not [path for path in (settings.artifacts_dir / "environments").iterdir() if path.name != ".locks"]


async def test_a_version_that_vanished_since_it_was_resolved_is_named(orderer: Orderer) -> None:
    status = await orderer.ended(await orderer.order(("nobody", "1")))
    assert (status.code, status.reason) == ("MODEL_NOT_FOUND", "There is no registered model 'nobody'.")


async def test_a_model_that_does_not_import_fails_for_good_with_the_package_to_add(
    registry: Registry, orderer: Orderer, worker: FakeWorker
) -> None:
    worker.result = ModelVerified(
        build_id="",
        ok=False,
        stage="load",
        error="ModuleNotFoundError: No module named 'sklearn'",
        traceback="Traceback (most recent call last): ...",
    )
    build_id = await orderer.order(registry.register([]))
    status = await orderer.ended(build_id)
    assert status.code == "IMPORT_ERROR"
    assert "add scikit-learn to the model's pip requirements" in status.reason
    assert "Traceback (most recent call last)" in await orderer.log(build_id)
    assert len(worker.requests) == 1


async def test_a_build_waits_for_a_worker_and_says_so(
    registry: Registry, orderer: Orderer, bus: NatsBus
) -> None:
    build_id = await orderer.order(registry.register([]))
    await orderer.until_log_has(build_id, "Waiting for a worker")
    assert (await orderer.describe(build_id)).step == "Loading the model and predicting its input example"
    await FakeWorker().join(bus)
    assert (await orderer.ended(build_id)).state is BuildState.SUCCEEDED


async def test_what_a_model_is_given_is_in_no_log_and_in_no_table(
    registry: Registry, orderer: Orderer, worker: FakeWorker, pool: Pool
) -> None:
    worker.prints = ["connecting with hunter2hunter2"]
    orderer.environment = {"KEY": "hunter2hunter2"}
    build_id = await orderer.order(registry.register([]))
    assert (await orderer.ended(build_id)).state is BuildState.SUCCEEDED

    assert worker.requests[0].environment_vars == {"KEY": "hunter2hunter2"}
    assert worker.requests[0].served_entity_id == "se1"
    assert "connecting with [REDACTED]" in await orderer.log(build_id)
    for table in ("builds", "build_log_chunks", "outbox"):
        rows = await pool.fetch(f"SELECT row_to_json(t)::text AS row FROM {table} t")
        assert not [row for row in rows if "hunter2hunter2" in row["row"]], table


async def test_credentials_in_a_models_requirements_are_in_no_log(
    registry: Registry, orderer: Orderer, worker: FakeWorker
) -> None:
    requirements = ["--extra-index-url https://robot:swordfish@127.0.0.1:9/simple", "six==1.16.0"]
    build_id = await orderer.order(registry.register(requirements))
    status = await orderer.ended(build_id)
    assert "swordfish" not in await orderer.log(build_id) + status.reason


async def test_a_secret_that_is_gone_fails_the_build_and_names_the_variable(
    registry: Registry, orderer: Orderer, worker: FakeWorker
) -> None:
    orderer.environment = InvalidParameter("Environment variable 'KEY' refers to a secret that is gone.")
    status = await orderer.ended(await orderer.order(registry.register([])))
    assert (status.state, status.code) == (BuildState.FAILED, FailureCode.ENVIRONMENT_VARIABLE)
    assert status.reason == "Environment variable 'KEY' refers to a secret that is gone."
    assert worker.requests == []


async def installed(python: str) -> dict[str, str]:
    """What is installed in an environment, pip and its friends aside."""
    code = "import importlib.metadata as m; print(*{f'{d.name}={d.version}' for d in m.distributions()})"
    process = await asyncio.create_subprocess_exec(python, "-c", code, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return dict(item.split("=") for item in output.decode().split())
