"""What a builder tells of the models it built."""

import json
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from servery_builder.model_descriptions import LONGEST_EXAMPLE, LONGEST_SIGNATURE
from servery_common.contracts import subjects
from servery_common.contracts.builds import Artifacts, DescribeModel, ModelDescription
from servery_common.errors import BadRequest, NotFound
from servery_common.messaging.bus import NatsBus
from servery_common.postgres import Pool

pytestmark = pytest.mark.usefixtures("builder")

INPUTS = json.dumps([{"type": "double", "name": "x", "required": True}])
EXAMPLE = {"dataframe_split": {"columns": ["x"], "data": [[1.5]]}}


async def ask(bus: NatsBus, build_id: str) -> ModelDescription:
    subject = subjects.builder_describe_model()
    return await bus.request(subject, DescribeModel(build_id=build_id), ModelDescription, timeout=10)


@pytest.fixture
async def build_id(pool: Pool, tmp_path: Path) -> str:
    """A build that succeeded; its model's files are the test's business."""
    build_id = uuid4().hex
    artifacts = Artifacts(
        model_path=str(tmp_path / "model"), environment_path="e", python="p", environment_key="k"
    )
    await pool.execute(
        """INSERT INTO builds (build_id, endpoint_id, served_entity_id, model_name, model_version,
                               trace_context, state, artifacts)
           VALUES ($1, 'e', 's', 'm', '1', '{}', 'SUCCEEDED', $2)""",
        build_id,
        artifacts.model_dump(),
    )
    return build_id


def write(tmp_path: Path, inputs: str = INPUTS, example: object = EXAMPLE) -> None:
    info = {"artifact_path": "input_example.json", "serving_input_path": "serving_input_example.json"}
    mlmodel = {"signature": {"inputs": inputs, "outputs": None}, "saved_input_example_info": info}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text(yaml.safe_dump(mlmodel))
    (tmp_path / "model" / "serving_input_example.json").write_text(json.dumps(example))


async def test_signature_and_example_of_a_build_are_told(bus: NatsBus, build_id: str, tmp_path: Path) -> None:
    write(tmp_path)
    told = await ask(bus, build_id)
    assert (told.inputs, told.outputs, told.params) == (INPUTS, None, None)
    assert told.input_example is not None
    assert json.loads(told.input_example) == EXAMPLE


async def test_a_long_example_is_left_out(bus: NatsBus, build_id: str, tmp_path: Path) -> None:
    write(tmp_path, example={"inputs": "x" * LONGEST_EXAMPLE})
    told = await ask(bus, build_id)
    assert told.inputs == INPUTS
    assert told.input_example is None


async def test_a_signature_that_fits_no_message_is_refused(
    bus: NatsBus, build_id: str, tmp_path: Path
) -> None:
    write(tmp_path, inputs=json.dumps([{"type": "double", "name": "x" * LONGEST_SIGNATURE}]))
    with pytest.raises(BadRequest, match="too long"):
        await ask(bus, build_id)


async def test_an_unknown_build_and_files_that_are_gone_are_not_found(bus: NatsBus, build_id: str) -> None:
    with pytest.raises(NotFound, match="no model yet"):
        await ask(bus, "b0")
    with pytest.raises(NotFound, match="not on the artifact volume"):
        await ask(bus, build_id)
