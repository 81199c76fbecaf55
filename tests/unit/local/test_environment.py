from servery_local.environment import inherit

SHELL = {
    "PATH": "/bin",
    "LC_ALL": "C",
    "AWS_SECRET_ACCESS_KEY": "s",
    "GITHUB_TOKEN": "t",
    "DATABRICKS_TOKEN": "d",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
    "SERVERY_LOG_LEVEL": "debug",
    "SERVERY_ADMIN_TOKEN": "dapi",
    "SERVERY_ENCRYPTION_KEY": "k",
    "SERVERY_NATS_PASSWORD": "p",
}


def test_a_child_sees_the_system_and_nothing_else() -> None:
    assert inherit(SHELL) == {"PATH": "/bin", "LC_ALL": "C"}


def test_prefixes_add_what_a_child_needs_but_never_a_secret_of_the_stack() -> None:
    assert inherit(SHELL, ("OTEL_", "SERVERY_")) == {
        "PATH": "/bin",
        "LC_ALL": "C",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
        "SERVERY_LOG_LEVEL": "debug",
    }
