"""Messages that carry secrets do not show them when they are printed or refused."""

import pytest
from pydantic import ValidationError

from servery_common.contracts.builds import Artifacts, ModelEnvironment
from servery_common.contracts.replicas import VerifyModel

SECRET = "hunter2hunter2"
ARTIFACTS = Artifacts(model_path="m", environment_path="e", python="p", environment_key="k")


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
