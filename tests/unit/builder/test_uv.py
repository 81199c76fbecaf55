"""What uv and the build code it starts may see."""

from servery_builder.environments.uv import scrub


def test_credentials_and_serverys_own_variables_are_kept_from_build_code() -> None:
    seen = scrub(
        {
            "PATH": "/usr/bin",
            "HOME": "/nowhere",
            "SERVERY_POSTGRES_URL": "postgresql://secret",
            "MLFLOW_TRACKING_TOKEN": "secret",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "VIRTUAL_ENV": "/venv",
            "PYTHONPATH": "/app",
            "UV_PYTHON": "3.8",
            "UV_DEFAULT_INDEX": "https://mirror/simple",
            "https_proxy": "http://proxy",
            "NO_PROXY": "localhost",
            "SSL_CERT_FILE": "/ca.pem",
        }
    )
    assert seen == {
        "PATH": "/usr/bin",
        "HOME": "/nowhere",
        "UV_DEFAULT_INDEX": "https://mirror/simple",
        "https_proxy": "http://proxy",
        "NO_PROXY": "localhost",
        "SSL_CERT_FILE": "/ca.pem",
        "NO_COLOR": "1",
        "UV_NO_PROGRESS": "1",
        "PYTHONUTF8": "1",
    }


def test_shims_of_pyenv_are_not_searched() -> None:
    environment = {"PATH": "/nowhere/.pyenv/shims:/usr/bin", "HOME": "/nowhere"}
    assert scrub(environment)["PATH"] == "/usr/bin"
