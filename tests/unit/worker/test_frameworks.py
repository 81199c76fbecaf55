from pathlib import Path

import pytest

from servery_worker.frameworks import FRAMEWORK_MODULES, UNFORKABLE, choose, of_model


def test_flavor_and_requirement_of_one_framework_are_imported_once():
    chosen = choose(["python_function", "sklearn"], "mlflow.sklearn", ["scikit-learn", "mlflow"])
    assert chosen.modules == (*FRAMEWORK_MODULES["scikit-learn"], "mlflow.sklearn")
    assert chosen.unforkable == ""


@pytest.mark.parametrize(
    "loader", ["os", "mlflow", "mlflow.sklearn; import os", "../mlflow.sklearn", "my_loader"]
)
def test_only_modules_of_mlflow_are_taken_from_the_model(loader: str):
    assert choose([], loader, []).modules == ()


@pytest.mark.parametrize("name", UNFORKABLE)
def test_frameworks_that_do_not_survive_a_fork_say_why(name: str):
    assert choose(["python_function"], "", [name]).unforkable == f"{name}: {UNFORKABLE[name]}"


def test_a_model_directory_is_read(tmp_path: Path):
    (tmp_path / "MLmodel").write_text(
        "flavors:\n  python_function:\n    loader_module: mlflow.lightgbm\n  lightgbm: {}\n"
    )
    (tmp_path / "requirements.txt").write_text(
        "mlflow==3.1\nTensorFlow>=2 ; python_version > '3'\n--hash=x\n"
    )
    read = of_model(tmp_path)
    assert read.modules == ("lightgbm", "mlflow.lightgbm")
    assert read.unforkable.startswith("tensorflow: ")


@pytest.mark.parametrize(
    "text", ["", "- a\n- b\n", "flavors: 7\n", "flavors: [\n", "flavors:\n  python_function: 3\n"]
)
def test_a_model_file_that_makes_no_sense_says_nothing(tmp_path: Path, text: str):
    (tmp_path / "MLmodel").write_text(text)
    assert of_model(tmp_path) == ((), "")
