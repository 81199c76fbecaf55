"""What docs/compatibility.md promises: it lists what there is, names tests that exist, and is up to date."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any
from unittest.mock import MagicMock

import pytest
from databricks.sdk.service import serving
from fastapi import APIRouter
from fastapi.routing import APIRoute
from tests.contract import compatibility

import servery_controller.api
from servery_controller.api.application import make_api
from servery_controller.api.endpoints import endpoints_router

LISTED = compatibility.routes()
CONTROLLER = "/api/2.0/"


def test_the_page_is_up_to_date() -> None:
    assert compatibility.PAGE.read_text(encoding="utf-8") == compatibility.page(), "run `make compatibility`"


def test_every_route_of_the_controller_is_listed() -> None:
    missing = controller_routes() - {anonymous(route.named_method, route.path) for route in LISTED}
    assert not missing, f"not in docs/compatibility.yaml: {sorted(missing)}"


def test_every_listed_route_of_the_controller_exists() -> None:
    listed = {
        anonymous(route.named_method, route.path) for route in LISTED if route.path.startswith(CONTROLLER)
    }
    absent = listed - controller_routes()
    assert not absent, f"in docs/compatibility.yaml, but not in the controller: {sorted(absent)}"


def test_no_route_is_listed_twice() -> None:
    calls = [anonymous(route.named_method, route.path) for route in LISTED]
    assert sorted(set(calls)) == sorted(calls)


@pytest.mark.parametrize("group", compatibility.load()["fields"], ids=lambda group: group["title"])
def test_every_field_the_sdk_knows_is_listed(group: dict[str, Any]) -> None:
    missing = sdk_fields(group["sdk"]) - set(group["rows"])
    assert not missing, f"{group['title']}: {sorted(missing)}"


def test_every_line_names_tests_that_exist() -> None:
    unproven = [name for name, row in compatibility.rows() if not row["tests"]]
    assert not unproven, f"no test shows {unproven}"
    named = [(name, test) for name, row in compatibility.rows() for test in row["tests"]]
    absent = [f"{name}: {test}" for name, test in named if not exists(test)]
    assert not absent, "\n".join(absent)


def test_every_verdict_that_is_no_plain_yes_has_a_note() -> None:
    silent = [
        name for name, row in compatibility.rows() if row.get("verdict") == "differs" and not row.get("note")
    ]
    assert not silent, silent


def controller_routes() -> set[str]:
    """What the controller answers. Routes do not look at what they are made with until they are called."""
    routers = [pretended(factory) for factory in router_factories() if factory is not endpoints_router]
    app = pretended(make_api, routers=routers)
    return {
        anonymous(method, route.path.rstrip("/"))
        for route in flat(app.routes)
        for method in methods_of(route)
    }


def methods_of(route: APIRoute) -> set[str]:
    """The methods of a route; ``ANY`` for one that takes all that the API knows."""
    return {"ANY"} if {"GET", "POST", "PUT", "PATCH", "DELETE"} <= route.methods else route.methods


def router_factories() -> Iterator[Callable[..., APIRouter]]:
    """Every ``…_router`` of the API's modules."""
    for found in pkgutil.iter_modules(servery_controller.api.__path__):
        module = importlib.import_module(f"servery_controller.api.{found.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if name.endswith("_router") and function.__module__ == module.__name__:
                yield function


def pretended(factory: Callable[..., Any], **given: object) -> Any:
    """Call a factory with stand-ins for what is not given."""
    return factory(**{name: given.get(name, MagicMock()) for name in inspect.signature(factory).parameters})


def flat(routes: Iterable[object]) -> Iterator[APIRoute]:
    """The routes, those of included routers too. No router is included below a prefix here."""
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        else:
            yield from flat(route.original_router.routes)


def anonymous(method: str, path: str) -> str:
    """A call whatever its parameters are called."""
    return f"{method} {re.sub(r'{[^}]*}', '{}', path)}"


def sdk_fields(name: str) -> set[str]:
    """The fields of one of the SDK's classes, or the parameters of one of its methods."""
    if name == "create":
        return set(inspect.signature(serving.ServingEndpointsAPI.create).parameters) - {"self"}
    return {field.name for field in dataclasses.fields(getattr(serving, name))}


def exists(test: str) -> bool:
    path, function = compatibility.place(test)
    return function in functions_in(path)


@cache
def functions_in(path: str) -> frozenset[str]:
    file = compatibility.ROOT / "tests" / path
    if not file.exists():
        return frozenset()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
