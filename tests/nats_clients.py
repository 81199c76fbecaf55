"""What tests need of clients of nats-py."""

from nats.aio.client import Client


async def settle(client: Client) -> None:
    """Return when the server has taken all that was sent before.

    Twice: the PING of a flush is written at once, past what waits to be written, so its PONG may come before a
    subscription is there.
    """
    await client.flush()
    await client.flush()
