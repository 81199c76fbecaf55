"""OpenAPI documents made of signatures as the installed MLflow writes them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from jsonschema import Draft202012Validator, ValidationError
from mlflow.models import ModelSignature, convert_input_example_to_serving_input
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array, Map, Object, Property
from openapi_spec_validator import validate
from tests.models import zoo
from tests.models.zoo import ZooModel

from servery_common.contracts.builds import ModelDescription
from servery_common.errors import BadRequest
from servery_controller.domain.openapi import DescribedEntity, openapi_document

WITH_SIGNATURE = [model for model in zoo.ZOO if model.name != "describe_input" and not model.unwrapped]


def description(signature: ModelSignature | None, example: Any = None) -> ModelDescription:
    """What the builder reads of a model that is logged with these."""
    parts = signature.to_dict() if signature else {}
    if example is not None and not isinstance(example, str):
        example = convert_input_example_to_serving_input(example)
    return ModelDescription(
        build_id="b1",
        inputs=parts.get("inputs"),
        outputs=parts.get("outputs"),
        params=parts.get("params"),
        input_example=example,
    )


def described(signature: ModelSignature | None, example: Any = None) -> dict[str, Any]:
    """The valid document of an endpoint with one such model."""
    entity = DescribedEntity("m", description(signature, example))
    document = openapi_document("iris", 3, "http://host:1", [entity])
    validate(document)
    return document["paths"]["/served-models/m/invocations"]["post"]


def body_schema(signature: ModelSignature, example: Any = None) -> Draft202012Validator:
    content = described(signature, example)["requestBody"]["content"]["application/json"]
    return Draft202012Validator(content["schema"])


def columns(*specs: ColSpec, params: list[ParamSpec] | None = None) -> ModelSignature:
    return ModelSignature(inputs=Schema(list(specs)), params=ParamSchema(params) if params else None)


@pytest.mark.parametrize("model", WITH_SIGNATURE, ids=lambda model: model.name)
def test_the_example_and_the_sample_of_every_model_of_the_zoo_fit(model: ZooModel) -> None:
    made = model.make()
    signature: ModelSignature = made["signature"]
    operation = described(signature, made.get("input_example"))
    content = operation["requestBody"]["content"]["application/json"]
    schema = Draft202012Validator(content["schema"])
    for example in content.get("examples", {}).values():
        schema.validate(example["value"])
    schema.validate(json.loads(model.sample.content))


def test_the_document_says_where_what_and_how() -> None:
    signature = columns(ColSpec("double", "x"))
    entities = [DescribedEntity("a/b", description(signature)), DescribedEntity("bare", description(None))]
    document = openapi_document("iris", 3, "http://host:1", entities)
    validate(document)
    assert document["openapi"] == "3.1.0"
    assert (document["info"]["title"], document["info"]["version"]) == ("iris", "3")
    assert "bare" in document["info"]["description"]
    assert document["servers"] == [{"url": "http://host:1/serving-endpoints/iris"}]
    assert list(document["paths"]) == ["/served-models/a%2Fb/invocations"]
    responses = document["paths"]["/served-models/a%2Fb/invocations"]["post"]["responses"]
    assert set(responses) == {"200", "400", "401", "403", "404", "429", "500", "503", "504"}


def test_without_any_signature_it_says_what_to_do() -> None:
    entities = [DescribedEntity("m", description(None)), DescribedEntity("n", description(None))]
    with pytest.raises(BadRequest, match="Log the model with one"):
        openapi_document("iris", 1, "http://host", entities)


def test_column_types_are_those_of_databricks() -> None:
    operation = described(
        columns(*(ColSpec(one.name, one.name) for one in DataType if one.name != "datetime"))
    )
    formats = operation["requestBody"]["content"]["application/json"]["schema"]["oneOf"]
    split, records = (one["properties"] for one in formats)
    record = records["dataframe_records"]["items"]
    assert record["properties"] == {
        "boolean": {"type": "boolean"},
        "integer": {"type": "integer", "format": "int32"},
        "long": {"type": "integer", "format": "int64"},
        "float": {"type": "number", "format": "float"},
        "double": {"type": "number", "format": "double"},
        "string": {"type": "string"},
        "binary": {"type": "string", "contentEncoding": "base64"},
    }
    data = split["dataframe_split"]["properties"]
    assert data["columns"]["items"]["enum"] == list(record["properties"]) == record["required"]
    assert data["data"]["items"]["prefixItems"] == list(record["properties"].values())


def test_optional_columns_may_be_null_or_absent_and_required_ones_may_not() -> None:
    schema = body_schema(columns(ColSpec("double", "x"), ColSpec("string", "note", required=False)))
    schema.validate({"dataframe_records": [{"x": 1.0}, {"x": 2, "note": None}]})
    for wrong in ({"note": "n"}, {"x": None}, {"x": "1"}, {"x": 1, "note": 2}):
        with pytest.raises(ValidationError):
            schema.validate({"dataframe_records": [wrong]})


def test_nested_types_are_described_to_the_bottom() -> None:
    signature = columns(
        ColSpec(
            Object([Property("city", DataType.string), Property("zip", DataType.long, required=False)]),
            "home",
        ),
        ColSpec(Array(Array(DataType.double)), "grid"),
        ColSpec(Map(DataType.boolean), "flags"),
        ColSpec(AnyType(), "extra", required=False),
    )
    schema = body_schema(signature)
    row = {"home": {"city": "a"}, "grid": [[1.5], []], "flags": {"new": True}, "extra": [1, "two"]}
    schema.validate({"dataframe_records": [row]})
    wrongs = ({"home": {}}, {"grid": [1.5]}, {"flags": {"new": 1}})
    for wrong in wrongs:
        with pytest.raises(ValidationError):
            schema.validate({"dataframe_records": [row | wrong]})


def test_params_have_types_and_defaults_and_none_is_needed() -> None:
    params = [
        ParamSpec("times", DataType.long, 1),
        ParamSpec("endings", DataType.string, ["."], shape=(-1,)),
        ParamSpec("seed", DataType.long, None),
    ]
    signature = columns(ColSpec("string", "text"), params=params)
    schemas = described(signature)["requestBody"]["content"]["application/json"]["schema"]["oneOf"]
    for one in schemas:
        described_params = one["properties"]["params"]["properties"]
        assert described_params["times"] == {"type": "integer", "format": "int64", "default": 1}
        assert described_params["endings"]["default"] == ["."]
        assert "params" not in one["required"]
    schema = body_schema(signature)
    schema.validate({"dataframe_records": [{"text": "a"}], "params": {"seed": None, "endings": ["!"]}})
    with pytest.raises(ValidationError):
        schema.validate({"dataframe_records": [{"text": "a"}], "params": {"times": "many"}})


def test_tensors_have_their_shape() -> None:
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("float32"), (-1, 2, 3))]),
        outputs=Schema([TensorSpec(np.dtype("int64"), (-1,))]),
    )
    schema = body_schema(signature)
    good = [[[1, 2, 3], [4, 5, 6.5]]]
    for name in ("inputs", "instances"):
        schema.validate({name: good})
        for wrong in ([[[1, 2, 3]]], [[[1, 2], [3, 4]]], [["a", "b"]], 1):
            with pytest.raises(ValidationError):
                schema.validate({name: wrong})
    answer = described(signature)["responses"]["200"]["content"]["application/json"]["schema"]
    Draft202012Validator(answer).validate({"predictions": [1, 2]})
    with pytest.raises(ValidationError):
        Draft202012Validator(answer).validate({"predictions": [[1]]})


def test_named_tensors_are_given_by_tensor_or_by_instance() -> None:
    specs = [TensorSpec(np.dtype("float64"), (-1, 2), name) for name in ("left", "right")]
    schema = body_schema(ModelSignature(inputs=Schema(specs)))
    schema.validate({"inputs": {"left": [[1, 2]], "right": [[3, 4]]}})
    schema.validate({"instances": [{"left": [1, 2], "right": [3, 4]}]})
    with pytest.raises(ValidationError):
        schema.validate({"inputs": {"left": [[1, 2]]}})


def test_values_without_names_are_a_list() -> None:
    schema = body_schema(columns(ColSpec("string")), ["one", "two"])
    schema.validate({"inputs": ["one", "two"]})
    with pytest.raises(ValidationError):
        schema.validate({"inputs": [1]})


@pytest.mark.parametrize("example", [{"x": 1.5, "y": "a"}, [{"x": 1.5, "y": "a"}], {"x": [1.5], "y": ["a"]}])
def test_a_format_that_only_the_example_shows_is_described_too(example: Any) -> None:
    signature = columns(ColSpec("double", "x"), ColSpec("string", "y"))
    schema = body_schema(signature, example)
    schema.validate(json.loads(convert_input_example_to_serving_input(example)))
    schema.validate({"dataframe_records": [{"x": 1.5, "y": "a"}]})
    with pytest.raises(ValidationError):
        schema.validate({"inputs": [{"x": "no number", "y": "a"}]})


def test_a_chat_is_described_by_its_fields() -> None:
    message = Object([Property("role", DataType.string), Property("content", DataType.string)])
    signature = columns(
        ColSpec(Array(message), "messages"), params=[ParamSpec("temperature", DataType.double, 1.0)]
    )
    schema = body_schema(signature, {"messages": [{"role": "user", "content": "hi"}]})
    schema.validate({"messages": [{"role": "user", "content": "hi"}], "temperature": 0.5})
    answer = described(signature, {"messages": []})["responses"]["200"]["content"]["application/json"]
    Draft202012Validator(answer["schema"]).validate({"choices": []})
    schema.validate({"dataframe_records": [{"messages": []}]})
    with pytest.raises(ValidationError):
        schema.validate({"messages": "hi"})


def test_predictions_of_named_columns_are_records_or_one_object() -> None:
    frame = pd.DataFrame({"score": [0.5], "label": ["a"]})
    signature = ModelSignature(
        inputs=Schema([ColSpec("double", "x")]), outputs=Schema([ColSpec("double", "score")])
    )
    answer = described(signature)["responses"]["200"]["content"]["application/json"]["schema"]
    Draft202012Validator(answer).validate({"predictions": frame.to_dict(orient="records")})
    Draft202012Validator(answer).validate({"predictions": {"score": [0.5]}})
    with pytest.raises(ValidationError):
        Draft202012Validator(answer).validate({"predictions": [{"score": "high"}]})


def test_types_of_a_newer_mlflow_are_described_as_anything() -> None:
    newer = ModelDescription(
        build_id="b1",
        inputs=json.dumps([{"type": "quaternion", "name": 7}, {"type": ["odd"], "name": "y"}, "odd"]),
        outputs=json.dumps([{"type": "map", "values": "odd"}]),
        params=json.dumps([{"name": "p", "type": "quaternion", "default": [1, 2], "shape": None}]),
    )
    document = openapi_document("iris", 1, "http://host", [DescribedEntity("m", newer)])
    validate(document)
    content = document["paths"]["/served-models/m/invocations"]["post"]["requestBody"]["content"]
    schema = Draft202012Validator(content["application/json"]["schema"])
    schema.validate({"dataframe_records": [{"7": [1, 0, 0, 0], "y": None}]})


def test_numbers_that_json_has_not_are_null() -> None:
    signature = columns(ColSpec("double", "x", required=False))
    example = '{"dataframe_split": {"columns": ["x"], "data": [[NaN], [-Infinity], [1e999], [1.5]]}}'
    operation = described(signature, example)
    shown = operation["requestBody"]["content"]["application/json"]["examples"]["logged"]["value"]
    assert shown["dataframe_split"]["data"] == [[None], [None], [None], [1.5]]


def test_what_is_nested_too_deep_is_described_as_anything() -> None:
    column: dict[str, Any] = {"type": "double"}
    for _ in range(200):
        column = {"type": "array", "items": column}
    tensor = {"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [1] * 10_000}}
    for field in (column | {"name": "x"}, column, tensor):
        odd = ModelDescription(build_id="b1", inputs=json.dumps([field]), params='[{"type": "long"}]')
        document = openapi_document("iris", 1, "http://host", [DescribedEntity("m", odd)])
        assert json.dumps(document)
