"""What a model's process may use and answer: told with the order to load, set before anything of the model runs.

Memory is limited by the kernel (``RLIMIT_DATA``): what exceeds it is a MemoryError where the model asked for it, so it
fails the request, or the loading, that wanted too much, and the process goes on. What the limit does not count, memory
shared with other processes, the worker watches (``servery_worker.usage``).
"""

from __future__ import annotations

import os
import resource
import sys
import traceback
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple, Optional

from servery_runner import process

OUT_OF_MEMORY_STATUS = 12
"""Exit status (the number of ENOMEM) of a runner that had no memory left to take in a request."""
FAILED_STATUS = 70
"""Exit status (``EX_SOFTWARE``) of a runner in which something failed that no request can be blamed for."""
STACK_BYTES = 8 * 1024 * 1024
"""Of a thread that predicts: set aside in full, used in small part, and counted by the kernel as if used."""
POOL_THREAD_BYTES = 40 * 1024 * 1024
"""As above, of a thread of a numeric library, which has one for each processor: its stack and its buffer (OpenBLAS)."""
FIRST_TO_GO = "500"
"""``oom_score_adj`` of runners. When the machine runs out of memory the kernel ends one of them before a service that
uses up to half of all memory more; of two runners still the larger one."""

_memory_bytes = 0


class Limits(NamedTuple):
    """Of one runner."""

    memory_bytes: int
    answer_bytes: int

    @classmethod
    def of_order(cls, head: dict[str, Any]) -> Limits:
        """As told in the head of a LOAD record."""
        return cls(head["memory_bytes"], head["answer_bytes"])


class MemoryExhausted(BaseException):
    """The model wanted more memory than it may use. No Exception: MLflow hides the reason of those."""


def excess(memory_bytes: int) -> str:
    """What was wanted, to be read after "needed" or "used"."""
    return f"more than the {readable(memory_bytes)} of memory that a model's process may use"


def too_long(answer_bytes: int) -> str:
    """Why an answer is not sent."""
    return f"The model's answer is longer than the limit of {answer_bytes} bytes."


def readable(count: int) -> str:
    """Bytes for people."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count} bytes"


def confine(memory_bytes: int, threads: int) -> None:
    """Limit the memory of this process, and of what it starts, for good; ``threads`` predict in it."""
    global _memory_bytes
    _memory_bytes = memory_bytes
    _go_first()
    allowed = memory_bytes + threads * STACK_BYTES + (os.cpu_count() or 1) * POOL_THREAD_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        allowed = min(allowed, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))


def _go_first() -> None:
    """Have the kernel end this process before the services when the machine's memory runs out (Linux)."""
    if sys.platform == "linux":
        try:
            Path("/proc/self/oom_score_adj").write_text(FIRST_TO_GO)
        except OSError as error:
            process.say(f"oom_score_adj was not set: {error}")


def out_of_memory(error: BaseException) -> str:
    """Why a request or the loading failed with this error; frees what the failed calls still held.

    Also says it in the model's log.
    """
    for one in _chain(error):
        traceback.clear_frames(one.__traceback__)
    reason = f"The model needed {excess(_memory_bytes)}."
    process.say(f"out of memory: {reason}")
    return reason


def is_memory(error: BaseException) -> bool:
    """Whether the memory was used up: by this error or by one that led to it."""
    return any(isinstance(one, (MemoryError, MemoryExhausted)) for one in _chain(error))


def ending_the_process(work: Callable[..., None]) -> Callable[..., None]:
    """The same work of a thread; should it fail, because memory is used up or of a mistake, the process ends with it.

    A thread that ended alone would leave its requests, and all later ones, to their deadlines.
    """

    def guarded(*arguments: Any) -> None:
        try:
            work(*arguments)
        except MemoryError as error:
            out_of_memory(error)
            os._exit(OUT_OF_MEMORY_STATUS)
        except BaseException:
            traceback.print_exc()
            os._exit(FAILED_STATUS)

    return guarded


def _chain(error: Optional[BaseException]) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
