"""Answers as JSON records: the shape that `results --format jsonl` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from batchops.plan.keys import typed_key
from batchops.results.answers import Answers
from batchops.results.recorded import RecordedJob

_COLUMNS = (
    "key, status, answer, error_class, error_code, error_message, attempts, model, finish_reason,"
    " input_tokens, output_tokens, cached_tokens, reasoning_tokens, cost_usd, batch_id, digest"
)


def json_lines(answers: Answers) -> Iterator[bytes]:
    """One JSON object a row, without its newline; the keys and their order are a public contract."""
    for row in answers.stream(_COLUMNS):
        yield orjson.dumps(_record(answers.job, *row))


def _record(
    job: RecordedJob,
    key: str,
    status: str,
    answer: str | None,
    error_class: str | None,
    error_code: str | None,
    error_message: str | None,
    *rest: Any,
) -> dict[str, Any]:
    attempts, model, finish_reason, input_tokens, output_tokens, cached_tokens, reasoning_tokens = rest[:7]
    cost_usd, batch_id, digest = rest[7:]
    is_error = error_class is not None
    return {
        "job": job.address,
        "key": key_object(job, key),
        "status": status,
        "answer": raw_json(answer),
        "error": {"class": error_class, "code": error_code, "message": error_message} if is_error else None,
        "attempts": attempts,
        "model": model,
        "finish_reason": finish_reason,
        "usage": {
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "cached_tokens": cached_tokens,
            "reasoning_tokens": reasoning_tokens,
        },
        "cost_usd": cost_usd,
        "batch_id": batch_id,
        "digest": digest,
    }


def key_object(job: RecordedJob, key: str) -> dict[str, Any]:
    """`{"review_id": 17}`: whole numbers as JSON numbers of any size, all else in its text form."""
    typed = typed_key(key, job.key_columns, job.key_types)
    return {column: orjson.Fragment(str(value)) if isinstance(value, int) else value for column, value in typed.items()}


def raw_json(text: str | None) -> Any:
    """JSON text to be written as it stands: numbers keep the digits the model wrote. Newlines can only be space."""
    return None if text is None else orjson.Fragment(text.replace("\n", " ").replace("\r", " "))
