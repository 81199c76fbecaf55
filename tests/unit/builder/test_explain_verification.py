"""A model that did not work is explained in one plain sentence."""

from pathlib import Path

import pytest

from servery_builder.domain.explain_verification import explain_verification
from servery_common.contracts.replicas import ModelVerified

ROOT = Path(__file__).parents[3]
REFUSED = "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='models.example.com', port=443)"
FROM_MODELS = [
    (
        f"{REFUSED} (Caused by NameResolutionError(\"Failed to resolve 'models.example.com'\"))",
        "",
        "models.example.com",
    ),
    ("urllib.error.URLError: <urlopen error [Errno -3] Temporary failure in name resolution>", "", "out"),
    ("OSError: [Errno 101] Network is unreachable", "", "out"),
    (
        "OSError: We couldn't connect to 'https://models.example.com' to load the files, and couldn't find them in the"
        " cached files.",
        "",
        "models.example.com",
    ),
    (
        "RuntimeError: the weights are not there",
        "socket.gaierror: [Errno -2] Name or service not known\n\nDuring handling of the above exception",
        "out",
    ),
    (
        "ValueError: default auth: cannot configure default credentials, please check"
        " https://docs.example.com/en/dev-tools/auth.html to configure credentials for your preferred method.",
        "",
        "the workspace",
    ),
]
"""What models that need the network said in containers: the error, the traceback, and where they wanted to go."""


def verified(stage: str, error: str) -> ModelVerified:
    return ModelVerified(build_id="b1", ok=False, stage=stage, error=error)


@pytest.mark.parametrize("stage", ["import", "load", "predict"])
def test_a_missing_module_names_the_package_to_add_wherever_it_shows(stage: str) -> None:
    failure = explain_verification(verified(stage, "ModuleNotFoundError: No module named 'foo.bar'"))
    assert failure.code == "IMPORT_ERROR"
    assert failure.reason == (
        "No module named 'foo.bar': add foo to the model's pip requirements"
        " (extra_pip_requirements=['foo']) and log it again."
    )


def test_a_module_whose_package_has_another_name_is_advised_by_the_package() -> None:
    failure = explain_verification(verified("load", "ModuleNotFoundError: No module named 'sklearn.svm'"))
    assert "add scikit-learn" in failure.reason


@pytest.mark.parametrize(
    ("stage", "error", "code"),
    [
        ("load", "ImportError: cannot import name 'x' from 'numpy'", "IMPORT_ERROR"),
        ("import", "AttributeError: module 'numpy' has no attribute 'int'", "IMPORT_ERROR"),
        ("load", "UnpicklingError: invalid load key", "LOAD_FAILED"),
        ("start", "No space left on device", "INTERNAL_ERROR"),
        ("predict", "ValueError: X has 3 features", "PREDICT_FAILED"),
    ],
)
def test_other_failures_of_a_model_quote_its_error(stage: str, error: str, code: str) -> None:
    failure = explain_verification(verified(stage, error))
    assert failure.code == code
    assert error in failure.reason


@pytest.mark.parametrize(("error", "traceback", "host"), FROM_MODELS)
def test_a_model_that_needs_the_network_is_told_that_containers_have_none(
    error: str, traceback: str, host: str
) -> None:
    loads = verified("load", error).model_copy(update={"traceback": traceback})
    failure = explain_verification(loads, in_container=True)
    assert failure.code == "LOAD_FAILED"
    assert failure.reason.startswith(
        f"The model reaches {host} over the network when it loads, and replicas in containers have no way out."
    )
    assert "mlflow.pyfunc.log_model(artifacts=" in failure.reason
    assert "docs/compose.md, Models without a network" in failure.reason
    predicts = loads.model_copy(update={"stage": "predict"})
    assert "when it predicts" in explain_verification(predicts, in_container=True).reason


def test_where_models_may_reach_the_network_their_own_error_counts() -> None:
    error = "OSError: [Errno 101] Network is unreachable"
    assert error in explain_verification(verified("load", error)).reason


def test_another_failure_in_a_container_is_explained_as_anywhere() -> None:
    wrong = verified("predict", "ValueError: X has 3 features")
    assert explain_verification(wrong, in_container=True) == explain_verification(wrong)


def test_the_page_that_is_named_has_the_section_that_is_named() -> None:
    assert "**Models without a network.**" in (ROOT / "docs" / "compose.md").read_text()
