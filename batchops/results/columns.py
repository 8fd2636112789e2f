"""Answers as flat columns: what CSV, Parquet, tables and SQL views show.

Key columns come first under their own names, then `status`, the answer, and what is known about the request. With an
object schema each top-level property of the answer is a column; else the answer is one column. A name that is taken
gets `_1`, `_2`: keys have the first choice, then our own columns, then the properties.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from batchops.results.answers import key_parts
from batchops.results.recorded import RecordedJob
from batchops.store.connection import sql_text

_JSON_TYPES = {"string": "VARCHAR", "integer": "BIGINT", "number": "DOUBLE", "boolean": "BOOLEAN"}
_TEXT, _COUNT = "VARCHAR", "UINTEGER"
_AFTER = (
    ("error_class", _TEXT),
    ("error_code", _TEXT),
    ("error_message", _TEXT),
    ("attempts", _COUNT),
    ("model", _TEXT),
    ("finish_reason", _TEXT),
    ("input_tokens", _COUNT),
    ("output_tokens", _COUNT),
    ("cached_tokens", _COUNT),
    ("reasoning_tokens", _COUNT),
    ("cost_usd", "DOUBLE"),
    ("batch_id", _TEXT),
    ("digest", _TEXT),
)
VECTOR, VECTORS = "DOUBLE[]", "DOUBLE[][]"
OTHER_SHAPE = (
    "The embeddings of this job have several shapes, and this one is not that of the first."
    " To have them all: batchops results JOB -o FILE.parquet"
)
"""What DuckDB is to say where an answer has no value of the type of its column: a NULL would look like no answer."""


@dataclass(frozen=True)
class Column:
    """One column over `answers.relation`: `text` is SQL for its text, `typed` for its value of DuckDB type `type`.

    `origin` is `key`, `answer`, or the name of the relation's column, whatever name was free for it here.
    """

    origin: str
    name: str
    type: str
    text: str
    typed: str

    @property
    def is_number(self) -> bool:
        return self.type not in {_TEXT, "BOOLEAN"} and not self.type.endswith("]")


def flat_columns(job: RecordedJob, *, vectors: str | None = None) -> tuple[Column, ...]:
    """The columns of a job, in order. `vectors`: the type of its embeddings, VECTOR or VECTORS, if it makes any."""
    keys = [
        _column("key", name, kind if is_integer else _TEXT, part)
        for name, kind, (part, is_integer) in zip(job.key_columns, job.key_types, key_parts(job), strict=True)
    ]
    status = _column("status", "status", _TEXT, "status")
    after = [_column(name, name, kind, name) for name, kind in _AFTER]
    answers = _property_columns(job.schema) or [_answer_column(vectors)]
    names = _claim([*keys, status, *after, *answers])
    split = len(keys) + 1 + len(after)
    fixed, answered = names[:split], names[split:]
    return (*fixed[: len(keys) + 1], *answered, *fixed[len(keys) + 1 :])


def select_list(columns: Iterable[Column], *, typed: bool) -> str:
    """The columns as an SQL select list, each under its name."""
    return ", ".join(f"{column.typed if typed else column.text} AS {sql_name(column.name)}" for column in columns)


def sql_name(name: str) -> str:
    """`name` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _claim(wanted: Iterable[Column]) -> list[Column]:
    """The same columns under names that differ also in lower case, as SQL demands. First come, first served."""
    taken: set[str] = set()
    named = []
    for column in wanted:
        name, number = column.name or "_", 0
        while name.lower() in taken:
            number += 1
            name = f"{column.name}_{number}"
        taken.add(name.lower())
        named.append(replace(column, name=name))
    return named


def _column(origin: str, name: str, kind: str, expression: str) -> Column:
    typed = expression if kind == _TEXT else f"TRY_CAST({expression} AS {kind})"
    return Column(origin, name, kind, f"CAST({expression} AS VARCHAR)", typed)


def _answer_column(vectors: str | None) -> Column:
    text = """CASE WHEN answer LIKE '"%' THEN json_extract_string(answer, '$') ELSE answer END"""
    if vectors is None:
        return Column("answer", "answer", _TEXT, text, text)
    listed = "CASE WHEN answer LIKE '[[%' THEN answer ELSE concat('[', answer, ']') END"
    value = "CAST(answer AS DOUBLE[])" if vectors == VECTOR else f"CAST(CAST({listed} AS JSON) AS DOUBLE[][])"
    typed = f"CASE WHEN answer IS NOT NULL THEN coalesce(TRY({value}), error({sql_text(OTHER_SHAPE)})) END"
    return Column("answer", "answer", vectors, text, typed)


def _property_columns(schema: Mapping[str, Any] | None) -> list[Column]:
    properties = (schema or {}).get("properties")
    if not isinstance(properties, dict):
        return []
    return [_property_column(name, _sql_type(shape)) for name, shape in properties.items()]


def _property_column(name: str, kind: str) -> Column:
    pointer = sql_text("/" + name.replace("~", "~0").replace("/", "~1"))
    text = f"json_extract_string(answer, {pointer})"
    if kind.endswith("[]"):
        return Column("answer", name, kind, text, f"TRY_CAST(json_extract(answer, {pointer}) AS {kind})")
    return Column("answer", name, kind, text, text if kind == _TEXT else f"TRY_CAST({text} AS {kind})")


def _sql_type(shape: Any) -> str:
    """The DuckDB type for a property, null or not; JSON text (VARCHAR) for what is not simple."""
    if not isinstance(shape, dict):
        return _TEXT
    if isinstance(choices := shape.get("anyOf"), list):
        others = [choice for choice in choices if choice != {"type": "null"}]
        return _sql_type(others[0]) if len(others) == 1 else _TEXT
    kinds = shape.get("type")
    named = [kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if kind != "null"]
    if named == ["array"]:
        items = shape.get("items")
        is_simple = isinstance(items, dict) and items.get("type") in _JSON_TYPES
        return f"{_JSON_TYPES[items['type']]}[]" if is_simple and items is not None else _TEXT
    return _JSON_TYPES.get(named[0], _TEXT) if len(named) == 1 and isinstance(named[0], str) else _TEXT
