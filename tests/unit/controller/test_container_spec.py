import pytest

from servery_common.contracts.builds import Artifacts
from servery_common.contracts.replicas import ReplicaLaunch
from servery_common.workload_types import GIB, memory_of
from servery_controller.compute.container_spec import (
    Access,
    Machine,
    container_name,
    container_options,
    node_of,
    verdict,
)

MACHINE = Machine(cpus=8, memory_bytes=64 * GIB)


def launch(**changed: object) -> ReplicaLaunch:
    told = {
        "replica_id": "r1",
        "workspace_id": "7",
        "endpoint_id": "e1",
        "endpoint_name": "iris",
        "served_entity_id": "s1",
        "served_entity_name": "iris-1",
        "artifacts": Artifacts(
            model_path="/m",
            environment_path="/e",
            python="/e/bin/python",
            environment_key="k",
            image="sha256:1",
        ),
        "environment_vars": {"API_KEY": "secret of the model"},
        "slots": 4,
    }
    return ReplicaLaunch.model_validate(told | changed)


def options(access: Access | None = None, **changed: object) -> dict:
    return container_options(
        "here", launch(**changed), "network", access or Access("nats://nats:4222"), MACHINE, 0
    )


def test_the_name_follows_from_the_installation_and_the_replica():
    assert options()["name"] == container_name("here", "r1") == "here-replica-r1"


def test_labels_say_whose_it_is():
    assert options()["labels"] == {
        "servery.installation": "here",
        "servery.replica": "r1",
        "servery.endpoint": "e1",
        "servery.served_entity": "s1",
        "servery.workspace": "7",
    }


def test_nothing_of_the_models_secrets_is_in_what_the_engine_shows():
    assert "secret of the model" not in repr(options())


def test_credentials_are_handed_over_only_where_there_are_some():
    assert not any(name.startswith("SERVERY_REPLICA") for name in options()["environment"])
    given = options(Access("nats://nats:4222", "creds", "ca", "pem"))["environment"]
    assert given["SERVERY_REPLICA_NATS_CREDENTIALS"] == "creds"
    assert given["SERVERY_NATS_INBOX_PREFIX"] == "_INBOX.r1"


def test_it_is_confined():
    told = options()
    assert (told["read_only"], told["cap_drop"], told["restart_policy"]) == (True, ["ALL"], {"Name": "no"})
    assert told["mem_limit"] == told["memswap_limit"]


@pytest.mark.parametrize(("workload_type", "gib"), [("CPU", 4), ("CPU_MEDIUM", 8), ("CPU_LARGE", 16)])
def test_the_workload_type_says_how_much_memory(workload_type: str, gib: int):
    told = options(workload_type=workload_type)
    assert told["mem_limit"] == gib * GIB
    assert int(told["environment"]["SERVERY_WORKER_MODEL_MEMORY_BYTES"]) < gib * GIB


def test_never_more_than_the_machine_has():
    assert memory_of("CPU_LARGE", 10 * GIB) == 9 * GIB


def test_a_node_is_known_by_its_replica():
    assert node_of("r1") == "r1/container"


@pytest.mark.parametrize(
    ("state", "lines", "says"),
    [
        ({"OOMKilled": True, "ExitCode": 137}, "", "it needed more than its 4.0 GiB"),
        ({"ExitCode": 137}, "", "was killed (exit code 137)"),
        ({"ExitCode": 128, "Error": "no such\n file"}, "", "could not be started: no such file"),
        ({"ExitCode": 3}, "one\ntwo  words\n", "ended with code 3: two words"),
        (
            {"ExitCode": 1},
            '{"event": "x", "exception": "Traceback\\nKeyError: 1"}\n{"event": "y"}\n',
            "code 1: KeyError: 1",
        ),
        ({"ExitCode": 0}, "", "ended with code 0: nothing was printed"),
    ],
)
def test_why_it_ended_is_told_in_a_sentence(state: dict, lines: str, says: str):
    assert says in verdict(state, 4 * GIB, lines)
