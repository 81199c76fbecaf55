import pytest

from servery_builder.domain.explain_image import explain_image
from servery_builder.images.container_verifier import _died, _take
from servery_builder.images.layers import environment_layer, interpreter_folder, model_layer
from servery_common.contracts.builds import FailureCode
from servery_common.contracts.replicas import ModelVerified, VerifyProgress

LABELS = {"servery.installation": "here"}


def test_a_layer_copies_one_folder_to_the_same_path_and_runs_nothing():
    layer = environment_layer("key", "/artifacts/environments/key", "worker:1", "sha256:a", LABELS)
    assert layer.dockerfile() == (
        "FROM worker:1\n"
        'COPY --chown=0:0 ["./", "/artifacts/environments/key/"]\n'
        'LABEL servery.environment="key"\n'
        'LABEL servery.installation="here"\n'
    )


def test_an_environment_image_is_another_one_for_another_worker():
    names = {environment_layer(key, "/e", "w", base, LABELS).image for key in "ab" for base in ("1", "2")}
    assert len(names) == 4


def test_a_models_name_cannot_write_the_dockerfile():
    name = 'x"\nRUN touch /anything'
    text = model_layer("b1", name, "1", "/m", "base", LABELS).dockerfile()
    assert [line.split()[0] for line in text.splitlines()] == [
        "FROM",
        "COPY",
        "LABEL",
        "LABEL",
        "LABEL",
        "LABEL",
    ]


def test_only_an_interpreter_among_the_artifacts_is_a_layer():
    assert interpreter_folder("/usr/bin/python3.11", "/artifacts") is None
    inside = "/artifacts/pythons/cpython-3.10.19-linux/bin/python3.10"
    assert interpreter_folder(inside, "/artifacts") == "/artifacts/pythons/cpython-3.10.19-linux"


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("#5 ERROR: write /x: no space left on device", "disk of the Docker engine is full"),
        (
            "permission denied while trying to connect to the Docker daemon socket",
            "group that owns the socket",
        ),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock", "start it"),
        ("failed to resolve source metadata for docker.io/library/servery-worker:0.1.0", "build it"),
        ("#1 one\n#2 ERROR: something\nelse", "#2 ERROR: something"),
        ("", "it printed nothing"),
    ],
)
def test_what_went_wrong_is_told_with_what_to_do(output: str, says: str):
    failure = explain_image(output)
    assert failure.code is FailureCode.IMAGE_FAILED
    assert says in failure.reason


def test_lines_of_a_verification_are_told_apart():
    said: list[str] = []
    progress = VerifyProgress(build_id="b1", line="loading")
    assert _take(f"{progress.message_type} {progress.model_dump_json()}", said.append) is None
    assert _take("whatever the model printed", said.append) is None
    verdict = ModelVerified(build_id="b1", ok=True)
    assert _take(f"{verdict.message_type} {verdict.model_dump_json()}", said.append) == verdict
    assert said == ["loading"]


def test_a_verification_that_died_says_of_what():
    assert "needs more memory than the 4.0 GiB" in str(
        _died({"OOMKilled": True, "ExitCode": 137}, "", 4 * 2**30)
    )
    assert "code 3: ValueError: x" in str(_died({"ExitCode": 3}, "Traceback\nValueError:  x\n", 1))
