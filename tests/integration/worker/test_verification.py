"""What a builder learns about a model from a real worker."""

import sys
import uuid
import venv
from pathlib import Path
from typing import Any

import pandas as pd
from tests.integration.worker import models
from tests.integration.worker.worker_process import WorkerOrders, artifacts

from servery_common.contracts import subjects
from servery_common.contracts.builds import Artifacts
from servery_common.contracts.replicas import ModelVerified, VerifyModel, VerifyProgress
from servery_common.messaging.port import Bus

EXAMPLE = pd.DataFrame({"do": ["echo"]})


async def verify(
    bus: Bus, model: Path, *, made_of: Artifacts | None = None, **fields: Any
) -> tuple[ModelVerified, list[str]]:
    """The verdict and the lines before it."""
    order = VerifyModel(build_id=uuid.uuid4().hex, artifacts=made_of or artifacts(model), **fields)
    lines: list[str] = []
    verdicts: list[ModelVerified] = []
    answers = bus.request_stream(subjects.worker_verify(), order, [VerifyProgress, ModelVerified], silence=10)
    async for answer in answers:
        if isinstance(answer, ModelVerified):
            verdicts.append(answer)
        elif isinstance(answer, VerifyProgress) and answer.line is not None:
            lines.append(answer.line)
    [verdict] = verdicts
    return verdict, lines


async def test_a_good_model_is_verified_with_its_example(bus: Bus, orders: WorkerOrders, obedient: Path):
    verdict, lines = await verify(bus, obedient)
    assert (verdict.ok, verdict.example_predicted, verdict.error) == (True, True, "")
    assert verdict.python_version == sys.version.split()[0]
    assert verdict.mlflow_version.startswith("3.")
    assert "predicting the input example" in lines


async def test_without_an_example_only_loading_is_verified(
    bus: Bus, orders: WorkerOrders, model_directory: Path
):
    model = models.save(model_directory, "no_example", models.OBEDIENT)
    verdict, _ = await verify(bus, model)
    assert (verdict.ok, verdict.example_predicted) == (True, False)


async def test_a_missing_package_fails_the_import(bus: Bus, orders: WorkerOrders, model_directory: Path):
    model = models.save(model_directory, "broken_import", models.BROKEN_IMPORT)
    verdict, _ = await verify(bus, model)
    assert (verdict.ok, verdict.stage) == (False, "import")
    assert verdict.error == "ModuleNotFoundError: No module named 'a_package_nobody_has'"
    assert "Traceback" in verdict.traceback


async def test_a_model_that_cannot_predict_its_example_fails(
    bus: Bus, orders: WorkerOrders, model_directory: Path
):
    model = models.save(model_directory, "broken_predict", models.BROKEN_PREDICT, input_example=EXAMPLE)
    verdict, _ = await verify(bus, model)
    assert (verdict.ok, verdict.stage, verdict.error) == (
        False,
        "predict",
        "RuntimeError: no weights for do",
    )


async def test_a_process_that_ends_while_loading_is_a_failed_load(
    bus: Bus, orders: WorkerOrders, model_directory: Path
):
    model = models.save(model_directory, "dying", models.DYING_LOAD)
    verdict, _ = await verify(bus, model)
    assert (verdict.ok, verdict.stage) == (False, "load")
    assert "exited with status 7" in verdict.error


async def test_a_model_that_never_loads_is_ended_in_time(
    bus: Bus, orders: WorkerOrders, model_directory: Path
):
    model = models.save(model_directory, "never_loaded", models.NEVER_LOADED)
    verdict, lines = await verify(bus, model, timeout_seconds=3)
    assert not verdict.ok
    assert verdict.error == "did not finish within 3 s"
    assert "loading for ever" in lines


async def test_an_interpreter_that_does_not_exist_fails_the_start(
    bus: Bus, orders: WorkerOrders, obedient: Path
):
    missing = artifacts(obedient, "missing").model_copy(update={"python": "/nowhere/bin/python"})
    verdict, _ = await verify(bus, obedient, made_of=missing)
    assert (verdict.ok, verdict.stage) == (False, "start")


def environment_without_mlflow(directory: Path) -> Artifacts:
    venv.create(directory, with_pip=False)
    return Artifacts(
        model_path=str(directory),
        environment_path=str(directory),
        python=str(directory / "bin" / "python"),
        environment_key=directory.name,
    )


async def test_an_environment_without_mlflow_is_told_in_plain_words(
    bus: Bus, orders: WorkerOrders, tmp_path: Path
):
    made_of = environment_without_mlflow(tmp_path / "bare")
    verdict, _ = await verify(bus, tmp_path, made_of=made_of)
    assert (verdict.ok, verdict.stage) == (False, "import")
    assert verdict.error == "The model's environment does not contain MLflow; add mlflow to its requirements."


async def test_an_environment_with_an_mlflow_that_is_too_old_is_told_so(
    bus: Bus, orders: WorkerOrders, tmp_path: Path
):
    made_of = environment_without_mlflow(tmp_path / "old")
    [packages] = (tmp_path / "old" / "lib").glob("python*/site-packages")
    server = packages / "mlflow" / "pyfunc" / "scoring_server"
    server.mkdir(parents=True)
    (packages / "mlflow" / "__init__.py").write_text("__version__ = '2.5.0'")
    (packages / "mlflow" / "pyfunc" / "__init__.py").touch()
    (server / "__init__.py").touch()
    verdict, _ = await verify(bus, tmp_path, made_of=made_of)
    assert (verdict.ok, verdict.stage) == (False, "import")
    assert "contains MLflow 2.5.0; Servery needs MLflow 2.9 or newer" in verdict.error
