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
    known = f"WHEN {_is_members(fit.members)} THEN {_object(fit.members, ':', ',')}" if fit.members else ""
    answer = (
        f"CASE {known} WHEN regexp_full_match(said, {sql_text(fit.canonical)}) THEN said"
        f" WHEN regexp_full_match(said, {sql_text(fit.spaced)}) THEN {written} END"
    )
    if tool is not None:
        before = '{"name":' + orjson.dumps(tool).decode() + ',"arguments":'
        answer = f"({sql_text(before)} || {answer} || '}}')"
    return AnswerSql(answer, _parts(fit.members)) if fit.members else AnswerSql(answer)


def _parts(members: Mapping[str, str]) -> str:
    """SQL of the object's values, as the engine writes them, in the order of the schema."""
    paths = [sql_text(f'$."{name}"') for name in members]
    return f"TRY(json_extract(said, [{', '.join(paths)}]))"


def _is_members(members: Mapping[str, str]) -> str:
    """SQL: whether `said` is an object of these members alone, in the order of the schema, as models mostly write it.

    A value is looked at alone, because an expression takes five times as long for a byte as everything else here.
    """
    is_whole = f"(said = {_object(members, ': ', ', ')} OR said = {_object(members, ':', ',')})"
    # Control characters have two forms.
    return " AND ".join([is_whole, "NOT contains(said, '\\u')", *map(_is_value, _values(members), members.values())])


def _values(members: Mapping[str, str]) -> list[str]:
    return [f"CAST(part[{place}] AS VARCHAR)" for place in range(1, len(members) + 1)]


def _object(members: Mapping[str, str], colon: str, comma: str) -> str:
    """SQL of the text of an object. Into values that are lists or objects themselves blanks are put where most are.

    In a string they may be wrong; then the text is not what was said.
    """
    text, before = [], "{"
    for value, (name, said) in zip(_values(members), members.items(), strict=True):
        has_inner = comma != "," and (r"\[" in said or r"\{" in said)
        inner = f"""replace(replace({value}, ',"', '{comma}"'), '":', '"{colon}')""" if has_inner else value
        text += [sql_text(f'{before}"{name}"{colon}'), inner]
        before = comma
    return f"concat({', '.join(text)}, '}}')"


def _is_value(value: str, said: str) -> str:
    """SQL: whether a JSON value, as the engine writes it and without odd escapes, is as an expression says."""
    if said == CANONICAL_STRING:
        return f"starts_with({value}, '\"')"
    return f"regexp_full_match({value}, {sql_text(said)})"
