import pytest

from servery_local.mlflow import is_own, without_secrets


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("https://ann:p@ss/mlflow", "https://***@ss/mlflow"),
        ("https://ann:a@b@host:1/x?y=@", "https://***@host:1/x?y=@"),
        ("https://token@host", "https://***@host"),
        (
            "postgresql+psycopg2://u:p@h/db?sslmode=on&password=x",
            "postgresql+psycopg2://***@h/db?sslmode=on&password=***",
        ),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
        ("databricks", "databricks"),
    ],
)
def test_a_tracking_uri_is_shown_without_its_secrets(uri: str, shown: str) -> None:
    assert without_secrets(uri) == shown


@pytest.mark.parametrize(
    ("uri", "own"),
    [
        ("http://127.0.0.1:5000", True),
        ("http://localhost:5000/", True),
        ("http://127.0.0.1:5001", False),
        ("http://127.0.0.1:5000/prefix", False),
        ("http://tracking.example:5000", False),
        ("http://127.0.0.1:port", False),
        ("databricks", False),
    ],
)
def test_an_address_on_the_port_of_the_last_run_is_the_stacks_own(uri: str, own: bool) -> None:
    assert is_own(uri, 5000) is own


def test_a_stack_that_never_ran_an_mlflow_has_no_address_of_its_own() -> None:
    assert not is_own("http://127.0.0.1", None)
