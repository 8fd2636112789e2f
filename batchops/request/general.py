"""The general path: rows as they were fetched → digests or lines by Jinja2, a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from batchops.request.digest import hasher
from batchops.request.template import CompiledRequest
from batchops.request.text import RowFailed

Row: TypeAlias = Sequence[Any]

FailedRow: TypeAlias = tuple[str, RowFailed]
"""The text of a row's key, and what is wrong."""


class NotAsPlanned(Exception):
    """A row was rendered otherwise than when its digest was taken: nothing of it may be sent."""


@dataclass(slots=True)
class Digests:
    """What a batch of rows came to; the rows that failed are left out of `made`.

    `made` is JSON, the form in which many rows enter the engine at the least cost: an array of [key, position, digest
    as 32 hexadecimal digits, bytes of the body, input tokens].
    """

    made: str
    failed: list[FailedRow]


class General:
    """One request, and the columns that its rows come with."""

    def __init__(self, request: CompiledRequest, columns: Sequence[str]) -> None:
        self._request = request
        self._columns = tuple(columns)
        self._digest_of = hasher(request.url, request.model)

    def digests(self, rows: Sequence[Row]) -> Digests:
        """Digest rows (key, position in the source, *columns)."""
        request, columns, digest_of = self._request, self._columns, self._digest_of
        made: list[tuple[str, int, str, int, int]] = []
        failed: list[FailedRow] = []
        for key, position, *values in rows:
            try:
                texts = request.rendered(dict(zip(columns, values, strict=True)))
                body = request.assembled(texts)
            except RowFailed as problem:
                failed.append((key, problem))
                if problem.is_costly:
                    break  # more such rows would only burn time
                continue
            made.append((key, position, digest_of(body), len(body), request.input_tokens(texts)))
        return Digests(orjson.dumps(made).decode(), failed)

    def lines(self, rows: Sequence[Row], tail: bytes) -> bytes:
        """The lines of rows (line or None, head, digest as 32 hexadecimal digits, *columns), joined.

        A row with a line is done already; any other gets its body between its head and `tail`. Raises NotAsPlanned for
        a body of another digest.
        """
        return b"".join([line if line is not None else self._line(rest, tail) for line, *rest in rows])

    def _line(self, row: Row, tail: bytes) -> bytes:
        head, planned, *values = row
        try:
            body = self._request.canonical(dict(zip(self._columns, values, strict=True)))
        except RowFailed as problem:
            raise NotAsPlanned(problem.reason) from problem
        if self._digest_of(body) != planned:
            raise NotAsPlanned("its digest is another")
        return b"%b%b%b" % (head.encode(), body, tail)
