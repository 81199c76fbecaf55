"""Request bodies for scoring: every input format MLflow knows, and the ways people get them wrong.

A body is bytes and a content type, named for test ids. Bodies are built from a model's example frame, so
that every model of the zoo is asked in every format.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

JSON = "application/json"
CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Body:
    """What is posted to ``/invocations``; ``content_type`` None sends no such header."""

    name: str
    content: bytes
    content_type: str | None = JSON


def json_body(name: str, value: object) -> Body:
    """``value`` as JSON. NaN and infinities are written as Python does (``NaN``, ``Infinity``)."""
    return Body(name, json.dumps(value, default=str).encode())


def every_format(frame: pd.DataFrame, *, prefix: str = "") -> list[Body]:
    """The same rows in each format of MLflow's scoring protocol."""
    split = _split(frame)
    return [
        json_body(f"{prefix}split", {"dataframe_split": split}),
        json_body(
            f"{prefix}split_without_index",
            {"dataframe_split": {"columns": split["columns"], "data": split["data"]}},
        ),
        json_body(f"{prefix}records", {"dataframe_records": _records(frame)}),
        json_body(f"{prefix}instances", {"instances": _records(frame)}),
        json_body(f"{prefix}inputs", {"inputs": _columns(frame)}),
        json_body(f"{prefix}inputs_records", {"inputs": _records(frame)}),
        json_body(f"{prefix}instances_rows", {"instances": split["data"]}),
        Body(f"{prefix}csv", frame.to_csv(index=False).encode(), CSV),
        Body(f"{prefix}csv_with_charset", frame.to_csv(index=False).encode(), f"{CSV}; charset=utf-8"),
        Body(f"{prefix}parquet", _parquet(frame), PARQUET),
    ]


def schema_violations(frame: pd.DataFrame, column: str) -> list[Body]:
    """Well-formed bodies whose rows do not quite fit ``frame``'s schema, spoilt at ``column``."""
    records = _records(frame)
    without = frame.drop(columns=[column])
    renamed = frame.rename(columns={column: f"{column}?"})
    return [
        *every_format(without, prefix="missing_column_"),
        json_body("renamed_column", {"dataframe_split": _split(renamed)}),
        json_body("no_column_names", {"dataframe_split": {"data": _split(frame)["data"]}}),
        json_body("extra_column", {"dataframe_records": [{**r, "extra": 1} for r in records]}),
        json_body("shuffled_columns", {"dataframe_split": _split(frame[list(frame.columns)[::-1]])}),
        json_body("text_for_value", _with(records, column, "not a value")),
        json_body("number_as_text", _with(records, column, "1")),
        json_body("whole_number", _with(records, column, 1)),
        json_body("fraction", _with(records, column, 1.5)),
        json_body("boolean", _with(records, column, True)),
        json_body("null", _with(records, column, None)),
        json_body("list_for_value", _with(records, column, [1, 2])),
        json_body("object_for_value", _with(records, column, {"a": 1})),
        json_body("huge_number", _with(records, column, 10**30)),
        Body("csv_text_for_value", frame.assign(**{column: "x"}).to_csv(index=False).encode(), CSV),
        json_body("no_rows_records", {"dataframe_records": []}),
        json_body("no_rows_split", {"dataframe_split": {"columns": list(frame.columns), "data": []}}),
    ]


def malformed(frame: pd.DataFrame) -> list[Body]:
    """Bodies no model can make sense of, whatever its schema."""
    split, records = _split(frame), _records(frame)
    good = json.dumps({"dataframe_split": split}, default=str).encode()
    return [
        Body("empty_body", b""),
        Body("not_json", b"{not json"),
        Body("cut_json", good[: len(good) // 2]),
        Body("not_utf8", b'{"inputs": "\xff\xfe"}'),
        json_body("empty_object", {}),
        json_body("list_at_top", records),
        json_body("string_at_top", "text"),
        json_body("number_at_top", 7),
        json_body("null_at_top", None),
        json_body("unknown_format", {"rows": records}),
        json_body("two_formats", {"dataframe_split": split, "dataframe_records": records}),
        json_body("inputs_and_instances", {"inputs": records, "instances": records}),
        json_body("only_params", {"params": {"a": 1}}),
        json_body("split_is_list", {"dataframe_split": records}),
        json_body("records_is_object", {"dataframe_records": split}),
        json_body("records_of_scalars", {"dataframe_records": [1, 2]}),
        json_body("split_unknown_key", {"dataframe_split": {**split, "rows": []}}),
        json_body("split_ragged", {"dataframe_split": {"columns": split["columns"], "data": [[1]]}}),
        json_body("instances_is_scalar", {"instances": 5}),
        json_body("inputs_is_null", {"inputs": None}),
        json_body("extra_top_level_key", {"dataframe_split": split, "client_request_id": "a-1"}),
        json_body("unknown_params", {"dataframe_split": split, "params": {"unheard_of": 1}}),
        json_body("params_is_list", {"dataframe_split": split, "params": [1]}),
        Body("json_with_charset", good, f"{JSON}; charset=UTF-8"),
        Body("charset_latin1", good, f"{JSON}; charset=latin-1"),
        Body("content_type_parameter", good, f"{JSON}; version=2"),
        Body("content_type_text", good, "text/plain"),
        Body("content_type_xml", b"<rows/>", "application/xml"),
        Body("content_type_form", good, FORM),
        Body("content_type_missing", good, None),
        Body("csv_empty", b"", CSV),
        Body("csv_not_utf8", b"a,b\n\xff,1\n", CSV),
        Body("csv_ragged", b"a,b\n1,2,3\n4\n5,6,7,8\n", CSV),
        Body("parquet_broken", b"PAR1 nonsense", PARQUET),
    ]


def with_params(frame: pd.DataFrame, choices: Mapping[str, object]) -> list[Body]:
    """One body per entry of ``choices``: name -> value of ``params``."""
    records = _records(frame)
    return [
        json_body(f"params_{name}", {"dataframe_records": records, "params": params})
        for name, params in choices.items()
    ]


def _with(records: Sequence[Mapping[str, Any]], column: str, value: object) -> dict[str, object]:
    """The records with another value at ``column`` of the last row."""
    return {"dataframe_records": [*records[:-1], {**records[-1], column: value}]}


def _split(frame: pd.DataFrame) -> dict[str, Any]:
    return json.loads(frame.to_json(orient="split", date_format="iso"))


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return json.loads(frame.to_json(orient="records", date_format="iso"))


def _columns(frame: pd.DataFrame) -> dict[str, list[Any]]:
    records = _records(frame)
    return {str(name): [row[str(name)] for row in records] for name in frame.columns}


def _parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()
