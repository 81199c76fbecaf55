"""What the contracts say about themselves.

JSON Schemas get the fields' docstrings, which pydantic leaves out; constants are listed with theirs.
"""

import ast
import inspect
import itertools
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from servery_common.contracts.message import Message, Value


def message_schema(message: type[Message]) -> dict[str, Any]:
    """Return the JSON Schema of a message, its own and its parts' fields described."""
    schema = message.model_json_schema(mode="validation")
    classes = {cls.__name__: cls for cls in _subclasses(Value)}
    for name, part in [(message.__name__, schema), *schema.get("$defs", {}).items()]:
        if name in classes:
            _describe_fields(part, classes[name])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{message.message_type.replace('.', ':')}",
        "x-type": message.message_type,
        **schema,
    }


def summary(cls: type[object]) -> str:
    """Return the first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())


def constants(module: ModuleType) -> dict[str, tuple[Any, str]]:
    """Return the documented and undocumented upper-case constants of a module: name -> (value, docstring)."""
    docs = _docs(ast.parse(inspect.getsource(module)).body)
    return {
        name: (value, docs.get(name, ""))
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, int)
    }


def _describe_fields(schema: dict[str, Any], cls: type[Value]) -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(tree, ast.ClassDef)
    for name, text in _docs(tree.body).items():
        if name in schema.get("properties", {}):
            schema["properties"][name]["description"] = text


def _docs(body: list[ast.stmt]) -> dict[str, str]:
    """Return the strings that stand right after an assignment, by the name assigned."""
    docs: dict[str, str] = {}
    for before, after in itertools.pairwise(body):
        match before, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                docs[name] = " ".join(text.split())
            case _:
                continue
    return docs


def _subclasses(cls: type[Value]) -> Iterator[type[Value]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
