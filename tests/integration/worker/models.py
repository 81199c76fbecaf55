"""Models of the worker's tests, logged as code: the runner's environment does not contain the tests."""

import contextlib
from pathlib import Path
from textwrap import dedent
from typing import Any

import mlflow.pyfunc
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

ONES = """
import mlflow
from mlflow.pyfunc import PythonModel

class Ones(PythonModel):
    def predict(self, context, model_input, params=None):
        return [1.0] * len(model_input)

mlflow.models.set_model(Ones())
"""

OBEDIENT = """
import os, sys, time
import mlflow
from mlflow.pyfunc import PythonModel

def links():
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink("/proc/self/fd/" + fd)
        except OSError:
            pass
    return found

class Obedient(PythonModel):
    def predict(self, context, model_input, params=None):
        word, _, argument = str(model_input["do"].iloc[0]).partition(":")
        if word == "echo":
            return model_input["do"].tolist()
        if word == "note":
            file, _, noted = argument.partition("=")
            with open(file, "a") as notes:
                print(noted, file=notes)
            return [noted]
        if word == "pid":
            return [os.getpid(), os.getppid()]
        if word == "exit":
            os._exit(int(argument))
        if word == "sysexit":
            sys.exit(argument)
        if word == "raise":
            raise ValueError(argument)
        if word == "sleep":
            seconds, _, marker = argument.partition(":")
            if marker:
                open(marker, "w").close()
            time.sleep(float(seconds))
            return ["slept"]
        if word == "hang":
            open(argument, "w").close()
            time.sleep(600)
        if word == "big":
            return ["x" * int(argument)]
        if word == "length":
            return [len(argument)]
        if word == "env":
            return sorted(os.environ)
        if word == "getenv":
            return [os.environ.get(argument)]
        if word == "databricks":
            from databricks.sdk.core import Config
            config = Config()
            return [config.host, config.authenticate()["Authorization"]]
        if word == "listdir":
            return [os.listdir(os.environ[argument])]
        if word == "fds":
            return [links()]
        if word == "print":
            for number in range(int(argument)):
                print("line", number, "." * 100)
            return ["printed"]
        if word == "object":
            return object()
        if word == "child":
            import subprocess
            return [subprocess.Popen(["sleep", "600"]).pid]
        raise LookupError(word)

mlflow.models.set_model(Obedient())
"""

STREAMING = """
import os, threading, time
import mlflow
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel

closed, made = [], []

class Streaming(PythonModel):
    def predict(self, context, model_input, params=None):
        word = model_input["prompt"]
        return {"closed": closed, "made": made}.get(word, [word, sorted(model_input)])

    def predict_stream(self, context, model_input, params=None):
        word, _, argument = model_input["prompt"].partition(":")
        if word == "refuse":
            raise MlflowException.invalid_parameter_value(argument)
        try:
            if word == "count":
                for number in range(int(argument)):
                    yield {"number": number}
            if word == "tick":
                for number in range(int(argument)):
                    yield number
                    time.sleep(0.005)
            if word == "keys":
                yield sorted(model_input)
            if word == "endless":
                while True:
                    made.append(1)
                    yield "x" * int(argument)
                    time.sleep(0.001)
            if word == "hang":
                yield "before"
                time.sleep(600)
            if word == "fail":
                yield "before"
                raise ValueError(argument)
            if word == "unserialisable":
                yield "before"
                yield object()
            if word == "exit":
                yield "before"
                time.sleep(0.2)
                os._exit(3)
            if word == "big":
                yield "y" * int(argument)
        finally:
            closed.append(word)

mlflow.models.set_model(Streaming())
"""

TOGETHER = """
import os, time
import mlflow
from mlflow.pyfunc import PythonModel

class Together(PythonModel):
    def predict(self, context, model_input, params=None):
        rows = model_input["do"].tolist()
        if "RECORD" in os.environ:
            with open(os.environ["RECORD"], "a") as record:
                print(len(rows), file=record)
        answers = []
        for row in rows:
            word, _, argument = row.partition(":")
            while word == "wait" and not os.path.exists(argument):
                time.sleep(0.005)
            if word == "raise":
                raise ValueError(argument)
            if word == "exit":
                os._exit(3)
            answers.append(row.upper() + (f" of {len(rows)}" if COUNTS else ""))
        return answers

mlflow.models.set_model(Together())
"""
"""Answers each row by itself; with COUNTS it tells how many there were."""

BROKEN_IMPORT = """
import a_package_nobody_has
"""

BROKEN_PREDICT = """
import mlflow
from mlflow.pyfunc import PythonModel

class Broken(PythonModel):
    def predict(self, context, model_input, params=None):
        raise RuntimeError("no weights for " + ", ".join(model_input.columns))

mlflow.models.set_model(Broken())
"""

NEVER_LOADED = """
import time
print("loading for ever")
time.sleep(600)
"""

DYING_LOAD = """
import os
os._exit(7)
"""

SIGNATURE = ModelSignature(inputs=Schema([ColSpec("string", "do")]))


def save_streaming(directory: Path) -> Path:
    """Save the model that streams; it has no signature and is asked in the completions format."""
    code = directory / "streaming.py"
    code.write_text(dedent(STREAMING))
    path = directory / "streaming"
    with contextlib.chdir(directory):
        mlflow.pyfunc.save_model(path, python_model=str(code), pip_requirements=["mlflow"])
    return path


def save(
    directory: Path,
    name: str,
    code: str,
    *,
    input_example: Any = None,
    signature: ModelSignature | None = None,
) -> Path:
    """Save a model whose code is ``code``, without running it when it has no example."""
    good = directory / f"{name}.py"
    good.write_text(dedent(OBEDIENT))
    path = directory / name
    # MLflow takes the lock file of a project it is called in for the model's.
    with contextlib.chdir(directory):
        mlflow.pyfunc.save_model(
            path,
            python_model=str(good),
            signature=signature or SIGNATURE,
            input_example=input_example,
            pip_requirements=["mlflow"],
        )
    # Saved as a healthy model, since MLflow runs the code it saves, and spoiled afterwards.
    (path / good.name).write_text(dedent(code))
    return path
