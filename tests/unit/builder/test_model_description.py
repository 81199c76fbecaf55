"""What is told of a model, from files that are given as text."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from servery_builder.domain.build import BuildError
from servery_builder.domain.model_description import Description, describe_model

MODEL = Path("/model")
INPUTS = json.dumps([{"type": "double", "name": "x"}])


def describe(mlmodel: Any, **files: str) -> Description:
    texts = {MODEL / "MLmodel": yaml.safe_dump(mlmodel)}
    texts |= {MODEL / f"{name}.json": text for name, text in files.items()}

    def read(path: Path) -> str:
        if path not in texts:
            raise FileNotFoundError(path)
        return texts[path]

    return describe_model(MODEL, read)


def old_example(info: dict[str, str], content: Any) -> Any:
    """The request body made of an example of an MLflow that wrote none."""
    info = {"artifact_path": "input_example.json", **info}
    found = describe({"saved_input_example_info": info}, input_example=json.dumps(content)).input_example
    return None if found is None else json.loads(found)


def test_the_signature_is_told_as_it_was_written() -> None:
    signature = {"inputs": INPUTS, "outputs": "[]", "params": None}
    assert describe({"signature": signature}) == Description(INPUTS, "[]", None, None)


@pytest.mark.parametrize("mlmodel", [{}, [], "text", {"signature": None}, {"signature": {"inputs": 1}}])
def test_a_model_without_a_signature_has_none(mlmodel: Any) -> None:
    assert describe(mlmodel) == Description(None, None, None, None)


@pytest.mark.parametrize("text", ["{not JSON", "{}", "[" * 100_000])
def test_a_signature_that_is_no_list_is_none(text: str) -> None:
    assert describe({"signature": {"inputs": text}}).inputs is None


def test_the_request_body_that_mlflow_wrote_is_preferred() -> None:
    info = {"artifact_path": "input_example.json", "serving_input_path": "serving.json", "type": "dataframe"}
    body = {"dataframe_split": {"columns": ["x"], "data": [[1]]}}
    found = describe({"saved_input_example_info": info}, serving=json.dumps(body), input_example="{}")
    assert found.input_example is not None
    assert json.loads(found.input_example) == body


@pytest.mark.parametrize(
    ("info", "content", "body"),
    [
        (
            {"type": "dataframe", "pandas_orient": "split"},
            {"columns": ["x"], "data": [[1]]},
            {"dataframe_split": {"columns": ["x"], "data": [[1]]}},
        ),
        ({"type": "dataframe", "pandas_orient": "values"}, [[1]], {"dataframe_split": {"data": [[1]]}}),
        ({"type": "ndarray", "format": "tf-serving"}, {"inputs": [[1]]}, {"inputs": [[1]]}),
        ({"type": "ndarray"}, [[1]], {"inputs": [[1]]}),
        ({"type": "json_object"}, {"a": 1}, {"inputs": {"a": 1}}),
        ({"type": "json_object"}, ["a"], {"inputs": ["a"]}),
        (
            {"type": "dataframe", "params": "true"},
            {"inputs": {"columns": ["x"], "data": [[1]]}, "params": {"times": 2}},
            {"dataframe_split": {"columns": ["x"], "data": [[1]]}, "params": {"times": 2}},
        ),
        ({"type": "sparse_matrix_csr"}, {"data": [1]}, None),
        ({}, {"data": [1]}, None),
    ],
)
def test_examples_of_older_versions_become_request_bodies(
    info: dict[str, str], content: Any, body: Any
) -> None:
    assert old_example(info, content) == body


@pytest.mark.parametrize("content", ["{not JSON", "[" * 100_000, "[]"])
def test_an_example_that_cannot_be_used_is_left_out(content: str) -> None:
    info = {"serving_input_path": "serving.json"}
    assert describe({"saved_input_example_info": info}, serving=content).input_example is None


def test_an_example_that_is_not_there_is_left_out() -> None:
    assert describe({"saved_input_example_info": {"serving_input_path": "gone.json"}}).input_example is None


def test_an_example_outside_the_model_is_not_read() -> None:
    info = {"serving_input_path": "../model2/secret.json"}
    read: list[Path] = []

    def note(path: Path) -> str:
        read.append(path)
        return yaml.safe_dump({"saved_input_example_info": info})

    assert describe_model(MODEL, note).input_example is None
    assert read == [MODEL / "MLmodel"]


def test_files_that_are_no_yaml_are_refused() -> None:
    with pytest.raises(BuildError, match="not valid YAML"):
        describe_model(MODEL, lambda path: "{")
