"""``docs/asyncapi.yaml``: the catalogue as AsyncAPI 3.0, of the system as a whole.

One channel per subject, one operation per service and direction. AsyncAPI's NATS binding can express little
more than a queue name, so streams and delivery settings are in ``docs/events.md``.
"""

import re
from typing import Any

from servery_common.contracts.catalogue import CATALOGUE, Entry, Guarantee
from servery_common.schemas.describe import summary

_CLOUDEVENTS_HEADERS = {
    "type": "object",
    "required": ["ce-specversion", "ce-id", "ce-type", "ce-source", "ce-time"],
    "properties": {
        "ce-specversion": {"const": "1.0"},
        "ce-id": {"type": "string"},
        "ce-type": {"type": "string"},
        "ce-source": {"type": "string"},
        "ce-time": {"type": "string", "format": "date-time"},
        "Nats-Msg-Id": {"type": "string", "description": "The same as ce-id: JetStream drops repetitions."},
        "traceparent": {"type": "string"},
    },
}
_REQUEST_HEADERS = {
    "type": "object",
    "required": ["servery-type"],
    "properties": {
        "servery-type": {"type": "string"},
        "servery-timeout-ms": {"type": "string", "description": "How long the caller waits."},
        "servery-part": {"type": "string", "description": "n/total, for an answer in parts."},
        "servery-status": {"enum": ["error", "end"]},
        "traceparent": {"type": "string"},
    },
}
_STATE_HEADERS = {"type": "object", "properties": {"ce-type": {"type": "string"}}}
_HEADERS = {
    Guarantee.REQUEST: "request",
    Guarantee.REPLY: "request",
    Guarantee.STATE: "state",
}


def asyncapi(schemas: str) -> dict[str, Any]:
    """Return the document; ``schemas`` is the folder of the JSON Schemas relative to it."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Servery",
            "version": "1.0.0",
            "description": "What Servery's services say to each other over NATS.",
        },
        "defaultContentType": "application/json",
        "channels": _channels(),
        "operations": {name: body for entry in CATALOGUE for name, body in _operations(entry)},
        "components": {
            "messages": {entry.message.__name__: _message(entry, schemas) for entry in CATALOGUE},
            "schemas": {
                "cloudevents-headers": _CLOUDEVENTS_HEADERS,
                "request-headers": _REQUEST_HEADERS,
                "state-headers": _STATE_HEADERS,
            },
        },
    }


def _channels() -> dict[str, Any]:
    channels: dict[str, Any] = {}
    for entry in CATALOGUE:
        for carrier in entry.carriers:
            name = _channel(carrier, entry.guarantee)
            channel = channels.setdefault(name, _new_channel(carrier, entry.guarantee))
            channel["messages"][entry.message.__name__] = {
                "$ref": f"#/components/messages/{entry.message.__name__}"
            }
    return channels


def _new_channel(carrier: str, guarantee: Guarantee) -> dict[str, Any]:
    if guarantee is Guarantee.REPLY:
        # The inbox that the request names.
        return {"address": None, "messages": {}}
    address = re.sub(r"<(\w+)>", r"{\1}", carrier)
    if guarantee is Guarantee.STATE:
        address = f"$KV.{address.replace('/', '.')}"
    channel: dict[str, Any] = {"address": address, "messages": {}}
    if parameters := re.findall(r"<(\w+)>", carrier):
        channel["parameters"] = {name: {"description": "An opaque id."} for name in parameters}
    return channel


def _channel(carrier: str, guarantee: Guarantee) -> str:
    name = re.sub(r"\.?<\w+>|/", "", carrier.removeprefix("servery."))
    return f"{name}.reply" if guarantee is Guarantee.REPLY else name


def _message(entry: Entry, schemas: str) -> dict[str, Any]:
    headers = _HEADERS.get(entry.guarantee, "cloudevents")
    return {
        "name": entry.type,
        "title": entry.message.__name__,
        "summary": summary(entry.message),
        "headers": {"$ref": f"#/components/schemas/{headers}-headers"},
        "payload": {"$ref": f"{schemas}/{entry.type}.json"},
        "tags": [{"name": entry.guarantee.value}],
    }


def _operations(entry: Entry) -> list[tuple[str, dict[str, Any]]]:
    if entry.guarantee is Guarantee.REPLY:
        return []
    name = entry.message.__name__
    return [
        (f"{service}-{action}s-{name}", _operation(entry, service, action))
        for action, services in (("send", entry.producers), ("receive", entry.consumers))
        for service in services
    ]


def _operation(entry: Entry, service: str, action: str) -> dict[str, Any]:
    channel = _channel(entry.carriers[0], entry.guarantee)
    operation: dict[str, Any] = {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [_in_channel(channel, entry)],
        "tags": [{"name": service}],
    }
    replies = [
        reply
        for reply in CATALOGUE
        if reply.guarantee is Guarantee.REPLY and entry.carriers[0] in reply.carriers
    ]
    if entry.guarantee is Guarantee.REQUEST and replies:
        answer = _channel(entry.carriers[0], Guarantee.REPLY)
        operation["reply"] = {
            "channel": {"$ref": f"#/channels/{answer}"},
            "messages": [_in_channel(answer, reply) for reply in replies],
        }
    return operation


def _in_channel(channel: str, entry: Entry) -> dict[str, Any]:
    return {"$ref": f"#/channels/{channel}/messages/{entry.message.__name__}"}
