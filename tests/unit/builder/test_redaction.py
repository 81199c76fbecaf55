"""The builder knows its own credentials by their names."""

from servery_builder.domain.redaction import secret_values


def test_only_credentials_of_uv_and_mlflow_are_secret_variables() -> None:
    environment = {
        "UV_INDEX_PRIVATE_PASSWORD": "a",
        "MLFLOW_TRACKING_TOKEN": "b",
        "UV_CACHE_DIR": "c",
        "HOME": "d",
    }
    assert secret_values(environment.items()) == ["a", "b"]
