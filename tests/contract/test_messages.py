"""The messages, the documents made of them and the services' code agree."""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

import servery_common.contracts
from servery_common.contracts.catalogue import CATALOGUE, Entry, Service
from servery_common.contracts.message import Message
from servery_common.schemas import ASYNCAPI, SCHEMAS, documents
from servery_common.schemas.__main__ import differences

ROOT = Path(__file__).parents[2]
by_message = pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.message.__name__)


def test_the_generated_documents_are_up_to_date() -> None:
    outdated = differences(ROOT)
    assert not outdated, f"run `python -m servery_common.schemas`: {', '.join(outdated)}"


def test_every_message_class_is_in_the_catalogue_once() -> None:
    for module in pkgutil.iter_modules(servery_common.contracts.__path__):
        importlib.import_module(f"servery_common.contracts.{module.name}")
    defined = {
        cls for cls in Message.__subclasses__() if cls.__module__.startswith("servery_common.contracts.")
    }
    listed = [entry.message for entry in CATALOGUE]
    assert sorted(cls.__name__ for cls in listed) == sorted(cls.__name__ for cls in defined)


def test_no_two_messages_share_a_type() -> None:
    types = [entry.type for entry in CATALOGUE]
    assert sorted(set(types)) == sorted(types)


def test_asyncapi_is_yaml_whose_references_lead_somewhere() -> None:
    document = yaml.safe_load(documents()[ASYNCAPI])
    assert document["asyncapi"] == "3.0.0"
    for reference in references(document):
        path, _, pointer = reference.partition("#/")
        if path:
            assert (ROOT / "docs" / path).resolve().is_relative_to(ROOT / SCHEMAS), reference
            assert (ROOT / "docs" / path).is_file(), reference
            continue
        target = document
        for key in pointer.split("/"):
            assert key in target, reference
            target = target[key]


@by_message
def test_a_message_is_made_by_its_producers(entry: Entry) -> None:
    missing = [one.value for one in entry.producers if entry.message.__name__ not in names_called_in(one)]
    assert not missing, f"{entry.message.__name__} is never constructed in: {', '.join(missing)}"


@by_message
def test_a_message_is_read_by_its_consumers(entry: Entry) -> None:
    missing = [one.value for one in entry.consumers if entry.message.__name__ not in names_used_in(one)]
    assert not missing, f"{entry.message.__name__} is never used in: {', '.join(missing)}"


@by_message
def test_a_message_is_made_by_nobody_else(entry: Entry) -> None:
    others = set(Service) - set(entry.producers)
    found = [one.value for one in others if entry.message.__name__ in names_called_in(one)]
    assert not found, f"{entry.message.__name__} is also constructed in: {', '.join(found)}"


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for item in node:
            yield from references(item)


@cache
def trees(service: Service) -> tuple[ast.Module, ...]:
    package = ROOT / "services" / service.value / "src" / f"servery_{service.value}"
    return tuple(ast.parse(file.read_text(encoding="utf-8")) for file in sorted(package.rglob("*.py")))


@cache
def names_called_in(service: Service) -> frozenset[str]:
    """The names that are called, as ``Name(…)`` or ``module.Name(…)``."""
    return frozenset(
        name
        for tree in trees(service)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for name in [name_of(node.func)]
        if name
    )


@cache
def names_used_in(service: Service) -> frozenset[str]:
    """The names that are used in code; an import alone is no use."""
    return frozenset(
        name for tree in trees(service) for node in ast.walk(tree) for name in [name_of(node)] if name
    )


def name_of(node: ast.AST) -> str | None:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return None
