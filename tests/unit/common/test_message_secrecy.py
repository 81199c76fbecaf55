"""Messages that carry secrets do not show them when they are printed or refused."""

import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from servery_common.contracts.builds import Artifacts, ModelEnvironment
from servery_common.contracts.catalogue import CATALOGUE
from servery_common.contracts.replicas import VerifyModel

SECRET = "hunter2hunter2"
ARTIFACTS = Artifacts(model_path="m", environment_path="e", python="p", environment_key="k")

SECRETIVE = re.compile(r"token|secret|password|variables|environment_vars|private|body|credential")
"""Names of fields that hold what nobody may see."""
HARMLESS = {"token_sha256"}


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """A model, or the models in an annotation such as ``tuple[Model, ...] | None``, with those of their fields."""
    for inner in get_args(annotation):
        yield from models_in(inner)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from models_in(field.annotation)


def test_no_message_shows_a_field_whose_name_tells_of_a_secret():
    shown: dict[str, bool] = {
        f"{model.__name__}.{name}": field.repr
        for entry in CATALOGUE
        for model in models_in(entry.message)
        for name, field in model.model_fields.items()
        if SECRETIVE.search(name) and name not in HARMLESS
    }
    assert {"ModelTokenIssued.token", "IssueToken.client_secret", "ReplicaLaunch.environment_vars"} <= set(
        shown
    )
    assert [name for name, is_shown in shown.items() if is_shown] == []


def test_the_variables_of_a_model_are_not_shown():
    variables = {"KEY": SECRET}
    environment = ModelEnvironment(variables=variables)
    order = VerifyModel(build_id="b", artifacts=ARTIFACTS, environment_vars=variables)
    assert (environment.variables, order.environment_vars) == (variables, variables)
    assert SECRET not in f"{environment!r} {environment} {order!r} {order}"


def test_the_error_about_a_message_does_not_repeat_it():
    with pytest.raises(ValidationError) as caught:
        ModelEnvironment.model_validate({"variables": SECRET})
    assert SECRET not in str(caught.value)
