"""CSV as RFC 4180 has it, with one line end: a newline. An empty field is NULL, `""` is the empty text."""

from __future__ import annotations

from collections.abc import Iterable

from batchops.results.answers import Answers
from batchops.results.columns import Column, flat_columns
from batchops.results.sinks import Target, write_lines


def write(answers: Answers, target: Target) -> int:
    """Write a header and one line a row; every value in its text form."""
    columns = flat_columns(answers.job)
    target.stream.write(csv_line(column.name for column in columns))
    fields = ", ',', ".join(map(_field_sql, columns))
    return write_lines(answers, f"concat({fields})", target)


def csv_line(fields: Iterable[str | None]) -> bytes:
    """One line with its newline, UTF-8."""
    return (",".join(map(_field, fields)) + "\n").encode()


def _field(text: str | None) -> str:
    if text is None:
        return ""
    if text == "" or text[0] in " \t" or text[-1] in " \t" or any(mark in text for mark in '",\n\r'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _field_sql(column: Column) -> str:
    """`_field` in SQL; numbers never need quotes."""
    if column.is_number:
        return f"coalesce({column.text}, '')"
    text = column.text
    needs_quotes = rf"""({text} = '' OR regexp_matches({text}, '[",\n\r]|^[ \t]|[ \t]$', 'c'))"""
    return f"""coalesce(CASE WHEN {needs_quotes} THEN '"' || replace({text}, '"', '""') || '"' ELSE {text} END, '')"""
