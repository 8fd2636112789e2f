"""The answer of a line that succeeded, as SQL over `said`, what the model said. Pure.

NULL leaves a line to the judge. Whatever is not NULL is, to the byte, what the judge makes of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from batchops.engine.schemasql import CANONICAL_STRING, fitting
from batchops.request.sqlvalues import canonical_escapes, json_text
from batchops.store.connection import sql_text


@dataclass(frozen=True, slots=True)
class AnswerSql:
    """`text` is the canonical answer. It may use `part`, the list of the JSON values that `parts` is."""

    text: str
    parts: str = "NULL::JSON[]"


def answer_sql(tool: str | None, schema: object) -> AnswerSql:
    """The answer of a shape: plain text without a schema, else JSON that fits; of a tool the name and the arguments."""
    if schema is None and tool is None:
        return AnswerSql(json_text("said"))
    fit = fitting(schema) if isinstance(schema, Mapping) else None
    if fit is None:
        return AnswerSql("NULL")
    written = canonical_escapes("CAST(json(said) AS VARCHAR)")
    known = f"WHEN {_is_members(fit.members)} THEN CAST(part[1] AS VARCHAR)" if fit.members else ""
    answer = (
        f"CASE {known} WHEN regexp_full_match(said, {sql_text(fit.canonical)}) THEN said"
        f" WHEN regexp_full_match(said, {sql_text(fit.spaced)}) THEN {written} END"
    )
    if tool is not None:
        before = '{"name":' + orjson.dumps(tool).decode() + ',"arguments":'
        answer = f"({sql_text(before)} || {answer} || '}}')"
    return AnswerSql(answer, _parts(fit.members)) if fit.members else AnswerSql(answer)


def _parts(members: Mapping[str, str]) -> str:
    """SQL of the object as the engine writes it, and of its values in the order of the schema."""
    paths = ["$", *(f'$."{name}"' for name in members)]
    return f"TRY(json_extract(said, [{', '.join(map(sql_text, paths))}]))"


def _is_members(members: Mapping[str, str]) -> str:
    """SQL: whether `said` is an object of these members and no others, each as its expression says.

    The engine reads more leniently than the judge (a comma before the end, a key twice), so `said` must be what it
    writes, with or without blanks between members; and what it writes must have no room for another member. A member
    is looked at alone, because an expression takes five times as long for each byte as everything else here.
    """
    written = "CAST(part[1] AS VARCHAR)"
    spaced = f"""replace(replace({written}, ',"', ', "'), '":', '": ')"""
    values = {f"CAST(part[{place}] AS VARCHAR)": said for place, said in enumerate(members.values(), start=2)}
    around = sum(len(f'"{name}":,') for name in members) + 1
    return " AND ".join(
        [
            f"CASE WHEN strlen(said) = strlen({written}) THEN said = {written} ELSE said = {spaced} END",
            f"NOT contains({written}, '\\u')",  # control characters have two forms
            f"strlen({written}) = {around} + {' + '.join(f'strlen({value})' for value in values)}",
            *(_is_value(value, said) for value, said in values.items()),
        ]
    )


def _is_value(value: str, said: str) -> str:
    """SQL: whether a JSON value, as the engine writes it and without odd escapes, is as an expression says."""
    if said == CANONICAL_STRING:
        return f"starts_with({value}, '\"')"
    return f"regexp_full_match({value}, {sql_text(said)})"
