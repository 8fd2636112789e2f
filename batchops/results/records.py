"""Answers as JSON lines, the shape that `results --format jsonl` prints. DuckDB writes the text: a million rows stream.

The keys and their order are a public contract.
"""

from __future__ import annotations

from batchops.results.answers import key_parts
from batchops.results.recorded import RecordedJob
from batchops.store.connection import sql_text

_USAGE = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")


def json_line(job: RecordedJob) -> str:
    """SQL over `answers.relation` for one JSON object a row, on one line and without its end."""
    error = _object({"class": _text("error_class"), "code": _text("error_code"), "message": _text("error_message")})
    return _object(
        {
            "job": _text(sql_text(job.address)),
            "key": _key(job),
            "status": _text("status"),
            "answer": _answer(),
            "error": f"CASE WHEN error_class IS NULL THEN 'null' ELSE {error} END",
            "attempts": _number("attempts"),
            "model": _text("model"),
            "finish_reason": _text("finish_reason"),
            "usage": _object({name: _number(name) for name in _USAGE}),
            "cost_usd": _number("cost_usd"),
            "batch_id": _text("batch_id"),
            "digest": _text("digest"),
        }
    )


def _key(job: RecordedJob) -> str:
    """`{"review_id":17}`: whole numbers as JSON numbers of any size, all else in its text form."""
    parts = zip(job.key_columns, key_parts(job), strict=True)
    return _object({name: _whole(part) if is_integer else _text(part) for name, (part, is_integer) in parts})


def _whole(part: str) -> str:
    """A number where it is one: keys from before the column became a number are text."""
    return f"CASE WHEN regexp_full_match({part}, '-?[0-9]+') THEN {_number(part)} ELSE {_text(part)} END"


def _object(members: dict[str, str]) -> str:
    """SQL for a JSON object whose values are SQL for JSON text."""
    pairs = (
        f"{sql_text(',' * (place > 0))}, CAST(to_json({sql_text(name)}) AS VARCHAR), ':', {value}"
        for place, (name, value) in enumerate(members.items())
    )
    return f"concat('{{', {', '.join(pairs)}, '}}')"


def _text(expression: str) -> str:
    return f"coalesce(CAST(to_json({expression}) AS VARCHAR), 'null')"


def _number(expression: str) -> str:
    return f"coalesce(CAST({expression} AS VARCHAR), 'null')"


def _answer() -> str:
    """The answer as it was recorded, digits and all; a line end can only stand between its tokens."""
    return "coalesce(replace(replace(answer, chr(10), ' '), chr(13), ' '), 'null')"
