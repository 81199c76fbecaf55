"""Every way MLflow has described environments becomes one spec with one key."""

from dataclasses import replace
from pathlib import Path

import pytest

from servery_builder.domain.build import BuildError
from servery_builder.domain.environment_spec import EnvironmentSpec, environment_key, read_environment_spec
from servery_builder.domain.mlmodel import MlModel

MODEL = MlModel("2.9.1", "3.10.4", "python_env.yaml", "conda.yaml", (), True)
DIRECTORY = Path("/models/m")


def spec(files: dict[str, str], model: MlModel = MODEL) -> EnvironmentSpec:
    def read(path: Path) -> str:
        try:
            return files[str(path.relative_to(DIRECTORY))]
        except KeyError:
            raise FileNotFoundError(path) from None

    return read_environment_spec(model, DIRECTORY, read)


def key(of: EnvironmentSpec, python: str = "3.10.4", platform: str = "linux", digest: str = "d") -> str:
    return environment_key(of, python_version=python, platform=platform, hash_path=lambda _: digest)


def test_python_env_comes_before_conda_and_requirements() -> None:
    found = spec(
        {
            "python_env.yaml": "python: 3.11.7\nbuild_dependencies: [pip, setuptools]\n"
            "dependencies: ['-r requirements.txt']",
            "requirements.txt": "mlflow==2.9.1\nsix",
            "conda.yaml": "dependencies: [python=3.8, {pip: [other]}]",
        }
    )
    assert (found.python, found.build_dependencies) == ("3.11.7", ("pip", "setuptools"))
    assert found.requirements.lines == ("mlflow==2.9.1", "six")
    assert found.notes == ()


def test_conda_gives_its_python_and_pip_section_and_says_what_is_dropped() -> None:
    found = spec(
        {"conda.yaml": "dependencies: [python=3.9.18=h0, pip<=23, libgomp=12, {pip: [mlflow-skinny, six]}]"}
    )
    assert found.python == "3.9.18"
    assert found.requirements.lines == ("mlflow-skinny", "six")
    assert "libgomp=12" in found.notes[1]


def test_requirements_alone_use_the_python_the_model_was_logged_with() -> None:
    found = spec({"requirements.txt": "mlflow\nsix"})
    assert (found.python, found.requirements.lines) == ("3.10.4", ("mlflow", "six"))


def test_mlflow_is_added_in_the_version_that_logged_the_model() -> None:
    found = spec({"requirements.txt": "six"})
    assert found.requirements.lines == ("six", "mlflow==2.9.1")
    assert "mlflow==2.9.1 is added" in found.notes[-1]


def test_a_development_version_of_mlflow_cannot_be_pinned() -> None:
    assert spec({}, replace(MODEL, mlflow_version="3.0.1.dev0")).requirements.lines == ("mlflow",)


def test_broken_yaml_is_named() -> None:
    with pytest.raises(BuildError, match=r"python_env\.yaml is not valid YAML"):
        spec({"python_env.yaml": "a: [b"})


@pytest.mark.parametrize("named", ["../elsewhere.yaml", "/dev/zero", "folder/../../other/python_env.yaml"])
@pytest.mark.parametrize("kind", ["python_env_file", "conda_file"])
def test_no_file_outside_the_model_is_read(kind: str, named: str) -> None:
    model = replace(MODEL, python_env_file="absent.yaml", conda_file="absent.yaml")
    with pytest.raises(BuildError, match="outside the model") as caught:
        spec({}, replace(model, **{kind: named}))
    assert caught.value.failure.code == "ARTIFACT_MISSING"


def test_nested_yaml_is_not_written_out() -> None:
    nested = "x: [&a [1, 2], &b [*a, *a]]"
    found = spec({"python_env.yaml": f"{nested}\ndependencies: [*b, mlflow]"})
    assert found.requirements.lines == ("mlflow",)


def test_writing_the_same_requirements_differently_keeps_the_key() -> None:
    one = spec({"requirements.txt": "six==1.16.0\nMLflow == 2.9.1"})
    other = spec({"requirements.txt": "# pinned\nmlflow==2.9.1\nSix==1.16.0\n"})
    assert key(one) == key(other)


def test_anything_that_may_change_what_is_installed_changes_the_key() -> None:
    base = spec({"requirements.txt": "mlflow\n-c c.txt\n./a-1-py3-none-any.whl", "c.txt": "six<2"})
    keys = {
        key(base),
        key(base, python="3.10.5"),
        key(base, platform="mac"),
        key(base, digest="other wheel, same name"),
        key(spec({"requirements.txt": "mlflow\n-c c.txt\n./a-1-py3-none-any.whl", "c.txt": "six<1"})),
        key(spec({"requirements.txt": "mlflow\nsix\n./a-1-py3-none-any.whl"})),
        key(spec({"requirements.txt": "--index-url https://x/simple\nmlflow\n./a-1-py3-none-any.whl"})),
        key(replace(base, build_dependencies=("setuptools<60",))),
    }
    assert len(keys) == 8


def test_a_wheel_that_is_not_there_is_named() -> None:
    def missing(path: Path) -> str:
        raise FileNotFoundError(path)

    wanted = spec({"requirements.txt": "mlflow\n./a-1-py3-none-any.whl"})
    with pytest.raises(BuildError, match=r"a-1-py3-none-any\.whl"):
        environment_key(wanted, python_version="3.10.4", platform="linux", hash_path=missing)
