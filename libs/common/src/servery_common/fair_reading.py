"""Reading that lets others have their turn."""

import asyncio

LONG_READ_BYTES = 128 * 1024
"""A read of this length came out of a buffer in which there is probably more."""


def let_others_read(transport: asyncio.ReadTransport, received: int) -> None:
    """Read on in the next turn of the event loop, if much was ``received`` (bytes) just now.

    uvloop (libuv) reads a stream that always has more 32 times in one turn: eight megabytes, tens of milliseconds with
    what is done with them, in which nobody else is read and nothing is written.
    """
    if received >= LONG_READ_BYTES and not transport.is_closing() and transport.is_reading():
        transport.pause_reading()
        asyncio.get_running_loop().call_soon(_read_on, transport)


def _read_on(transport: asyncio.ReadTransport) -> None:
    if not transport.is_closing():
        transport.resume_reading()
