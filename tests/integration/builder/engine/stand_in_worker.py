"""Plays the worker's verification in a container: does what the model's file ``do`` says, and finds the model good."""

import json
import os
import sys
import time
from pathlib import Path

order = json.loads(sys.stdin.readline())
model = Path(order["artifacts"]["model_path"])
told = (model / "do").read_text().strip() if (model / "do").exists() else ""


def say(kind: str, **fields: object) -> None:
    print(kind, json.dumps({"build_id": order["build_id"], **fields}), flush=True)


say("servery.model.verify.progress.v1", line=f"verifying, {os.environ['SERVERY_WORKER_MODEL_MEMORY_BYTES']}")
if told.startswith("linger"):
    for _ in range(int(told.split()[1]) * 2):
        time.sleep(0.5)
        say("servery.model.verify.progress.v1")
if told == "eat":
    eaten = []
    while True:
        eaten.append(bytearray(os.urandom(1024) * 16 * 1024))
say("servery.model.verified.v1", ok=True, example_predicted=True, python_version="3.11")
