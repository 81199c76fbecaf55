"""``make bench``: one connection, one-row iris: Servery beside ``mlflow models serve``, in one run.

Both serve the same model on this machine. Requests go to them in turn, in short blocks A B A B, so that a
noisy moment hits both; every answer is checked. Also measured: how long a deployment takes with a
new environment, with a cached one, and how long the real ``mlflow models serve`` takes to answer first.
Ratios matter, not absolutes.
"""

import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tests.end_to_end.client import Client
from tests.end_to_end.stack import free_port, run_stack

BLOCKS = 20
BLOCK = 50
WARM_UP = 50
COLUMNS = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
BODY = json.dumps({"dataframe_split": {"columns": COLUMNS, "data": [[5.1, 3.5, 1.4, 0.2]]}}).encode()
EXPECTED = {"predictions": [0]}


class Target:
    """One server, reached over one kept-alive connection."""

    def __init__(self, name: str, url: str, path: str, headers: dict[str, str]) -> None:
        self.name = name
        self.seconds: list[float] = []
        address = urlsplit(url)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        self._path = path
        self._headers = {"Content-Type": "application/json"} | headers

    def ask(self) -> float:
        """Send one request, check the answer, return the seconds it took."""
        started = time.perf_counter()
        self._connection.request("POST", self._path, BODY, self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        took = time.perf_counter() - started
        if answer.status != 200 or json.loads(body) != EXPECTED:
            raise SystemExit(f"{self.name} answered {answer.status} {body!r}")
        return took

    def percentile(self, share: float) -> float:
        """Return a percentile of the latencies, in milliseconds."""
        return statistics.quantiles(self.seconds, n=1000)[round(share * 1000) - 1] * 1000


def main() -> None:
    """Run the benchmark and print a table."""
    stacks = contextlib.contextmanager(run_stack)
    with tempfile.TemporaryDirectory() as directory, stacks() as stack:
        os.environ["MLFLOW_TRACKING_URI"] = stack.access.tracking_uri
        model_path = Path(directory) / "iris"
        print("registering two versions of an iris model ...", flush=True)
        register(model_path)
        client = Client(stack)
        uncached = deploy(client, "uncached", "1")
        cached = deploy(client, "cached", "2")
        with reference(model_path) as (reference_url, reference_start):
            token = {"Authorization": f"Bearer {stack.access.token}"}
            servery = Target("Servery", stack.access.host, "/serving-endpoints/cached/invocations", token)
            mlflow = Target("mlflow models serve", reference_url, "/invocations", {})
            measure(servery, mlflow)
    report(servery, mlflow)
    print(f"\ndeploy, environment not cached  {uncached:6.1f} s")
    print(f"deploy, environment cached      {cached:6.1f} s")
    print(f"mlflow models serve, start to first answer  {reference_start:6.1f} s")


def measure(*targets: Target) -> None:
    """Ask the targets in turn, in blocks."""
    for target in targets:
        for _ in range(WARM_UP):
            target.ask()
    for _ in range(BLOCKS):
        for target in targets:
            target.seconds += [target.ask() for _ in range(BLOCK)]


def report(servery: Target, mlflow: Target) -> None:
    """Print latencies and their ratios."""
    print(f"\none connection, one row of iris, {BLOCKS * BLOCK} requests each, {os.cpu_count()} cores")
    print(f"{'':22}{'p50 ms':>10}{'p90 ms':>10}{'p99 ms':>10}{'requests/s':>12}")
    for target in (servery, mlflow):
        rate = len(target.seconds) / sum(target.seconds)
        figures = [target.percentile(share) for share in (0.5, 0.9, 0.99)]
        print(f"{target.name:22}" + "".join(f"{figure:10.2f}" for figure in figures) + f"{rate:12.0f}")
    ratios = [servery.percentile(share) / mlflow.percentile(share) for share in (0.5, 0.9, 0.99)]
    print(f"{'ratio':22}" + "".join(f"{ratio:10.2f}" for ratio in ratios))


def register(path: Path) -> None:
    """Train, save beside, and register twice: two versions with the same requirements."""
    import mlflow
    import mlflow.sklearn
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from tests.models import zoo

    features, species = load_iris(return_X_y=True, as_frame=True)
    model = LogisticRegression(max_iter=1000).fit(features, species)
    logged = {"input_example": features.head(2), "pip_requirements": zoo.requirements()}
    mlflow.sklearn.save_model(model, path, **logged)
    for _ in range(2):
        with mlflow.start_run():
            mlflow.sklearn.log_model(model, name="model", registered_model_name="iris", **logged)


def deploy(client: Client, name: str, version: str) -> float:
    """Deploy a version; return the seconds until the endpoint is ready."""
    print(f"deploying {name} ...", flush=True)
    started = time.perf_counter()
    client.deploy(name, "iris", version)
    return time.perf_counter() - started


@contextlib.contextmanager
def reference(model_path: Path) -> Iterator[tuple[str, float]]:
    """The real ``mlflow models serve``: its address and how long it took to answer first."""
    print("starting mlflow models serve ...", flush=True)
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model_path), "-p", str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    started = time.perf_counter()
    with subprocess.Popen(
        [*command, "--env-manager", "local", "--host", "127.0.0.1"],
        env=os.environ | {"PATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            while True:
                try:
                    Target("mlflow models serve", url, "/invocations", {}).ask()
                    break
                except OSError:
                    if process.poll() is not None or time.perf_counter() - started > 120:
                        raise SystemExit("mlflow models serve did not start") from None
                    time.sleep(0.1)
            yield url, time.perf_counter() - started
        finally:
            os.killpg(process.pid, 15)


if __name__ == "__main__":
    main()
