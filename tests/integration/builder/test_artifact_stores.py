"""Model files in an S3-compatible store, reached directly and through MLflow's server, and at an http address."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import httpx
import pytest
from mlflow import MlflowClient
from mlflow.store.artifact import s3_artifact_repo
from moto.server import ThreadedMotoServer
from tests.infrastructure import free_port
from tests.integration.builder.peers import Registry

from servery_builder.artifacts.mlflow_registry import ArtifactMissing, MlflowRegistry
from servery_common.errors import Internal

BUCKET = "models"
FILES = {"MLmodel": "flavors: {}\n", "data/weights.bin": "w" * 100_000}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Address of an S3 server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def credentials(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As an operator sets them for the builder; nothing of this machine's."""
    for name, value in aws_variables(s3).items():
        monkeypatch.setenv(name, value)
    # MLflow and boto3 keep what they know of S3 for the life of the process, as a builder's settings never change.
    s3_artifact_repo._cached_get_s3_client.cache_clear()
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


def aws_variables(s3: str) -> dict[str, str]:
    return {
        "MLFLOW_S3_ENDPOINT_URL": s3,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@pytest.fixture
def bucket(s3: str, credentials: None) -> str:
    """The name of a bucket with the model's files under ``m``."""
    client = boto3.client("s3", endpoint_url=s3)
    client.create_bucket(Bucket=BUCKET)
    for name, text in FILES.items():
        client.put_object(Bucket=BUCKET, Key=f"m/{name}", Body=text.encode())
    return BUCKET


def registered(registry: Registry, source: str) -> str:
    """Register version 1 of a new model whose files are at ``source``."""
    client = MlflowClient(tracking_uri=registry.uri, registry_uri=registry.uri)
    name = f"stored-{time.monotonic_ns()}"
    client.create_registered_model(name)
    client.create_model_version(name, source)
    return name


async def download(uri: str, name: str, destination: Path) -> dict[str, str]:
    mlflow = MlflowRegistry(uri)
    await mlflow.start()
    assert (await mlflow.resolve(name, "1")).version == "1"
    await mlflow.download(name, "1", destination)
    found = {path.relative_to(destination): path for path in destination.rglob("*") if path.is_file()}
    return {
        str(name): path.read_text() for name, path in found.items() if name.name != "registered_model_meta"
    }


async def test_files_are_fetched_from_s3_directly(registry: Registry, bucket: str, tmp_path: Path) -> None:
    name = registered(registry, f"s3://{bucket}/m")
    assert await download(registry.uri, name, tmp_path / "model") == FILES


async def test_files_that_are_gone_from_s3_are_missing(
    registry: Registry, bucket: str, tmp_path: Path
) -> None:
    name = registered(registry, f"s3://{bucket}/nothing-here")
    try:
        files = await download(registry.uri, name, tmp_path / "model")
    except ArtifactMissing:
        return
    # S3 has no folders to be missing: an empty download is found out by whoever looks for MLmodel.
    assert files == {}


async def test_a_builder_without_boto3_says_what_to_install(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    name = registered(registry, "s3://models/m")
    with pytest.raises(Internal, match=r"install servery-builder\[s3\]"):
        await download(registry.uri, name, tmp_path / "model")


async def test_a_builder_without_credentials_says_which_to_set(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    name = registered(registry, "s3://models/m")
    with pytest.raises(Internal, match="AWS_ACCESS_KEY_ID"):
        await download(registry.uri, name, tmp_path / "model")


async def test_a_bucket_that_does_not_exist_is_no_outage(registry: Registry, tmp_path: Path) -> None:
    name = registered(registry, "s3://no-such-bucket/m")
    with pytest.raises(Internal, match="NoSuchBucket"):
        await download(registry.uri, name, tmp_path / "model")


@pytest.fixture(scope="module")
def proxy(s3: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an MLflow server whose artifacts are in S3, which only it can reach."""
    boto3.client(
        "s3",
        endpoint_url=s3,
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        region_name="us-east-1",
    ).create_bucket(Bucket="proxied")
    directory, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{directory / 'mlflow.db'}"]
    command += ["--serve-artifacts", "--artifacts-destination", "s3://proxied/root"]
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(
            command,
            env=os.environ | aws_variables(s3),
            stdout=log,
            stderr=log,
            cwd=directory,
            start_new_session=True,
        )
    uri = f"http://127.0.0.1:{port}"
    try:
        await_health(uri, server, directory / "log")
        yield uri
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def await_health(uri: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{uri}/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline or server.poll() is not None:
            raise AssertionError(log.read_text()[-3000:])
        time.sleep(0.1)


@pytest.mark.parametrize("address", ["mlflow-artifacts:", "http"])
async def test_files_behind_mlflows_server_need_no_credentials_of_the_builder(
    registry: Registry, proxy: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("MLFLOW_S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    monkeypatch.setitem(sys.modules, "boto3", None)
    client = MlflowClient(tracking_uri=proxy, registry_uri=proxy)
    run = client.create_run("0")
    assert run.info.artifact_uri is not None
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    source = tmp_path / "source"
    for name, text in FILES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    client.log_artifacts(run.info.run_id, str(source), "model")
    uri = f"{run.info.artifact_uri}/model"
    if address == "http":
        # MLflow's server does not register such a source any more; registries have it from older ones.
        path = uri.removeprefix("mlflow-artifacts:/")
        name = registered(registry, f"{proxy}/api/2.0/mlflow-artifacts/artifacts/{path}")
        assert await download(registry.uri, name, tmp_path / "model") == FILES
        return
    name = f"proxied-{run.info.run_id}"
    client.create_registered_model(name)
    client.create_model_version(name, uri, run.info.run_id)
    assert await download(proxy, name, tmp_path / "model") == FILES
