"""``docs/events.md``: every message for people who read."""

import inspect
import json
from collections.abc import Iterator
from typing import Any

from servery_common.contracts import frames, subjects
from servery_common.contracts.catalogue import CATALOGUE, Entry, Guarantee
from servery_common.messaging import consumer, streams
from servery_common.schemas.describe import constants, message_schema, summary

_GUARANTEES = {
    Guarantee.REQUEST: "Request/reply over core NATS. Nothing is stored; nobody there means an immediate error.",
    Guarantee.REPLY: "Answers to requests. Those above 512 KiB travel in parts.",
    Guarantee.SIGNAL: "Core NATS, best effort: lost when nobody listens, repeated soon.",
    Guarantee.JOB: "JetStream work queue: done by one consumer, at least once.",
    Guarantee.EVENT: "JetStream: facts, delivered at least once, in order.",
    Guarantee.STATE: "JetStream key-value buckets: the last value of each key; followers get all, then changes.",
}


def events_markdown() -> str:
    """Return the document."""
    return "\n".join(_document()) + "\n"


def _document() -> Iterator[str]:
    yield "# Messages"
    yield ""
    yield "Generated from `servery_common.contracts` by `python -m servery_common.schemas`; do not edit."
    yield ""
    yield "Jobs, events and signals are CloudEvents 1.0 in binary mode: a JSON payload and `ce-…` headers. All"
    yield "messages carry `traceparent`. The version is part of the type; within a version only optional fields"
    yield "are added, and readers ignore fields they do not know."
    for guarantee, meaning in _GUARANTEES.items():
        yield from ("", f"## {guarantee.name.capitalize()}", "", meaning, "")
        yield "| message | type | carried by | from | to |"
        yield "|---|---|---|---|---|"
        for entry in CATALOGUE:
            if entry.guarantee is guarantee:
                yield _row(entry)
    yield from _streams()
    yield from _frames()
    yield from ("", "## Fields")
    for entry in CATALOGUE:
        yield from _fields(entry)


def _row(entry: Entry) -> str:
    name = entry.message.__name__
    carriers = ", ".join(f"`{carrier}`" for carrier in entry.carriers)
    producers, consumers = ", ".join(entry.producers), ", ".join(entry.consumers)
    return f"| [{name}](#{name.lower()}) | `{entry.type}` | {carriers} | {producers} | {consumers} |"


def _streams() -> Iterator[str]:
    yield from ("", "## Streams and buckets", "")
    yield "| stream | subjects | keeps | at most | when full | same id dropped within |"
    yield "|---|---|---|---|---|---|"
    for config in streams.DECLARED:
        kept = config.retention.value if config.retention else "limits"
        age = f"{config.max_age / 86400:.0f} days" if config.max_age else "for ever"
        per_subject = ", last per key" if config.max_msgs_per_subject == 1 else ""
        discard = config.discard.value if config.discard else "old"
        yield (
            f"| `{config.name}` | {', '.join(f'`{s}`' for s in config.subjects or [])} "
            f"| {kept}{per_subject}, {age} | {(config.max_bytes or 0) // 2**20} MiB | discards {discard} "
            f"| {config.duplicate_window:.0f} s |"
        )
    yield ""
    yield (
        f"Durable consumers: `{subjects.CONTROLLER_EVENTS_DURABLE}`, `{subjects.BUILDER_JOBS_DURABLE}`; "
        f"acknowledgement within {consumer.ACK_WAIT_SECONDS:.0f} s, prolonged while a handler runs; redelivery"
    )
    yield (
        f"after {consumer.redelivery_delay(1):g} s, doubling up to {consumer.redelivery_delay(99):g} s; "
        f"dropped with an error in the log after {consumer.MAX_DELIVERIES} deliveries."
    )


def _frames() -> Iterator[str]:
    story = inspect.getdoc(frames) or ""
    yield from ("", "## Scoring frames", "")
    yield "On `servery.infer.<replica_id>` and `servery.replies.<gateway_id>.<replica_id>`: bytes, not messages."
    yield ""
    yield from _fenced(story.split("\n\n", 1)[1])
    yield from ("", "| name | value | meaning |", "|---|---|---|")
    for name, (value, text) in constants(frames).items():
        yield f"| `{name}` | {value} | {_cell(text)} |"


def _fenced(text: str) -> Iterator[str]:
    """Turn indented blocks after ``::`` into fenced ones."""
    inside = False
    for line in text.splitlines():
        indented = line.startswith("    ")
        if indented and not inside:
            yield "```"
        if not indented and inside and line:
            yield "```"
            yield ""
        if line or not inside:
            yield line[4:] if indented else line.removesuffix("::") + (":" if line.endswith("::") else "")
        inside = indented or (inside and not line)
    if inside:
        yield "```"


def _fields(entry: Entry) -> Iterator[str]:
    schema = message_schema(entry.message)
    yield from ("", f"### {entry.message.__name__}", "", summary(entry.message))
    shown = [("", schema)]
    shown += [(name, part) for name, part in schema.get("$defs", {}).items() if "properties" in part]
    for name, part in shown:
        if not part.get("properties"):
            continue
        if name:
            yield from ("", f"`{name}`: {part.get('description', '').split(chr(10))[0]}")
        yield from ("", "| field | type | default | meaning |", "|---|---|---|---|")
        for field, detail in part["properties"].items():
            default = (
                "required" if field in part.get("required", []) else f"`{json.dumps(detail.get('default'))}`"
            )
            yield f"| `{field}` | {_type(detail)} | {default} | {_cell(detail.get('description', ''))} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _type(detail: dict[str, Any]) -> str:
    if "$ref" in detail:
        return detail["$ref"].rsplit("/", 1)[1]
    if "anyOf" in detail:
        return " or ".join(_type(one) for one in detail["anyOf"])
    if "enum" in detail:
        return " ".join(f"`{one}`" for one in detail["enum"])
    if detail.get("type") == "array":
        return f"list of {_type(detail['items'])}"
    if detail.get("type") == "object":
        return f"map to {_type(detail.get('additionalProperties', {}))}"
    return str(detail.get("type", "any"))
