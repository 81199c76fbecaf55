"""The model of these tests: writes down each request it is given, then does what the request says."""

import contextlib
from pathlib import Path
from textwrap import dedent

import mlflow.pyfunc
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

CODE = """
import mmap, os, re, resource, time
import mlflow
import numpy
from mlflow.pyfunc import PythonModel

if "LOAD_BYTES" in os.environ:
    weights = numpy.ones(int(os.environ["LOAD_BYTES"]), dtype="uint8")

def write(line):
    # One system call: lines of several threads and processes do not mix.
    descriptor = os.open(os.environ["RAN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, (line + "\\n").encode())
    os.close(descriptor)

class Model(PythonModel):
    def predict(self, context, model_input, params=None):
        return [self.one(id, do) for id, do in zip(model_input["id"], model_input["do"])]

    def one(self, id, do):
        write(id)
        word, _, argument = do.partition(":")
        if word == "process":
            limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
            first_to_go = int(open("/proc/self/oom_score_adj").read())
            return {"pid": os.getpid(), "parent": os.getppid(), "limit": limit, "oom_score_adj": first_to_go}
        if word == "sleep":
            time.sleep(float(argument))
        if word == "wait":
            while not os.path.exists(argument):
                time.sleep(0.01)
        if word == "hang":
            # Takes longer than the universe has, and never gives the interpreter away.
            re.match("(a|aa)+$", "a" * 100 + "b")
        if word == "allocate":
            numpy.ones(int(argument), dtype="uint8")
        if word == "fill":
            kept = []
            while True:
                kept.append("x" * 1000 + id)
        if word == "share":
            shared = mmap.mmap(-1, int(argument))
            for at in range(0, len(shared), mmap.PAGESIZE):
                shared[at] = 1
            time.sleep(600)
        if word == "print":
            lines = "\\n".join(["." * 99] * 1000)
            for _ in range(int(argument) // 100_000):
                print(lines)
        if word == "answer":
            return "x" * int(argument)
        return "done"

mlflow.models.set_model(Model())
"""

SIGNATURE = ModelSignature(inputs=Schema([ColSpec("string", "id"), ColSpec("string", "do")]))


def save(directory: Path) -> Path:
    """Save the model. Without an example: it would be run, and written down, to find out whether it is row-wise."""
    code = directory / "model.py"
    code.write_text(dedent(CODE))
    path = directory / "model"
    # MLflow takes the lock file of a project it is called in for the model's.
    with contextlib.chdir(directory):
        mlflow.pyfunc.save_model(
            path, python_model=str(code), signature=SIGNATURE, pip_requirements=["mlflow"]
        )
    return path
