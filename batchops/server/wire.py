"""Shapes on the wire: what a file, a batch, a page and an error look like. Pure.

Keys without a value are written as null, as the service does; clients read both the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batchops.server.store import Batch, File

TERMINAL = frozenset({"completed", "failed", "expired", "cancelled"})


class ApiError(Exception):
    """A request that is answered with an error object instead of a result."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        self.body = error_object(message, kind=kind, param=param, code=code)


def error_object(message: str, *, kind: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def file_object(file: File) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at,
        "expires_at": file.expires_at,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def batch_object(batch: Batch) -> dict[str, Any]:
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": {"object": "list", "data": batch.errors} if batch.errors else None,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.status,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": batch.created_at,
        "in_progress_at": batch.in_progress_at,
        "expires_at": batch.expires_at,
        "finalizing_at": batch.finalizing_at,
        "completed_at": batch.completed_at,
        "failed_at": batch.failed_at,
        "expired_at": batch.expired_at,
        "cancelling_at": batch.cancelling_at,
        "cancelled_at": batch.cancelled_at,
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "usage": usage_object(batch.input_tokens, batch.cached_tokens, batch.output_tokens, batch.reasoning_tokens),
        "metadata": batch.metadata,
    }


def usage_object(input_tokens: int, cached_tokens: int, output_tokens: int, reasoning_tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": cached_tokens},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning_tokens},
        "total_tokens": input_tokens + output_tokens,
    }


def page(objects: Sequence[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """One page of a listing. An empty page has empty ids: the OpenAPI text requires strings there."""
    return {
        "object": "list",
        "data": list(objects),
        "first_id": objects[0]["id"] if objects else "",
        "last_id": objects[-1]["id"] if objects else "",
        "has_more": has_more,
    }
