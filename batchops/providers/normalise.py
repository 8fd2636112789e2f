"""Raw JSON of OpenAI and its relatives → RemoteFile and RemoteBatch. Pure: knows no HTTP and no SDK.

The SDK does not check what it receives (openai 3.54: upper-case statuses, ISO dates, empty ids and null counts all pass
through its types), so this is the one place that does. Ids may have any form and length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from batchops.providers.provider import BatchError, BatchStatus, RemoteBatch, RemoteFile

_SPELLINGS: Final[Mapping[str, BatchStatus]] = {
    **{status.value: status for status in BatchStatus},
    "canceled": BatchStatus.CANCELLED,
    "canceling": BatchStatus.CANCELLING,
    "cancellation_requested": BatchStatus.CANCELLING,
    "pre_schedule": BatchStatus.VALIDATING,
    "queued": BatchStatus.VALIDATING,
    "progress": BatchStatus.IN_PROGRESS,
    "running": BatchStatus.IN_PROGRESS,
    "success": BatchStatus.COMPLETED,
    "timeout_exceeded": BatchStatus.EXPIRED,
}
"""Statuses as OpenAI, Together, Novita, Mistral, inference.net and kluster.ai write them (their SDKs, 2026-11)."""

_MILLISECONDS_FROM: Final = 100_000_000_000  # as seconds this is the year 5138


class Malformed(ValueError):
    """Not an object with an id: whatever was asked for may or may not have happened."""


def file_from(raw: object) -> RemoteFile:
    """A file object. Raises Malformed without an id."""
    found = _object(raw, "file")
    return RemoteFile(
        id=_id(found),
        filename=_text(found.get("filename")) or "",
        bytes=_count(found.get("bytes")),
        created_at=epoch(found.get("created_at")),
    )


def batch_from(raw: object) -> RemoteBatch:
    """A batch object, also inside `{"job": …}` as Together wraps it. Raises Malformed without an id."""
    found = _object(raw, "job", "batch")
    counts = found.get("request_counts")
    counts = counts if isinstance(counts, Mapping) else {}
    metadata = found.get("metadata")
    return RemoteBatch(
        id=_id(found),
        status=status_from(found.get("status")),
        endpoint=_text(found.get("endpoint")),
        input_file_id=_text(found.get("input_file_id")),
        output_file_id=_text(found.get("output_file_id")),
        error_file_id=_text(found.get("error_file_id")),
        created_at=epoch(found.get("created_at")),
        total=_count(counts.get("total")),
        completed=_count(counts.get("completed")),
        failed=_count(counts.get("failed")),
        errors=errors_from(found.get("errors")),
        metadata={str(k): str(v) for k, v in metadata.items()} if isinstance(metadata, Mapping) else {},
        raw=found,
    )


def status_from(raw: object) -> BatchStatus:
    """The status in any case and spelling; what nobody knows is UNKNOWN, which is never terminal."""
    word = raw.strip().lower().replace("-", "_") if isinstance(raw, str) else ""
    return _SPELLINGS.get(word, BatchStatus.UNKNOWN)


def errors_from(raw: object) -> tuple[BatchError, ...]:
    """Validation errors from `{"data": […]}`, a bare list, one object or one text."""
    if isinstance(raw, Mapping):
        raw = raw.get("data", [raw])
    entries = [raw] if isinstance(raw, str) else raw
    return tuple(_error(entry) for entry in entries if entry) if isinstance(entries, list) else ()


def epoch(raw: object) -> int | None:
    """Epoch seconds from seconds, milliseconds, digits or an ISO date (UTC where it names no zone)."""
    if isinstance(raw, str):
        raw = _parse_time(raw.strip())
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw) or raw <= 0:
        return None
    return int(raw / 1000) if raw >= _MILLISECONDS_FROM else int(raw)


def page_from(raw: object) -> tuple[list[Mapping[str, Any]], bool | None]:
    """The entries of a listing, `{"data": […], "has_more"}` or a bare list, and whether more follow (None: unsaid)."""
    entries = raw.get("data") if isinstance(raw, Mapping) else raw
    has_more = raw.get("has_more") if isinstance(raw, Mapping) else False
    if not isinstance(entries, list):
        raise Malformed("not a listing")
    if not all(isinstance(entry, Mapping) for entry in entries):
        raise Malformed("a listing of something other than objects")
    return entries, has_more if isinstance(has_more, bool) else None


def _object(raw: object, *wrappers: str) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise Malformed("not an object")
    for wrapper in wrappers:
        if "id" not in raw and isinstance(raw.get(wrapper), Mapping):
            return dict(raw[wrapper])
    return dict(raw)


def _id(raw: Mapping[str, Any]) -> str:
    found = raw.get("id")
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        raise Malformed("an object without an id")
    return str(found)


def _text(raw: object) -> str | None:
    return raw if isinstance(raw, str) and raw else None


def _count(raw: object) -> int | None:
    if isinstance(raw, str) and raw.isdecimal():
        raw = int(raw)
    return raw if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0 else None


def _error(raw: object) -> BatchError:
    if not isinstance(raw, Mapping):
        return BatchError(code="unknown", message=str(raw))
    return BatchError(
        code=str(raw.get("code") or raw.get("type") or "unknown"),
        message=str(raw.get("message") or ""),
        param=_text(raw.get("param")),
        line=_count(raw.get("line")),
    )


def _parse_time(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
