"""``make demo``: start Servery, register a real model in MLflow, deploy it, score it, say what to do next.

Everything here is what a user would do, with unmodified tools. What does not depend on each other runs
side by side: training imports while the stack starts.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

MODEL = "iris"
ENDPOINT = "iris"
REGISTER_WITHIN = 300
"""Seconds; on a cold machine most of them go into importing."""
IMPATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""MLflow's client tries for minutes to reach a server that is not there; the demo's is on this machine."""
_STARTED = time.monotonic()


def main() -> int:
    """Run the demo; returns the exit code."""
    say("Starting Servery (make down stops it), training a scikit-learn model meanwhile")
    trainer = subprocess.Popen(
        [sys.executable, __file__, "train"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **IMPATIENCE},
    )
    try:
        if not running():
            up = subprocess.run([servery(), "up", "--detach"], check=False)
            if up.returncode != 0:
                return up.returncode
        environment = stack_environment()
        say("Registering the model in MLflow")
        registered, _ = trainer.communicate(json.dumps(environment), timeout=REGISTER_WITHIN)
        if trainer.returncode != 0:
            say("Training or registering failed; why is said above.")
            return 1
    except subprocess.TimeoutExpired:
        say(f"Training and registering took more than {REGISTER_WITHIN} s.")
        return 1
    finally:
        trainer.kill()
    model_version = registered.strip().splitlines()[-1]

    say(
        f"Deploying models:/{MODEL}/{model_version} (building its environment, verifying it, starting a replica)"
    )
    deploy = [servery(), "deploy", f"models:/{MODEL}/{model_version}", "--name", ENDPOINT, "--wait"]
    # The shell may still know another stack.
    deployed = subprocess.run(deploy, check=False, env={**os.environ, **environment})
    if deployed.returncode != 0:
        return deployed.returncode

    say("Scoring it over REST")
    status, answer = score(environment)
    print(
        f"    POST {environment['DATABRICKS_HOST']}/serving-endpoints/{ENDPOINT}/invocations -> {status} {answer}"
    )
    if status != 200:
        return 1
    farewell(environment)
    return 0


def train() -> None:
    """Train and register, in a process of its own; the stack's address comes on standard input when it is up."""
    import logging
    import warnings

    import mlflow.sklearn
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    features, species = load_iris(return_X_y=True, as_frame=True)
    model = LogisticRegression(max_iter=1000).fit(features, species)

    # MLflow's advice about schemas and its progress are not what a first look is about.
    warnings.simplefilter("ignore")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    os.environ.update(json.loads(sys.stdin.read()))
    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    try:
        info = _register(model, features)
    except mlflow.MlflowException as error:
        reason = str(error).splitlines()[0]
        sys.exit(f"MLflow did not take the model: {reason}")
    print(info.registered_model_version)


def _register(model: Any, features: Any) -> Any:
    import mlflow.sklearn

    with mlflow.start_run():
        return mlflow.sklearn.log_model(
            model,
            name="model",
            input_example=features.head(2),
            registered_model_name=MODEL,
            # Given, so that MLflow need not import the model in another process to find them out.
            pip_requirements=[
                f"{name}=={version(name)}" for name in ("mlflow", "scikit-learn", "numpy", "pandas")
            ],
        )


def score(environment: dict[str, str]) -> tuple[int, str]:
    """Send one request as any HTTP client would."""
    import httpx

    answer = httpx.post(
        f"{environment['DATABRICKS_HOST']}/serving-endpoints/{ENDPOINT}/invocations",
        headers={"Authorization": f"Bearer {environment['DATABRICKS_TOKEN']}"},
        json=request(),
        timeout=60,
    )
    return answer.status_code, answer.text


def request() -> dict[str, Any]:
    """Two flowers in MLflow's split format."""
    columns = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
    return {"dataframe_split": {"columns": columns, "data": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]}}


def running() -> bool:
    """Whether a stack runs already: the demo can be repeated."""
    status = subprocess.run([servery(), "status"], check=False, capture_output=True)
    return status.returncode == 0


def stack_environment() -> dict[str, str]:
    """What ``servery env`` says, as a dictionary."""
    told = subprocess.run([servery(), "env"], check=True, capture_output=True, text=True).stdout
    assignments = [word for line in told.splitlines() for word in shlex.split(line) if "=" in word]
    return dict(assignment.split("=", 1) for assignment in assignments)


def farewell(environment: dict[str, str]) -> None:
    """Say what is there and what to do next."""
    command = os.path.relpath(servery())
    body = json.dumps(request())
    print(
        f"""
Servery is running.
    REST API  {environment["DATABRICKS_HOST"]}
    MLflow    {environment["MLFLOW_TRACKING_URI"]}

Try it:
    eval "$({command} env)"          # DATABRICKS_HOST, DATABRICKS_TOKEN, MLFLOW_TRACKING_URI
    {command} query {ENDPOINT} -d '{body}'
    curl -s -u "token:$DATABRICKS_TOKEN" $DATABRICKS_HOST/api/2.0/serving-endpoints/{ENDPOINT}
    {command} list
    {command} logs gateway -f

Stop it:
    make down
""",
        flush=True,
    )


def say(what: str) -> None:
    """One line of progress with the seconds since the start."""
    print(f"[{time.monotonic() - _STARTED:5.1f} s] {what}", flush=True)


def servery() -> str:
    """The command beside this interpreter."""
    return str(Path(sys.executable).parent / "servery")


if __name__ == "__main__":
    if sys.argv[1:] == ["train"]:
        train()
    else:
        sys.exit(main())
