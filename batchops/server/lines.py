"""One line of an input file, what it was answered, and the result line that says so. Pure but for reading the input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

READ_BYTES: Final = 1 << 20
"""Of one read: lines are some kilobytes long, and each read lets go of the interpreter for other threads to take."""


class Line(NamedTuple):
    """A request that passed validation; `number` is 1-based."""

    number: int
    custom_id: str
    url: str
    body: dict[str, Any]


class Reply(NamedTuple):
    """What came back for a line: an HTTP answer, or `error` (code, message) when there was none."""

    status: int
    body: Any = None
    error: tuple[str, str] | None = None
    request_id: str | None = None


def read_lines(path: Path, endpoint: str | None = None) -> Iterator[Line]:
    """The lines of a validated input file, in its order; their url is `endpoint` however they write it."""
    with path.open("rb", READ_BYTES) as source:
        for number, raw in enumerate(source, 1):
            if raw.isspace():
                continue
            parsed = orjson.loads(raw)
            yield Line(number, parsed["custom_id"], endpoint or parsed["url"], parsed["body"])


def read_custom_ids(path: Path) -> Iterator[str]:
    return (line.custom_id for line in read_lines(path))


def result_line(line_id: str, custom_id: str, reply: Reply) -> bytes:
    """The line of an output or error file, its newline included."""
    response = None
    if reply.error is None:
        response = {"status_code": reply.status, "request_id": reply.request_id or line_id, "body": reply.body}
    error = None if reply.error is None else {"code": reply.error[0], "message": reply.error[1]}
    shown = {"id": f"batch_req_{line_id}", "custom_id": custom_id, "response": response, "error": error}
    return orjson.dumps(shown, option=orjson.OPT_APPEND_NEWLINE)


def unanswered_line(line_id: str, custom_id: str, code: str) -> bytes:
    """The error line of a request that was never executed."""
    return result_line(line_id, custom_id, Reply(0, error=(code, _NEVER_EXECUTED[code])))


_NEVER_EXECUTED = {
    "batch_expired": "This request could not be executed before the completion window expired.",
    "batch_cancelled": "This request could not be executed because the batch was cancelled.",
}
