"""Stream a model's answer as server-sent events: one ``data:`` event per item of ``predict_stream``.

Errors before the first item are an ordinary answer, the very one MLflow gives: the body is read and the first item
computed inside MLflow's own ``invocations``. A ``Flow`` is what the agent has to say to a stream under way: that the
client took some of it, or that nobody wants the rest.
"""

from __future__ import annotations

import threading
from io import StringIO
from typing import Any, Callable, Iterator

from servery_common.contracts import frames

EVENT_STREAM = "text/event-stream"

CANNOT_STREAM = (
    'This model cannot stream its answer. Send the request without "stream": true, or log the model with a'
    " predict_stream method."
)


class Flow:
    """Room for one answer's bytes. Used by the thread that predicts and the one that reads records."""

    __slots__ = ("_cancelled", "_unacknowledged")

    _changed = threading.Condition()
    """Of all of them: every request has a flow, and few ever wait."""

    def __init__(self) -> None:
        self._unacknowledged = 0
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Nobody wants the rest."""
        return self._cancelled

    def take(self, count: int) -> bool:
        """Wait until ``count`` more bytes may be sent; False when nobody wants them."""
        with self._changed:
            while not self._cancelled and self._unacknowledged + count > frames.STREAM_WINDOW_BYTES:
                self._changed.wait()
            self._unacknowledged += count
            return not self._cancelled

    def acknowledge(self, count: int) -> None:
        """The client took ``count`` bytes."""
        with self._changed:
            self._unacknowledged = max(0, self._unacknowledged - count)
            self._changed.notify_all()

    def cancel(self) -> None:
        """Nobody wants the rest."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()


def can_stream(model: Any) -> bool:
    """Whether the model was logged with ``predict_stream``, by a release of MLflow that knows it."""
    flavor = model.metadata.flavors.get("python_function") or {}
    return bool(flavor.get("streamable")) and hasattr(model, "predict_stream")


def event(item: Any, write_json: Callable[[Any, StringIO], Any]) -> bytes:
    """One item as an event. ``write_json`` is MLflow's, which knows NumPy and pandas; its JSON has no line breaks."""
    text = StringIO()
    write_json(item, text)
    return b"data: " + text.getvalue().encode() + b"\n\n"


def pieces(content: bytes) -> Iterator[bytes]:
    """Cut an event into records' bodies."""
    for at in range(0, len(content), frames.CHUNK_BYTES):
        yield content[at : at + frames.CHUNK_BYTES]
