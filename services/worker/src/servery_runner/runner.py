"""The runner: one model, one socket. Loads on LOAD, answers each REQUEST with one RESULT, or a stream and its END.

Threads: the main thread loads and then sleeps; the reader takes records off the socket, so that the end
of the agent is noticed at once, whatever the model does; ``slots`` threads predict, the first of them the model's
input example before the agent is told READY.
"""

from __future__ import annotations

import functools
import gc
import json
import logging
import os
import platform
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NoReturn

from servery_common.contracts import frames
from servery_runner import batch_proof, limits, loading, process, warm_up
from servery_runner.backlog import Backlog
from servery_runner.batch_proof import Proof
from servery_runner.begun import BegunMarks
from servery_runner.channel import Channel
from servery_runner.predicting import Requests
from servery_runner.scoring import Scorer


def run(channel_socket: socket.socket) -> NoReturn:
    """Serve the agent on this socket until it is gone."""
    channel = Channel(channel_socket)
    records = channel.receive()
    if records is None or records[0].kind != frames.LOAD:
        os._exit(0)
    order = frames.read_head(records[0].head)
    allowed = limits.Limits.of_order(order)
    # One more than there are slots: an example that is not waited for has a thread of its own.
    limits.confine(allowed.memory_bytes, threads=order["slots"] + 1)
    requests = Requests(channel)
    read = limits.ending_the_process(requests.read)
    threading.Thread(target=read, name="reader", daemon=True).start()
    os.environ.update(json.loads(records[0].body or b"{}"))
    os.chdir(order["directory"])
    started = time.monotonic()
    try:
        scorer = loading.load(order["model_path"], allowed.answer_bytes)
        example_predicted = False
        # Should the process die from here on, it was the prediction.
        channel.send(frames.READY, 0, {"predicting": True})
        if order.get("verify"):
            process.say("predicting the input example")
            example_predicted = loading.predict_example(scorer, order["model_path"])
        proof = find_proof(scorer, order)
    except loading.LoadFailure as failure:
        channel.send(frames.FAILED, 0, failure.head())
        os._exit(1)
    slots = order["slots"]
    requests.open(Backlog(proof, scorer.read_rows), scorer, BegunMarks(order["begun"], slots))
    if order.get("warm_up"):
        predict = functools.partial(loading.predict_example, scorer, order["model_path"])
        slots -= warm_up.first_thread(predict, requests.work)
    requests.start_threads(slots)
    # What is there now stays for good: looking through it again and again costs a fifth of a short prediction.
    gc.collect()
    gc.freeze()
    description = _description(scorer, example_predicted, time.monotonic() - started)
    channel.send(frames.READY, 0, {**description, "batching": proof.head()})
    while True:
        # Signals are handled in this thread, so it has to stay.
        time.sleep(3600)


def find_proof(scorer: Scorer, order: dict[str, Any]) -> Proof:
    """Whether requests may be predicted together: as ordered, as known of this model, or as found out now."""
    if order["batching"] == "off":
        proof = batch_proof.OFF
    elif scorer.dates:
        proof = batch_proof.DATES
    elif order["batching"] == "on":
        proof = batch_proof.FORCED
    elif order.get("proof"):
        proof = Proof.from_head(order["proof"])
    else:
        example = batch_proof.example_of(scorer.model.metadata, order["model_path"])
        with _without_advice():
            proof = batch_proof.prove(scorer.score_json, example, scorer.read_rows)
        if proof.formats and example is not None and scorer.has_own_code and batch_proof.has_text(example):
            proof = batch_proof.COMMANDED
    what = f"on, up to {proof.max_rows} rows at a time" if proof.formats else "off"
    process.say(f"batching: {what}: {proof.reason}")
    return proof


@contextmanager
def _without_advice() -> Generator[None]:
    """MLflow advises the sender of some forms of requests, and nobody has sent those of the trial."""
    logger = logging.getLogger("mlflow.pyfunc.scoring_server")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _description(scorer: Scorer, example_predicted: bool, seconds: float) -> dict[str, object]:
    import mlflow

    metadata = scorer.model.metadata
    return {
        "mlflow": mlflow.__version__,
        "python": platform.python_version(),
        "signature": metadata.signature is not None,
        "example": bool(getattr(metadata, "saved_input_example_info", None)),
        "example_predicted": example_predicted,
        "seconds": round(seconds, 3),
    }
