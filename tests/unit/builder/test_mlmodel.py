"""MLmodel files of all ages are read."""

import pytest

from servery_builder.domain.build import BuildError
from servery_builder.domain.mlmodel import parse_mlmodel

MODERN = """
flavors:
  python_function:
    loader_module: mlflow.sklearn
    model_path: model.pkl
    code: null
    data: model
    artifacts: {vocabulary: {path: artifacts/words.txt, uri: /home/me/words.txt}}
    env: {conda: conda.yaml, virtualenv: python_env.yaml}
    python_version: 3.11.7
  sklearn: {pickled_model: model.pkl, data: /somewhere/else}
mlflow_version: 3.1.0
saved_input_example_info: {artifact_path: input_example.json}
"""


def test_a_modern_model_names_the_files_it_needs_once() -> None:
    model = parse_mlmodel(MODERN)
    assert sorted(model.paths) == ["artifacts/words.txt", "model", "model.pkl"]
    assert (model.mlflow_version, model.python_version) == ("3.1.0", "3.11.7")
    assert model.has_input_example


def test_an_old_model_names_its_conda_file_as_text() -> None:
    model = parse_mlmodel("flavors: {python_function: {loader_module: m, env: my_conda.yaml}}")
    assert (model.conda_file, model.python_env_file) == ("my_conda.yaml", "python_env.yaml")
    assert (model.paths, model.python_version, model.has_input_example) == ((), None, False)


def test_a_model_without_pyfunc_flavor_cannot_be_served_and_its_flavors_are_named() -> None:
    with pytest.raises(BuildError, match="its flavors: spark") as caught:
        parse_mlmodel("flavors: {spark: {model_data: sparkml}}")
    assert caught.value.failure.code == "LOAD_FAILED"


@pytest.mark.parametrize("text", ["a: [b", "", "just text"])
def test_what_is_no_model_is_refused(text: str) -> None:
    with pytest.raises(BuildError):
        parse_mlmodel(text)
