import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from servery_builder.domain.explain_image import explain_image, has_lost_engine
from servery_builder.images.container_verifier import _died, _take, memory_for
from servery_builder.images.layers import environment_layer, interpreter_folder, model_layer
from servery_builder.images.pruning import ImagePruner, KnownImage, choose_removed, total_bytes
from servery_builder.images.sbom import Package, bill_of_materials
from servery_common.contracts.builds import FailureCode
from servery_common.contracts.replicas import ModelVerified, VerifyProgress
from servery_common.messaging.testing import InMemoryBus
from servery_common.workload_types import GIB

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
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
    names = {
        environment_layer(key, f"/e/{key}", "w", base, LABELS).image for key in "ab" for base in ("1", "2")
    }
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
        ("failed to resolve source metadata for docker.io/library/servery-worker:0.1.0", "build it"),
        ("#1 one\n#2 ERROR: something\nelse", "#2 ERROR: something"),
        ("", "it printed nothing"),
    ],
)
def test_what_went_wrong_is_told_with_what_to_do(output: str, says: str):
    failure = explain_image(output)
    assert failure.code is FailureCode.IMAGE_FAILED
    assert says in failure.reason


@pytest.mark.parametrize(
    ("output", "lost"),
    [
        ("permission denied while trying to connect to the Docker daemon socket", True),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock", True),
        ("#5 ERROR: write /x: no space left on device", False),
        ("failed to resolve source metadata for docker.io/library/servery-worker:0.1.0", False),
    ],
)
def test_an_engine_that_went_away_is_told_from_a_build_that_cannot_succeed(output: str, lost: bool):
    assert has_lost_engine(output) is lost


def test_lines_of_a_verification_are_told_apart():
    said: list[str] = []
    progress = VerifyProgress(build_id="b1", line="loading")
    assert _take(f"{progress.message_type} {progress.model_dump_json()}", said.append) is None
    assert _take("whatever the model printed", said.append) is None
    verdict = ModelVerified(build_id="b1", ok=True)
    assert _take(f"{verdict.message_type} {verdict.model_dump_json()}", said.append) == verdict
    assert said == ["loading"]


def test_a_verification_that_died_says_of_what():
    assert "code 3: ValueError: x" in str(_died({"ExitCode": 3}, "Traceback\nValueError:  x\n"))


@pytest.mark.parametrize(
    ("workload_type", "machine_gib", "setting", "size", "says"),
    [
        ("CPU", 32, None, 4.0, "than the 4.0 GiB of workload_type CPU: choose workload_type CPU_MEDIUM"),
        ("CPU_MEDIUM", 32, None, 8.0, "choose workload_type CPU_LARGE"),
        (
            "CPU_LARGE",
            32,
            None,
            16.0,
            "than the 16.0 GiB that this machine can give: use a machine with more",
        ),
        ("CPU", 4, None, 3.6, "use a machine with more"),
        ("CPU", 32, GIB, 1.0, "raise SERVERY_BUILDER_VERIFICATION_MEMORY_BYTES"),
    ],
)
def test_a_model_is_verified_with_the_memory_of_its_replicas_and_told_how_to_get_more(
    workload_type: str, machine_gib: int, setting: int | None, size: float, says: str
):
    memory = memory_for(workload_type, machine_gib * GIB, setting)
    assert memory.bytes == pytest.approx(size * GIB)
    assert says in memory.exceeded


def test_the_bill_of_materials_names_the_model_and_its_packages_and_fits_the_schema():
    packages = [Package("scikit-learn", "1.9.1"), Package("PyYAML", "6.0.4")]
    bill = bill_of_materials("iris", "3", "b1", "3.11", packages, NOW)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    told = json.loads(bill)
    assert (told["metadata"]["component"]["name"], told["metadata"]["component"]["version"]) == ("iris", "3")
    urls = {one.get("purl") for one in told["components"]}
    assert urls == {None, "pkg:pypi/scikit-learn@1.9.1", "pkg:pypi/pyyaml@6.0.4"}


GB = 10**9
ENVIRONMENT = KnownImage("env", NOW - timedelta(days=9), 1 * GB, ("base", "env"), None)


def model(name: str, days: float, *, on: KnownImage = ENVIRONMENT) -> KnownImage:
    size = on.size_bytes + GB // 10
    return KnownImage(name, NOW - timedelta(days=days), size, (*on.layers, name), f"build-{name}")


def test_layers_that_models_share_count_once():
    assert total_bytes([ENVIRONMENT, model("a", 3), model("b", 2)]) == GB + 2 * (GB // 10)


def test_the_oldest_that_nobody_needs_go_until_the_rest_is_small_enough():
    images = [ENVIRONMENT, model("a", 3), model("b", 2), model("c", 1)]
    assert choose_removed(images, set(), 2 * GB, NOW) == []
    assert choose_removed(images, set(), GB + GB // 10, NOW) == ["a", "b"]
    assert choose_removed(images, {"build-a"}, GB + GB // 10, NOW) == ["b", "c"]


def test_an_environment_goes_only_after_everything_on_it():
    images = [ENVIRONMENT, model("a", 3), model("b", 2)]
    assert choose_removed(images, set(), 0, NOW) == ["a", "b", "env"]
    assert choose_removed(images, {"build-b"}, 0, NOW) == ["a"]


def test_what_was_just_made_stays():
    assert choose_removed([ENVIRONMENT, model("a", 0.01)], set(), 0, NOW) == []


async def test_the_engine_is_asked_to_keep_no_more_of_buildkits_cache():
    asked: list[int] = []

    def prune_builds(*, keep_storage: int) -> dict[str, Any]:
        asked.append(keep_storage)
        return {"CachesDeleted": ["a"], "SpaceReclaimed": 7}

    class OneEngine:
        async def call(self, what: Callable[[Any], Any]) -> Any:
            return what(SimpleNamespace(api=SimpleNamespace(prune_builds=prune_builds)))

    engine: Any = OneEngine()
    assert await ImagePruner(engine, InMemoryBus(), "here", 10**9, 5000, 600).prune_cache() == 7
    assert asked == [5000]


def test_a_full_disk_that_breaks_copying_off_is_told_as_that_and_not_waited_for():
    output = "ERROR: write /x: no space left on device\nerror: unexpected EOF"
    assert not has_lost_engine(output)
    assert "disk" in explain_image(output).reason
    assert has_lost_engine("error: unexpected EOF")
