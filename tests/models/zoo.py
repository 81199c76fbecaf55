"""The model zoo: one small real MLflow model for each kind of answer a model server must get right.

Each ``ZooModel`` knows how to make its model and which bodies to try, good and bad. All models name the
same pinned requirements, so that one environment serves the whole zoo. Making a model is left to ``log``
and ``save``: importing this module trains nothing.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from tests.models import estimators
from tests.models.bodies import Body, every_format, json_body, malformed, schema_violations, with_params

_PACKAGES = (
    "mlflow",
    "numpy",
    "pandas",
    "scikit-learn",
    "scipy",
    "skops",
    "cloudpickle",
    "pyarrow",
    "lightgbm",
)

NUMBERS = pd.DataFrame({"x": [0.5, 2.0, -1.25]})


@dataclass(frozen=True)
class ZooModel:
    """A model and the bodies to ask it."""

    name: str
    flavor: str
    """Module with ``save_model`` and ``log_model``: ``mlflow.sklearn``, ``mlflow.pyfunc``, …"""
    make: Callable[[], Mapping[str, Any]]
    """Arguments for the flavor's ``save_model`` and ``log_model``: the model, its signature and example."""
    bodies: tuple[Body, ...] = field(repr=False)
    sample: Body = field(repr=False)
    """A body the model answers with 200."""
    unwrapped: bool = False
    """It is asked in the format of chat, completions or embeddings: what it answers is the whole answer."""


def requirements() -> list[str]:
    """What every model of the zoo needs, pinned to what is installed here."""
    return [f"{package}=={version(package)}" for package in _PACKAGES]


def save(model: ZooModel, path: Path) -> None:
    """Write the model as an MLflow model directory."""
    with _quiet_flavor(model) as flavor:
        flavor.save_model(path=str(path), **_arguments(model))


def log(model: ZooModel, tracking_uri: str, registered_name: str | None = None) -> str:
    """Log the model to a tracking server and register it. Returns the version of the registered model."""
    import mlflow

    with using(tracking_uri), _quiet_flavor(model) as flavor, mlflow.start_run():
        info = flavor.log_model(
            name="model",
            registered_model_name=registered_name or model.name,
            **_arguments(model),
        )
    return str(info.registered_model_version)


@contextmanager
def using(tracking_uri: str) -> Iterator[None]:
    """Let MLflow use this server. It keeps the address for the process: other tests have servers of their own."""
    import mlflow

    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)


def _arguments(model: ZooModel) -> dict[str, Any]:
    """What the flavor is called with; a model may name requirements of its own."""
    return {"pip_requirements": requirements(), **model.make()}


@contextmanager
def _quiet_flavor(model: ZooModel) -> Iterator[Any]:
    """The flavor's module, without MLflow's advice about type hints, examples and integer columns."""
    flavor = importlib.import_module(model.flavor)
    with warnings.catch_warnings(record=True):  # into a list nobody reads; MLflow resets mere filters
        _pickle_python_models_by_value()
        yield flavor


def _pickle_python_models_by_value() -> None:
    """The model's environment has no ``tests`` package."""
    import cloudpickle
    from tests.models import agents, python_models

    for module in (agents, python_models):
        cloudpickle.register_pickle_by_value(module)


def _python(name: str, frame: pd.DataFrame | None, bodies: list[Body], **options: Any) -> ZooModel:
    """A model of ``python_models``: its class is ``name`` in camel case, its signature that of ``frame``."""

    def make() -> Mapping[str, Any]:
        return estimators.python_model(name, frame, **options)

    every = [*bodies, *(malformed(frame) if frame is not None else [])]
    return ZooModel(name, "mlflow.pyfunc", make, tuple(every), sample=bodies[0])


def _talking(name: str, kind: str, bodies: list[Body]) -> ZooModel:
    """A model of ``agents``; its interface brings its signature, or there is none."""

    def make() -> Mapping[str, Any]:
        from tests.models import agents

        return {"python_model": getattr(agents, kind)()}

    return ZooModel(name, "mlflow.pyfunc", make, tuple(bodies), sample=bodies[0], unwrapped=True)


def _asked_for(column: str, *wishes: str) -> list[Body]:
    """One body per wish, for models that do what a text column asks for."""
    return [json_body(f"{column}_{wish}", {"dataframe_records": [{column: wish}]}) for wish in wishes]


IRIS_CLASSIFIER = ZooModel(
    "iris_classifier",
    "mlflow.sklearn",
    estimators.iris_classifier,
    bodies=(
        *every_format(estimators.IRIS),
        *schema_violations(estimators.IRIS, "petal width (cm)"),
        *malformed(estimators.IRIS),
    ),
    sample=every_format(estimators.IRIS)[0],
)

HOUSE_PRICES = ZooModel(
    "house_prices",
    "mlflow.sklearn",
    estimators.house_prices,
    bodies=(*every_format(estimators.HOUSES), *schema_violations(estimators.HOUSES, "rooms")),
    sample=every_format(estimators.HOUSES)[1],
)

PASSENGERS = ZooModel(
    "passengers",
    "mlflow.sklearn",
    estimators.passengers,
    bodies=(
        *every_format(estimators.PASSENGERS),
        *schema_violations(estimators.PASSENGERS, "deck"),
        json_body("unseen_category", {"dataframe_records": [{"sex": "?", "deck": "Z", "age": 3.0}]}),
        json_body("unicode", {"dataframe_records": [{"sex": "名前", "deck": "É", "age": 3.0}]}),
    ),
    sample=every_format(estimators.PASSENGERS)[0],
)

LIGHTGBM_CLASSIFIER = ZooModel(
    "lightgbm_classifier",
    "mlflow.lightgbm",
    estimators.lightgbm_classifier,
    bodies=(*every_format(estimators.IRIS), *schema_violations(estimators.IRIS, "petal width (cm)")),
    sample=every_format(estimators.IRIS)[0],
)

TENSOR_REGRESSOR = ZooModel(
    "tensor_regressor",
    "mlflow.sklearn",
    estimators.tensor_regressor,
    bodies=(
        json_body("inputs", {"inputs": [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]}),
        json_body("instances", {"instances": [[0.0, 1.0, 2.0, 3.0]]}),
        json_body("integers", {"inputs": [[0, 1, 2, 3]]}),
        json_body("one_dimension", {"inputs": [0.0, 1.0, 2.0, 3.0]}),
        json_body("wrong_width", {"inputs": [[0.0, 1.0]]}),
        json_body("ragged", {"inputs": [[0.0, 1.0], [1.0]]}),
        json_body("text", {"inputs": [["a", "b", "c", "d"]]}),
        json_body("named", {"inputs": {"a": [[0.0, 1.0, 2.0, 3.0]]}}),
        json_body("no_rows", {"inputs": []}),
        *every_format(pd.DataFrame([[0.0, 1.0, 2.0, 3.0]], columns=["a", "b", "c", "d"]), prefix="frame_"),
    ),
    sample=json_body("inputs", {"inputs": [[0.0, 1.0, 2.0, 3.0]]}),
)

_SAYS_HI = {"messages": [{"role": "user", "content": "hi there, zwölf"}]}

CHAT_MODEL = _talking(
    "echo_chat",
    "EchoChat",
    [
        json_body("messages", _SAYS_HI),
        json_body("params", {**_SAYS_HI, "temperature": 0.25, "max_tokens": 7, "stop": ["."]}),
        json_body("stream_false", {**_SAYS_HI, "stream": False}),
        json_body("unknown_key", {**_SAYS_HI, "unheard_of": 1}),
        json_body("several", {"messages": [{"role": "system", "content": "be"}, *_SAYS_HI["messages"]]}),
        json_body("no_messages", {"messages": []}),
        json_body("not_a_list", {"messages": "hi"}),
        json_body("no_content", {"messages": [{"role": "user"}]}),
        json_body("wrong_param", {**_SAYS_HI, "temperature": "hot"}),
        json_body("prompt", {"prompt": "hi"}),
        json_body("inputs", {"inputs": _SAYS_HI}),
        json_body("records", {"dataframe_records": [_SAYS_HI]}),
    ],
)

CHAT_AGENT = _talking(
    "echo_agent",
    "EchoAgent",
    [
        json_body("messages", _SAYS_HI),
        json_body("custom_inputs", {**_SAYS_HI, "custom_inputs": {"a": 1}, "context": {"user_id": "u"}}),
        json_body("stream_false", {**_SAYS_HI, "stream": False}),
        json_body("unknown_key", {**_SAYS_HI, "unheard_of": 1}),
        json_body("no_messages", {"messages": []}),
        json_body("not_a_list", {"messages": "hi"}),
        json_body("no_role", {"messages": [{"content": "hi"}]}),
        json_body("inputs", {"inputs": _SAYS_HI}),
    ],
)

RESPONSES_AGENT = _talking(
    "echo_responses",
    "EchoResponses",
    [
        json_body("input", {"input": _SAYS_HI["messages"]}),
        json_body("custom_inputs", {"input": _SAYS_HI["messages"], "custom_inputs": {"a": 1}}),
        json_body("stream_false", {"input": _SAYS_HI["messages"], "stream": False}),
        json_body("text", {"input": "hi"}),
        json_body("no_input", {"input": []}),
        json_body("messages", _SAYS_HI),
    ],
)

COMPLETIONS = _talking(
    "completions",
    "Completions",
    [
        json_body("prompt", {"prompt": "hi", "temperature": 0.5}),
        json_body("stream_false", {"prompt": "hi", "stream": False}),
        json_body("params", {"prompt": "hi", "params": {"a": 1}}),
        json_body("number", {"prompt": 1}),
        json_body("messages", _SAYS_HI),
    ],
)

EMBEDDINGS = _talking(
    "embeddings",
    "Embeddings",
    [
        json_body("text", {"input": "hi"}),
        json_body("texts", {"input": ["hi", "zwölf"], "dimensions": 2}),
        json_body("numbers", {"input": [1, 2]}),
        json_body("prompt", {"prompt": "hi"}),
    ],
)

TEXT_OUTPUT = _python("text_output", NUMBERS, every_format(NUMBERS))

_TEXTS = pd.DataFrame({"text": ["one", "zwölf"]})

ZOO: tuple[ZooModel, ...] = (
    IRIS_CLASSIFIER,
    HOUSE_PRICES,
    PASSENGERS,
    LIGHTGBM_CLASSIFIER,
    TENSOR_REGRESSOR,
    CHAT_MODEL,
    CHAT_AGENT,
    RESPONSES_AGENT,
    COMPLETIONS,
    EMBEDDINGS,
    _python(
        "repeat_text",
        _TEXTS,
        [
            *every_format(_TEXTS),
            *with_params(
                _TEXTS,
                {
                    "all": {"times": 3, "separator": "-", "shout": True, "endings": ["!", "?"]},
                    "some": {"times": 2},
                    "empty": {},
                    "null": None,
                    "null_value": {"times": None},
                    "unknown": {"times": 2, "unheard_of": 1},
                    "text_for_number": {"times": "many"},
                    "fraction_for_integer": {"times": 2.5},
                    "whole_fraction": {"times": 2.0},
                    "number_for_text": {"separator": 1},
                    "scalar_for_list": {"endings": "!"},
                    "mixed_list": {"endings": ["!", 1]},
                    "number_for_flag": {"shout": 1},
                    "is_text": "times=2",
                },
            ),
        ],
        params={"times": 1, "separator": " ", "shout": False, "endings": ["."]},
    ),
    _python("frame_output", NUMBERS, [*every_format(NUMBERS), *schema_violations(NUMBERS, "x")]),
    _python("series_output", NUMBERS, every_format(NUMBERS)),
    _python("dict_output", NUMBERS, every_format(NUMBERS)),
    TEXT_OUTPUT,
    _python(
        "next_day",
        estimators.MOMENTS,
        [
            *every_format(estimators.MOMENTS),
            *schema_violations(estimators.MOMENTS, "when"),
            json_body("date_only", {"dataframe_records": [{"when": "2024-02-29", "id": 1}]}),
            json_body("with_zone", {"dataframe_records": [{"when": "2024-02-29T12:00:00+02:00", "id": 1}]}),
            json_body("epoch_ms", {"dataframe_records": [{"when": 1709208000000, "id": 1}]}),
            json_body("no_such_day", {"dataframe_records": [{"when": "2023-02-29", "id": 1}]}),
        ],
    ),
    _python(
        "optional_columns",
        estimators.OPTIONAL,
        [
            *every_format(estimators.OPTIONAL),
            json_body("only_required", {"dataframe_records": [{"x": 1.0}, {"x": 2.0}]}),
            json_body("one_optional", {"dataframe_records": [{"x": 1.0, "note": "n"}]}),
            json_body("in_some_rows", {"dataframe_records": [{"x": 1.0, "note": "n"}, {"x": 2.0}]}),
            json_body("null_optional", {"dataframe_records": [{"x": 1.0, "note": None, "weight": None}]}),
            json_body("wrong_optional", {"dataframe_records": [{"x": 1.0, "weight": "heavy"}]}),
            json_body("missing_required", {"dataframe_records": [{"note": "n"}]}),
        ],
        optional=("note", "weight"),
    ),
    _python(
        "describe_input",
        None,
        [
            *every_format(estimators.PASSENGERS),
            *malformed(estimators.PASSENGERS),
            json_body("inputs_nested", {"inputs": {"a": [[1, 2], [3, 4]], "b": [0.5, 1]}}),
            json_body("inputs_ragged", {"inputs": [[1], [2, 3]]}),
            json_body("inputs_text", {"inputs": "just text"}),
            json_body("inputs_empty", {"inputs": {}}),
            json_body("instances_mixed", {"instances": [{"a": 1}, 2]}),
            json_body("instances_unequal", {"instances": [{"a": 1}, {"b": 2}]}),
            json_body("messages", {"messages": [{"role": "user", "content": "hi"}], "temperature": 0.5}),
            json_body("prompt", {"prompt": "hi"}),
            json_body("deep", {"inputs": [[[[[[1]]]]]]}),
            json_body("large_numbers", {"inputs": [2**63, 2**70, 1e400]}),
            json_body("params", {"inputs": [1], "params": {"a": 1}}),
        ],
    ),
    _python(
        "named_tensors",
        None,
        [
            json_body("inputs", {"inputs": {"left": [[1, 2]], "right": [[3, 4]]}}),
            json_body("instances", {"instances": [{"left": [1, 2], "right": [3, 4]}]}),
            json_body("missing", {"inputs": {"left": [[1, 2]]}}),
            json_body("wrong_shape", {"inputs": {"left": [[1, 2, 3]], "right": [[3, 4]]}}),
            json_body("text", {"inputs": {"left": [["a", "b"]], "right": [[3, 4]]}}),
            json_body("frame", {"dataframe_records": [{"left": [1, 2], "right": [3, 4]}]}),
        ],
        tensors={"left": ("float32", (-1, 2)), "right": ("float32", (-1, 2))},
    ),
    _python(
        "nested_types",
        estimators.NESTED,
        [
            *[body for body in every_format(estimators.NESTED) if "csv" not in body.name],
            json_body("missing_key", {"dataframe_records": [{"address": {}, "amounts": [1.0]}]}),
            json_body(
                "extra_key", {"dataframe_records": [{"address": {"city": "a", "zip": 1}, "amounts": [1.0]}]}
            ),
            json_body("wrong_item", {"dataframe_records": [{"address": {"city": "a"}, "amounts": ["x"]}]}),
            json_body("not_a_list", {"dataframe_records": [{"address": {"city": "a"}, "amounts": 1.0}]}),
        ],
    ),
    _python(
        "not_finite",
        pd.DataFrame({"x": [0.0, 1.0], "as": ["array", "array"]}),
        [
            json_body(f"as_{shape}", {"dataframe_records": [{"x": 0.0, "as": shape}]})
            for shape in ("array", "frame", "nested")
        ]
        + [json_body("not_finite_input", {"dataframe_records": [{"x": float("nan"), "as": "array"}]})],
    ),
    _python(
        "raises",
        pd.DataFrame({"kind": ["fine"]}),
        _asked_for("kind", "fine", "value", "key", "zero", "chained", "unprintable"),
    ),
    _python(
        "raises_mlflow",
        pd.DataFrame({"code": ["fine"]}),
        _asked_for(
            "code",
            "fine",
            "BAD_REQUEST",
            "INVALID_PARAMETER_VALUE",
            "PERMISSION_DENIED",
            "NOT_FOUND",
            "RESOURCE_DOES_NOT_EXIST",
            "RESOURCE_CONFLICT",
            "RESOURCE_EXHAUSTED",
            "INTERNAL_ERROR",
            "NOT_IMPLEMENTED",
            "TEMPORARILY_UNAVAILABLE",
            "DEADLINE_EXCEEDED",
        ),
    ),
    _python(
        "not_serialisable",
        pd.DataFrame({"kind": ["fine"]}),
        _asked_for(
            "kind", "fine", "object", "set", "complex", "bytes", "generator", "keys", "surrogate", "none"
        ),
    ),
)

# Not in ``ZOO``: MLflow's own server would not survive them, or cannot run them here.


def misbehaves(
    version: str = "1", *, at_load: str = "", at_predict: str = "", spared: str = "", **overrides: Any
) -> ZooModel:
    """A model that can be told to sleep, raise or take its process down, and says which version it is.

    It can also be built so that it cannot be loaded, or answers nothing. ``overrides`` replace arguments of the flavor,
    for example ``pip_requirements``.
    """
    frame = pd.DataFrame({"kind": ["fine"]})
    habits = {"version": version, "at_load": at_load, "at_predict": at_predict, "spared": spared}

    def make() -> Mapping[str, Any]:
        return {**estimators.python_model("misbehaves", frame, **habits), **overrides}

    bodies = _asked_for("kind", "fine", "raise", "exit")
    return ZooModel("misbehaves", "mlflow.pyfunc", make, tuple(bodies), sample=bodies[0])


def reveal_environment() -> ZooModel:
    """A model that answers the values of environment variables."""
    frame = pd.DataFrame({"name": ["HOME"]})
    bodies = _asked_for("name", "HOME")
    make = partial(estimators.python_model, "reveal_environment", frame)
    return ZooModel("reveal_environment", "mlflow.pyfunc", make, tuple(bodies), sample=bodies[0])


def current_user() -> ZooModel:
    """A model that calls the platform with databricks-sdk."""
    frame = pd.DataFrame({"x": [1.0]})
    sdk = f"databricks-sdk=={version('databricks-sdk')}"

    def make() -> Mapping[str, Any]:
        return {
            **estimators.python_model("current_user", frame),
            "pip_requirements": [*requirements(), sdk],
        }

    body = json_body("one row", {"dataframe_records": [{"x": 1.0}]})
    return ZooModel("current_user", "mlflow.pyfunc", make, (body,), sample=body)


OLDER_PACKAGES = ZooModel(
    "older_packages",
    "mlflow.pyfunc",
    estimators.older_packages,
    bodies=tuple(every_format(NUMBERS)),
    sample=every_format(NUMBERS)[0],
)
"""Needs other versions of MLflow, scikit-learn, NumPy and pandas than are installed here."""
