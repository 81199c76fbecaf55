"""Send a streamed answer to the client as server-sent events.

The events of the items come from the replica as they are. What this gateway adds is the end: ``data: [DONE]`` when the
answer is whole. One that breaks off gets an event with the error, and its connection is closed without the last
chunk: a client that does not look for errors in events still sees that the answer is incomplete.
"""

import logging

import orjson

from servery_common.errors import ServeryError
from servery_gateway.answer_stream import AnswerStream, BrokenOff
from servery_gateway.answers import scoring_answer
from servery_gateway.http import Header, Send, header_value

DONE = b"data: [DONE]\n\n"

_UNFINISHED = "ASGI callable returned without completing response."
"""What uvicorn logs as an error when a response is left unfinished, which is done here on purpose and logged with
its reason."""


def is_news(record: logging.LogRecord) -> bool:
    """A filter for uvicorn's logger."""
    return record.msg != _UNFINISHED


async def send_stream(send: Send, stream: AnswerStream, headers: list[Header]) -> tuple[int, str] | None:
    """Send the answer as it comes. Returns status and reason of the error it broke off with, None when it is whole.

    After an error the response is left unfinished, so that the server closes the connection. Raises what says that
    the client left.
    """
    headers += [
        (b"content-type", header_value(stream.content_type)),
        (b"cache-control", b"no-cache"),
        # Proxies in front of a gateway (nginx) would otherwise collect the answer.
        (b"x-accel-buffering", b"no"),
    ]
    await send({"type": "http.response.start", "status": stream.status, "headers": headers})
    try:
        while (content := await stream.next()) is not None:
            await _body(send, content)
    except ServeryError as error:
        await _body(send, _error_event(orjson.dumps(error.body())))
        return error.status, error.message
    except BrokenOff as broken:
        answer = scoring_answer(broken.outcome)
        await _body(send, _error_event(answer.body))
        return answer.status, "the model failed in the middle of its answer"
    await send({"type": "http.response.body", "body": DONE})
    return None


async def _body(send: Send, content: bytes) -> None:
    await send({"type": "http.response.body", "body": content, "more_body": True})


def _error_event(error: bytes) -> bytes:
    # The line breaks end an event that was cut by what broke the answer off.
    return b'\n\ndata: {"error":' + error + b"}\n\n"
