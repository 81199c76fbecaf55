"""From zero replicas to an answer: one request at a time, without a warm parent, and 500 requests at once."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import httpx
import psutil
from tests.benchmarks import models
from tests.benchmarks.bench import Bench
from tests.benchmarks.load.client import Outcome, load, percentile
from tests.benchmarks.servers import IRIS_ANSWER, IRIS_BODY, Servery, mlflow_serve, servery
from tests.end_to_end.client import ENDPOINTS, describe, entity

NAME = "cold"
CROWD = 500
STARTS, CROWDS, IMPORTS, FROM_NOTHING = 50, 3, 3, 3
"""How often: a request at zero, so many of them at once, a request without a warm parent, ``mlflow models serve``."""
HASTY = {
    "SERVERY_SCALER_TICK_SECONDS": "0.5",
    "SERVERY_SCALER_STABLE_WINDOW": "1",
    "SERVERY_SCALER_PANIC_HOLD": "0",
}
"""The way down is not what is measured. Nothing of the way up is changed."""
ZERO_SECONDS = 120.0


def run(bench: Bench) -> dict[str, Any]:
    """A stack of its own, whose endpoint goes to zero after a second without a request."""
    path = bench.directory / "cold-iris"
    with servery(**HASTY) as ours:
        models.register_iris(path)
        _deploy(ours)
        warm = [_from_zero(ours) for _ in range(bench.times(STARTS))]
        bench.say(f"from zero: p50 {percentile(warm, 50):.0f}, p99 {percentile(warm, 99):.0f} ms")
        crowd = Outcome()
        for _ in range(bench.times(CROWDS)):
            _await_zero(ours)
            # A closed loop that is over before the first answer: each connection sends one request.
            crowd.add(load(ours.target(NAME), connections=CROWD, seconds=0.01))
        bench.say(f"{CROWD} at once: {crowd.ok} right, the last after {crowd.percentile(100):.0f} ms")
        imports: list[float] = []
        for _ in range(bench.times(IMPORTS)):
            _await_zero(ours)
            _end_warm_parents(ours)
            imports.append(_answer(ours))
        bench.say(f"from zero without a warm parent: p50 {percentile(imports, 50):.0f} ms")
    nothing = [_mlflow_from_nothing(path) for _ in range(bench.times(FROM_NOTHING))]
    bench.say(f"mlflow models serve from nothing: p50 {percentile(nothing, 50):.0f} ms")
    asked = CROWD * bench.times(CROWDS)
    errors = crowd.errors + max(0, asked - crowd.ok)
    return {
        "starts": {
            "a request at zero, warm parent alive": _summary(warm),
            "a request at zero, no warm parent": _summary(imports),
            "`mlflow models serve`, process start to first answer": _summary(nothing),
        },
        "crowd": crowd.summary(),
        "targets": [
            Bench.target("one request at zero, p50 ms", percentile(warm, 50), "<=", 500),
            Bench.target("one request at zero, p99 ms", percentile(warm, 99), "<=", 1500),
            Bench.target(
                "… without a warm parent, as a share of mlflow models serve from nothing",
                percentile(imports, 50) / percentile(nothing, 50),
                "<=",
                1.0,
            ),
            Bench.target(f"{CROWD} requests at zero at once, not answered rightly", float(errors), "<=", 0),
        ],
    }


def _summary(milliseconds: list[float]) -> dict[str, Any]:
    return {
        "count": len(milliseconds),
        **{f"p{share}": round(percentile(milliseconds, share), 1) for share in (50, 90, 99, 100)},
    }


def _deploy(ours: Servery) -> None:
    answer = ours.client.http.post(
        ENDPOINTS,
        json={
            "name": NAME,
            "config": {"served_entities": [entity("iris", "1", scale_to_zero_enabled=True)]},
            "tags": [{"key": "servery.scale_to_zero_seconds", "value": "1"}],
        },
    )
    if answer.status_code != 200:
        raise SystemExit(describe(answer))
    ours.client.await_ready(NAME)


def _from_zero(ours: Servery) -> float:
    _await_zero(ours)
    return _answer(ours)


def _answer(ours: Servery) -> float:
    """Ask once, on a connection that is open; return the milliseconds to the answer, which must be right."""
    target = ours.target(NAME)
    with httpx.Client(base_url=target.url, headers=dict(target.headers), timeout=70) as client:
        client.get("/")
        began = time.perf_counter()
        answer = client.post(target.path, content=IRIS_BODY, headers={"Content-Type": "application/json"})
        took = (time.perf_counter() - began) * 1000
    if (answer.status_code, answer.text) != (200, IRIS_ANSWER):
        raise SystemExit(f"at zero: {describe(answer)}")
    return took


def _await_zero(ours: Servery) -> None:
    def at_zero() -> bool:
        answer = ours.client.http.get(f"{ENDPOINTS}/{NAME}/scaling")
        if answer.status_code != 200:
            raise SystemExit(describe(answer))
        [cold] = answer.json()["served_entities"]
        counts = ("desired_replicas", "ready_replicas", "starting_replicas", "stopping_replicas")
        return all(cold[name] == 0 for name in counts)

    _await(at_zero, f"{NAME} is at zero")


def _end_warm_parents(ours: Servery) -> None:
    """Kill them, as the kernel does when memory is short."""
    parents = [one for one in ours.stack.processes() if _is_warm_parent(one)]
    for parent in parents:
        with contextlib.suppress(psutil.NoSuchProcess):
            parent.kill()
    psutil.wait_procs(parents, timeout=5)


def _is_warm_parent(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "--control-fd" in process.cmdline()
    return False


def _mlflow_from_nothing(path: Any) -> float:
    began = time.perf_counter()
    with mlflow_serve(path) as target:
        answer = httpx.post(
            f"{target.url}{target.path}",
            content=IRIS_BODY,
            headers={"Content-Type": "application/json"},
            timeout=30,
        )
        took = (time.perf_counter() - began) * 1000
    if (answer.status_code, answer.text) != (200, IRIS_ANSWER):
        raise SystemExit(f"mlflow models serve: {describe(answer)}")
    return took


def _await(true: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + ZERO_SECONDS
    while not true():
        if time.monotonic() > ends:
            raise SystemExit(f"not within {ZERO_SECONDS:g} s: {what}")
        time.sleep(0.1)
