"""One stream of messages out of two subscriptions to the same subject, while one takes the place of the other. Pure.

As long as both are there the server sends each message to both. Those of the old one are handled as they come. Of the
new one those are dropped that the old one brings too, whichever is first; the others wait until nothing more can come
from the old one, so that what one gateway sent stays in its order. No gateway sends a replica two messages that are
equal byte for byte, but for such as change nothing the second time (``contracts.frames``): equal ones are one.
"""

import hashlib
from collections import Counter

from servery_common.messaging.wire import MessageHandler


class Handover:
    """From its making, before the new subscription begins, over ``end``, after the old one did, until the new one has
    brought all that the old one had brought before."""

    def __init__(self, handler: MessageHandler) -> None:
        """``handler`` raises nothing."""
        self._handler = handler
        self._ahead: Counter[bytes] = Counter()
        """What the old one brought and the new one did not yet."""
        self._waiting: dict[bytes, tuple[bytes, str, bytes, bytes]] = {}
        """What the new one brought and the old one did not yet, in order."""
        self._ended = False

    def from_old(self, payload: memoryview, reply: str, headers: bytes, subject: bytes) -> None:
        """Take a message of the old subscription."""
        message = _identity(payload, reply)
        if self._waiting.pop(message, None) is None:
            self._ahead[message] += 1
        self._handler(payload, reply, headers, subject)

    def from_new(self, payload: memoryview, reply: str, headers: bytes, subject: bytes) -> None:
        """Take a message of the new subscription."""
        message = _identity(payload, reply)
        if self._ahead[message]:
            self._ahead[message] -= 1
        elif self._ended:
            self._handler(payload, reply, headers, subject)
        else:
            self._waiting[message] = (bytes(payload), reply, headers, subject)

    def end(self) -> None:
        """The old one brings no more: handle what waits, and at once what comes from now on."""
        self._ended = True
        waiting, self._waiting = self._waiting, {}
        for payload, reply, headers, subject in waiting.values():
            self._handler(memoryview(payload), reply, headers, subject)


def _identity(payload: memoryview, reply: str) -> bytes:
    digest = hashlib.blake2b(reply.encode(), digest_size=16)
    digest.update(b"\n")
    digest.update(payload)
    return digest.digest()
