import pytest

from servery_local.mlflow import without_secrets


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
