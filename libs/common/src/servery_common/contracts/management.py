"""A management call, carried from the gateway to the controller's API over request/reply.

The body travels as the payload of the NATS message, these fields as its headers' JSON; large answers
come in parts (``messaging.requests``). Bodies hold secrets, such as a new token: no representation shows them.
"""

from pydantic import Field

from servery_common.contracts.access import ALL_APIS, Identity
from servery_common.contracts.message import Message


class HttpCall(Message, type="servery.http.call.v1"):
    """One HTTP request by an authenticated caller."""

    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = {}
    """Lower-case names; only what the API reads (content-type, accept, x-request-id)."""
    body: str = Field(default="", repr=False)
    identity: Identity
    scope: str = ALL_APIS
    """Of the caller's credential. Only one for all APIs may change anything."""
    client: str = ""
    """The address the caller came from, as the gateway sees it; empty: not known."""
    host: str = ""
    """``scheme://host[:port]`` as the caller sees the gateway, for answers that hold addresses."""


class HttpAnswer(Message, type="servery.http.answer.v1"):
    """Its answer."""

    status: int
    headers: dict[str, str] = {}
    body: str = Field(default="", repr=False)
