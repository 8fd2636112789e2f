"""The general path: rows as they were fetched → digests or lines by Jinja2, a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

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
    """What a batch of rows came to, column by column; the rows that failed are left out."""

    keys: list[str] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    body_bytes: list[int] = field(default_factory=list)
    input_tokens: list[int] = field(default_factory=list)
    failed: list[FailedRow] = field(default_factory=list)


class General:
    """One request, and the columns that its rows come with."""

    def __init__(self, request: CompiledRequest, columns: Sequence[str]) -> None:
        self._request = request
        self._columns = tuple(columns)
        self._digest_of = hasher(request.url, request.model)

    def digests(self, rows: Sequence[Row]) -> Digests:
        """Digest rows (key, position in the source, *columns)."""
        made, request, columns, digest_of = Digests(), self._request, self._columns, self._digest_of
        for key, position, *values in rows:
            try:
                texts = request.rendered(dict(zip(columns, values, strict=True)))
                body = request.assembled(texts)
            except RowFailed as problem:
                made.failed.append((key, problem))
                if problem.is_costly:
                    break  # more such rows would only burn time
                continue
            made.keys.append(key)
            made.rows.append(position)
            made.digests.append(digest_of(body))
            made.body_bytes.append(len(body))
            made.input_tokens.append(request.input_tokens(texts))
        return made

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
