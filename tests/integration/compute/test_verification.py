"""The worker's own verification in a container, with enough memory and with too little."""

import uuid

import docker
import pytest

from servery_builder.domain.build import BuildError
from servery_builder.images.container_verifier import ContainerVerifier
from servery_common.contracts.builds import Artifacts, FailureCode
from servery_common.contracts.replicas import VerifyModel
from servery_common.docker_engine import Engine

pytestmark = pytest.mark.docker
MIB = 1024**2


def request(image: str) -> VerifyModel:
    artifacts = Artifacts(
        model_path="/opt/model/obedient",
        environment_path="/opt/environment",
        python="/opt/environment/bin/python",
        environment_key="k",
        image=image,
    )
    return VerifyModel(build_id=uuid.uuid4().hex, artifacts=artifacts, timeout_seconds=120)


async def test_a_model_is_verified_and_nothing_is_left(engine: docker.DockerClient, model_image: str) -> None:
    installation = f"verify-{uuid.uuid4().hex[:8]}"
    verifier = ContainerVerifier(Engine("builder"), {"servery.installation": installation}, None)
    verified = await verifier.verify(request(model_image), lambda _: None)
    assert (verified.ok, verified.example_predicted) == (True, True), verified.error
    ours = {"label": f"servery.installation={installation}"}
    assert engine.containers.list(all=True, filters=ours) == []


@pytest.mark.parametrize("memory", [64 * MIB, 110 * MIB], ids=["the worker", "the model's packages"])
async def test_one_that_does_not_fit_is_told_how_to_get_more(
    engine: docker.DockerClient, model_image: str, memory: int
) -> None:
    labels = {"servery.installation": f"verify-{uuid.uuid4().hex[:8]}"}
    verifier = ContainerVerifier(Engine("builder"), labels, memory)
    with pytest.raises(BuildError) as failed:
        await verifier.verify(request(model_image), lambda _: None)
    assert failed.value.failure.code is FailureCode.LOAD_FAILED
    assert failed.value.failure.reason.startswith("The model needs more memory than the 0.")
    assert "raise SERVERY_BUILDER_VERIFICATION_MEMORY_BYTES" in failed.value.failure.reason
