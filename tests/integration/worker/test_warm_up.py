"""A replica predicts its input example before it takes requests, and takes them whatever comes of that."""

from pathlib import Path

import pandas as pd
import pytest
from tests.integration.worker import models
from tests.integration.worker.scoring_client import ScoringClient, do_body
from tests.integration.worker.worker_process import WorkerOrders

from servery_common.contracts.replicas import BATCHING_VARIABLE, WARM_UP_VARIABLE
from servery_common.contracts.states import ReplicaState

NOTING = """
import os, sys, threading, time
import mlflow
from mlflow.pyfunc import PythonModel

class Noting(PythonModel):
    "Notes each prediction and its thread; does with its example what EXAMPLE says."
    def predict(self, context, model_input, params=None):
        word = str(model_input["do"].iloc[0])
        with open(os.environ["NOTES"], "a") as notes:
            print(word, threading.current_thread().name, file=notes)
        if word == "example":
            what = os.environ.get("EXAMPLE")
            if what == "fail":
                raise ValueError("not today")
            if what == "end":
                os._exit(3)
            if what == "hang":
                time.sleep(600)
        return [word]

mlflow.models.set_model(Noting())
"""


@pytest.fixture(scope="session")
def noting(model_directory: Path) -> Path:
    example = pd.DataFrame({"do": ["example"]})
    return models.save(model_directory, "noting", NOTING, input_example=example)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes"
    path.touch()
    return path


def variables(notes: Path, **more: str) -> dict[str, str]:
    # Without the trial of batching, which predicts the example and more.
    return {"NOTES": str(notes), BATCHING_VARIABLE: "off", **more}


async def test_the_example_is_predicted_once_in_a_thread_that_serves_before_the_replica_is_ready(
    client: ScoringClient, orders: WorkerOrders, noting: Path, notes: Path
):
    replica_id = await orders.launch(noting, slots=1, environment_vars=variables(notes))
    assert notes.read_text() == "example predict-0\n"
    _, call = await client.send(replica_id, do_body("hello"))
    await call.done.wait()
    assert call.json == {"predictions": ["hello"]}
    assert notes.read_text() == "example predict-0\nhello predict-0\n"
    await orders.stop(replica_id)


async def test_it_is_not_where_the_served_entity_says_so(
    client: ScoringClient, orders: WorkerOrders, noting: Path, notes: Path
):
    environment_vars = variables(notes, **{WARM_UP_VARIABLE: "off"})
    replica_id = await orders.launch(noting, environment_vars=environment_vars)
    assert notes.read_text() == ""
    assert (await client.ask(replica_id, "hello")).status == 200
    await orders.stop(replica_id)


@pytest.mark.parametrize("example", ["fail", "hang"])
async def test_an_example_that_fails_or_never_ends_keeps_no_replica_from_serving(
    client: ScoringClient, orders: WorkerOrders, noting: Path, notes: Path, example: str
):
    # One slot: a request would wait for ever behind an example that is in its place.
    replica_id = await orders.launch(noting, slots=1, environment_vars=variables(notes, EXAMPLE=example))
    assert notes.read_text() == "example predict-0\n"
    assert (await client.ask(replica_id, "hello")).json == {"predictions": ["hello"]}
    await orders.stop(replica_id)


async def test_an_example_that_ends_the_process_fails_the_replica_and_says_that_it_was_the_prediction(
    orders: WorkerOrders, noting: Path, notes: Path
):
    replica_id = await orders.launch(noting, wait=False, environment_vars=variables(notes, EXAMPLE="end"))
    beat = await orders.until(
        lambda beat: any(
            one.replica_id == replica_id and one.state is ReplicaState.FAILED for one in beat.replicas
        )
    )
    [failed] = [one for one in beat.replicas if one.replica_id == replica_id]
    assert failed.reason == "predict: The model's process exited with status 3."
    await orders.stop(replica_id)
