"""What is sent, line by line, before a line is written: which requests, in which order, in which input file.

Sizes are known from the plan, so the lines are cut into files in the engine. They stand in the order of the source, so
that a file is rendered from one stretch of it, however many rows there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import orjson

from batchops.engine.sources import WantedJob
from batchops.plan.estimate import ShardLimits
from batchops.profiles import Profile
from batchops.request.lines import Piece
from batchops.request.render import digest_rows
from batchops.request.template import CompiledRequest
from batchops.request.values import literal

PIECE_BYTES = 16_000_000
"""Lines that are rendered together. The engine holds a piece in memory, twice over while it is put in order."""

TAIL = "}\n"
_IS_RETRY = "action = 'retry' OR round > 0"


def due_by(now: datetime) -> str:
    """SQL for the rows of a changes relation that are sent now."""
    return f"action IN ('submit', 'resubmit', 'retry') AND coalesce(due_at <= TIMESTAMPTZ '{now.isoformat()}', true)"


@dataclass(frozen=True)
class SendGroup:
    """Requests that are sent alike: same round, attempt and amendment."""

    number: int
    is_retry: bool
    round: int
    attempt: int
    amendment: str | None
    request: CompiledRequest
    model: str
    url: str

    @property
    def head(self) -> str:
        """SQL for what stands before a body: `digest` is a column there."""
        after = f'-{self.round}-{self.attempt}","method":"POST","url":"{self.url}","body":'
        return f"""concat('{{"custom_id":"', replace(CAST(digest AS VARCHAR), '-', ''), {literal(after)})"""


@dataclass(frozen=True)
class Cut:
    """Lines `first` to `last` of a manifest: one input file."""

    first: int
    last: int
    model: str
    is_retry: bool
    bytes: int
    inputs: int
    tokens: int

    @property
    def requests(self) -> int:
        return self.last - self.first + 1


class Manifest:
    """What is due to be sent for one job: groups, and their requests in the relation `name`.

    Its columns are group_no, row (position in the source), digest (the ledger's), round, attempt, body_digest,
    body_hash, bytes (of the line), inputs, tokens; a line's number is its `rowid`. First tries come before retries.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, wanted: WantedJob, now: datetime, profile: Profile) -> None:
        self.name = f"lines_{wanted.number}"
        self._con, self._wanted, self._profile = con, wanted, profile
        self._due = due_by(now)
        self.groups = self._find_groups()
        if self.groups:
            self._fill()

    def _find_groups(self) -> list[SendGroup]:
        found = self._con.execute(
            f"""SELECT DISTINCT {_IS_RETRY} AS is_retry, round, attempts + free_attempts + 1 AS attempt, amendment
                FROM {self._wanted.changes} WHERE {self._due} ORDER BY ALL"""
        ).fetchall()
        return [self._group(number, *values) for number, values in enumerate(found)]

    def _group(self, number: int, is_retry: bool, round_: int, attempt: int, amendment: str | None) -> SendGroup:
        request = self._wanted.request
        given: dict[str, Any] = orjson.loads(amendment) if amendment else {}
        if given:
            request = request.amended(given)
        model = str(given.get("model") or self._wanted.job.spec.model)
        url = self._profile.path(self._wanted.job.spec.endpoint, model)
        return SendGroup(number, is_retry, round_, attempt, amendment, request, model, url)

    def _fill(self) -> None:
        """One line for each request, whichever rows ask it: amended ones are digested here, the others were."""
        parts = [self._sized(group, self._digested(group)) for group in self.groups]
        columns = "group_no, row, digest, round, attempt, body_digest, body_hash, bytes, inputs, tokens"
        self._con.execute(
            f"CREATE OR REPLACE TABLE {self.name} AS SELECT {columns}"
            f" FROM ({' UNION ALL '.join(parts)}) ORDER BY group_no, row"
        )
        lost = self._con.execute(f"SELECT count(*) FROM {self.name} WHERE row IS NULL").fetchone()
        assert lost == (0,), "every row that is due has been digested"

    def _digested(self, group: SendGroup) -> str:
        """What stands behind FROM for the requests of a group, each column of `_sized` in it."""
        chosen = f"{self._wanted.changes} c"
        if not group.amendment:
            return chosen
        keys, into = f"amended_{self._wanted.number}_{group.number}", f"{self.name}_{group.number}"
        self._con.execute(
            f"CREATE OR REPLACE TABLE {keys} AS"
            f" SELECT min(key) AS key FROM {self._wanted.changes} c WHERE {self._is_of(group)} GROUP BY digest"
        )
        digest_rows(self._con, self._wanted.table.loaded, group.request, keys=keys, into=into)
        own = "c.key, c.digest, c.action, c.due_at, c.round, c.attempts, c.free_attempts, c.amendment"
        made = "d.row, d.digest AS body_digest, d.body_hash, d.body_bytes, d.inputs, d.input_tokens"
        return f"(SELECT {own}, {made} FROM {chosen} JOIN {into} d USING (key)) c"

    def _is_of(self, group: SendGroup) -> str:
        amendment = "NULL" if group.amendment is None else literal(group.amendment)
        return (
            f"{self._due} AND ({_IS_RETRY}) = {group.is_retry} AND c.round = {group.round}"
            f" AND c.attempts + c.free_attempts + 1 = {group.attempt} AND c.amendment IS NOT DISTINCT FROM {amendment}"
        )

    def _sized(self, group: SendGroup, digested: str) -> str:
        row = self._con.execute(f"SELECT strlen({group.head}) FROM (SELECT uuid() AS digest)").fetchone()
        assert row is not None
        around = row[0] + len(TAIL)
        return f"""
            SELECT {group.number} AS group_no, min(c.row) AS row, c.digest, {group.round}::USMALLINT AS round,
                   {group.attempt}::UTINYINT AS attempt, any_value(c.body_digest) AS body_digest,
                   any_value(c.body_hash) AS body_hash, any_value(c.body_bytes) + {around} AS bytes,
                   any_value(c.inputs) AS inputs, any_value(c.input_tokens) AS tokens
            FROM {digested} WHERE {self._is_of(group)} GROUP BY c.digest"""

    def _bounds(self, group: SendGroup) -> tuple[int, int]:
        row = self._con.execute(
            f"SELECT min(rowid), max(rowid) FROM {self.name} WHERE group_no = ?", [group.number]
        ).fetchone()
        assert row is not None
        return int(row[0]), int(row[1])

    # --- cutting

    def cuts(self, limits: ShardLimits) -> Iterator[Cut]:
        """Fill one file after the other, in order; a line beyond every limit has a file to itself."""
        for begin, end, model, is_retry in self._stretches():
            first = begin
            while first <= end:
                cut = self._cut(first, min(end, first + limits.max_requests - 1), model, is_retry, limits)
                yield cut
                first = cut.last + 1

    def _stretches(self) -> list[tuple[int, int, str, bool]]:
        """Lines that may share a file: groups one after the other, of one model, retries apart."""
        found: list[tuple[int, int, str, bool]] = []
        for group in self.groups:
            first, last = self._bounds(group)
            if found and found[-1][2:] == (group.model, group.is_retry):
                first = found.pop()[0]
            found.append((first, last, group.model, group.is_retry))
        return found

    def _cut(self, first: int, last: int, model: str, is_retry: bool, limits: ShardLimits) -> Cut:
        chosen = f"FROM {self.name} WHERE rowid BETWEEN {first} AND {last}"
        summed = "sum(bytes)::BIGINT, sum(inputs)::BIGINT, sum(tokens)::BIGINT"
        sums = self._con.execute(f"SELECT {summed} {chosen}").fetchone()
        assert sums is not None
        if first < last and not _fits(limits, *sums):
            row = self._con.execute(
                f"""SELECT count(*) FROM (SELECT sum(bytes) OVER upto AS bytes, sum(inputs) OVER upto AS inputs,
                                                 sum(tokens) OVER upto AS tokens
                                          {chosen} WINDOW upto AS (ORDER BY rowid ROWS UNBOUNDED PRECEDING))
                    WHERE bytes <= ? AND inputs <= ? AND coalesce(tokens <= ?, true)""",
                [limits.max_bytes, limits.max_inputs, limits.max_tokens],
            ).fetchone()
            assert row is not None
            return self._cut(first, first + max(row[0], 1) - 1, model, is_retry, limits)
        return Cut(first, last, model, is_retry, *sums)

    def of(self, cut: Cut) -> str:
        """A relation (line, digest, round, attempt, body_digest): the manifest of one file."""
        amended = [str(group.number) for group in self.groups if group.amendment]
        is_amended = f"group_no IN ({', '.join(amended)})" if amended else "false"
        return (
            f"(SELECT (rowid - {cut.first})::UINTEGER AS line, digest, round, attempt,"
            f" CASE WHEN {is_amended} THEN body_digest END AS body_digest"
            f" FROM {self.name} WHERE rowid BETWEEN {cut.first} AND {cut.last} ORDER BY line)"
        )

    def pieces(self, cut: Cut) -> Iterator[tuple[SendGroup, Piece]]:
        """The lines of one file in portions of one group each, small enough to be rendered at once."""
        count = -(-cut.bytes // PIECE_BYTES)
        found = self._pieces(cut, f"(rowid - {cut.first}) * {count} // {cut.requests}")
        if any(size > 2 * PIECE_BYTES for *_, size in found):  # long lines stand together
            running = "sum(bytes) OVER (ORDER BY rowid ROWS UNBOUNDED PRECEDING)"
            found = self._pieces(cut, f"{running} // {PIECE_BYTES}")
        for number, first, last, first_row, last_row, size in found:
            group = self.groups[number]
            lines = (
                f"(SELECT row, rowid AS line, {group.head} AS head, body_digest, body_hash"
                f" FROM {self.name} WHERE rowid BETWEEN {first} AND {last})"
            )
            yield group, Piece(lines, last - first + 1, first_row, last_row, size)

    def _pieces(self, cut: Cut, piece: str) -> list[tuple[int, int, int, int, int, int]]:
        """Group, first and last line, first and last row, and bytes of each; `piece` is SQL that numbers them."""
        return self._con.execute(
            f"""SELECT group_no, min(line), max(line), min(row), max(row), sum(bytes)::BIGINT
                FROM (SELECT rowid AS line, group_no, row, bytes, {piece} AS piece
                      FROM {self.name} WHERE rowid BETWEEN {cut.first} AND {cut.last})
                GROUP BY group_no, piece ORDER BY 2"""
        ).fetchall()


def _fits(limits: ShardLimits, size: int, inputs: int, tokens: int) -> bool:
    is_small = size <= limits.max_bytes and inputs <= limits.max_inputs
    return is_small and (limits.max_tokens is None or tokens <= limits.max_tokens)
