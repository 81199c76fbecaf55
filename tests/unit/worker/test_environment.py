from pathlib import Path

from servery_worker.environment import for_runner

OWN = {
    "PATH": "/usr/bin",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "SERVERY_NATS_PASSWORD": "secret",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "MLFLOW_TRACKING_TOKEN": "secret",
    "OTEL_EXPORTER_OTLP_HEADERS": "secret",
    "PYTHONPATH": "somewhere",
}


def test_only_listed_variables_get_through():
    variables = for_runner(OWN, home=Path("/home"), environment_path=Path("/env"))
    assert "secret" not in variables.values()
    assert "PYTHONPATH" not in variables
    assert (variables["LC_ALL"], variables["TZ"]) == ("C.UTF-8", "UTC")


def test_no_model_leaves_bytecode_in_a_shared_environment():
    variables = for_runner(OWN, home=Path("/home"), environment_path=Path("/env"))
    assert variables["PYTHONDONTWRITEBYTECODE"] == "1"


def test_the_environments_own_programs_come_first():
    variables = for_runner(OWN, home=Path("/home"), environment_path=Path("/env"))
    assert variables["PATH"] == "/env/bin:/usr/bin"
    assert variables["VIRTUAL_ENV"] == "/env"
    assert for_runner({}, home=Path("/home"), environment_path=Path("/env"))["PATH"] == "/env/bin"
