"""Rows → input files: the requests of one job, rendered and packed under the provider's limits.

A shard is written and fsynced before anything is recorded of it. Requests of one shard share their model, and retries
keep to shards of their own.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from io import BufferedWriter
from pathlib import Path
from uuid import UUID

import duckdb
import orjson

from batchops.engine.gather import Gathered, WantedJob
from batchops.plan.diff import ledger_digest
from batchops.plan.estimate import ShardLimits, load_of
from batchops.profiles import Profile
from batchops.request.render import render_rows


@dataclass
class Shard:
    """An input file on disk and its manifest, line by line."""

    token: UUID
    path: Path
    model: str
    is_retry: bool
    digests: list[UUID] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    body_digests: list[UUID | None] = field(default_factory=list)
    shard_bytes: int = 0
    inputs: int = 0
    est_tokens: int = 0
    sha256: bytes = b""


@dataclass(frozen=True)
class SendGroup:
    """Requests that are sent alike: same round, attempt and amendment. `keys` names a relation (key), one a request."""

    keys: str
    round: int
    attempt: int
    amendment: str | None
    is_retry: bool


def custom_id(digest: UUID, round_: int, attempt: int) -> str:
    """`<digest>-<round>-<attempt>`: tells the request of any line, even where the state was lost."""
    return f"{digest.hex}-{round_}-{attempt}"


def parse_custom_id(text: str) -> tuple[UUID, int, int] | None:
    """The digest, round and attempt of a `custom_id` of ours; None for anybody else's."""
    digest, _, rest = text.partition("-")
    round_, _, attempt = rest.partition("-")
    if len(digest) != 32 or not round_.isdigit() or not attempt.isdigit():
        return None
    try:
        return UUID(digest), int(round_), int(attempt)
    except ValueError:
        return None


def encode_line(identifier: str, url: str, body: bytes) -> bytes:
    """One line of an input file, its newline included."""
    return b'{"custom_id":"%b","method":"POST","url":"%b","body":%b}\n' % (identifier.encode(), url.encode(), body)


def send_groups(con: duckdb.DuckDBPyConnection, wanted: WantedJob, now: datetime) -> list[SendGroup]:
    """What is due to be sent for one job, first tries before retries. Makes one keys relation a group."""
    due = f"action IN ('submit', 'resubmit', 'retry') AND coalesce(due_at <= TIMESTAMPTZ '{now.isoformat()}', true)"
    groups = con.execute(
        f"""SELECT DISTINCT action = 'retry' AS is_retry, round, attempts + free_attempts + 1 AS attempt, amendment
            FROM {wanted.changes} WHERE {due} ORDER BY ALL"""
    ).fetchall()
    found = []
    for index, (is_retry, round_, attempt, amendment) in enumerate(groups):
        keys = f"send_{wanted.number}_{index}"
        con.execute(
            f"""CREATE OR REPLACE TABLE {keys} AS SELECT min(key) AS key FROM {wanted.changes}
                WHERE {due} AND (action = 'retry') = ? AND round = ? AND attempts + free_attempts + 1 = ?
                  AND amendment IS NOT DISTINCT FROM ? GROUP BY digest""",
            [is_retry, round_, attempt, amendment],
        )
        found.append(SendGroup(keys, round_, attempt, amendment, is_retry))
    return found


def write_shards(
    gathered: Gathered, wanted: WantedJob, limits: ShardLimits, now: datetime, profile: Profile
) -> Iterator[Shard]:
    """Render what is due and yield each input file as soon as it is full and fsynced. Never holds more than one."""
    writer = _Writer(gathered, wanted, limits, profile)
    for group in send_groups(gathered.con, wanted, now):
        yield from writer.write(group)
    yield from writer.finish()


class _Writer:
    """Packs lines into the current shard, and starts another where a limit or the kind of request says so."""

    def __init__(self, gathered: Gathered, wanted: WantedJob, limits: ShardLimits, profile: Profile) -> None:
        self._gathered = gathered
        self._wanted = wanted
        self._limits = limits
        self._endpoint = wanted.job.spec.endpoint
        self._profile = profile
        self._folder = gathered.folder / "shards"
        self._folder.mkdir(exist_ok=True)
        load = load_of(gathered.con, wanted.changes)
        self._tokens_per_byte = load.input_tokens / load.body_bytes if load.body_bytes else 0.25
        self._shard: Shard | None = None
        self._file: BufferedWriter | None = None
        self._hash = hashlib.sha256()

    def write(self, group: SendGroup) -> Iterator[Shard]:
        request = self._wanted.request
        amendment = orjson.loads(group.amendment) if group.amendment else None
        if amendment:
            request = request.amended(amendment)
        model = str((amendment or {}).get("model") or self._wanted.job.spec.model)
        url = self._profile.path(self._endpoint, model)
        ledger = self._ledger_digests(group.keys) if amendment else {}
        for rows in render_rows(self._gathered.con, self._wanted.table, request, keys=group.keys):
            for row in rows:
                digest = ledger.get(row.key) or self._ledger_digest(row.digest, row.key)
                identifier = custom_id(digest, group.round, group.attempt)
                line = encode_line(identifier, url, row.body)
                inputs = _embedding_inputs(row.body) if self._endpoint == "/v1/embeddings" else 1
                if self._shard is not None and not self._fits(line, inputs, model, group.is_retry):
                    yield self._close()
                self._add(line, inputs, model, group)
                shard = self._shard
                assert shard is not None
                shard.digests.append(digest)
                shard.rounds.append(group.round)
                shard.attempts.append(group.attempt)
                shard.body_digests.append(row.digest if amendment else None)

    def finish(self) -> Iterator[Shard]:
        if self._shard is not None:
            yield self._close()

    def _ledger_digest(self, digest: UUID, key: str) -> UUID:
        diff = self._wanted.diff
        return ledger_digest(digest, key=key, is_simulated=diff.is_simulated, salt=diff.salt)

    def _ledger_digests(self, keys: str) -> dict[str, UUID]:
        """Amended bodies have digests of their own; the row keeps the one it was planned under."""
        return dict(
            self._gathered.con.execute(
                f"SELECT key, digest FROM {self._wanted.changes} WHERE key IN (FROM {keys})"
            ).fetchall()
        )

    def _fits(self, line: bytes, inputs: int, model: str, is_retry: bool) -> bool:
        shard, limits = self._shard, self._limits
        assert shard is not None
        tokens = (shard.shard_bytes + len(line)) * self._tokens_per_byte
        return (
            len(shard.digests) < limits.max_requests
            and shard.shard_bytes + len(line) <= limits.max_bytes
            and shard.inputs + inputs <= limits.max_inputs
            and (limits.max_tokens is None or tokens <= limits.max_tokens)
            and shard.model == model
            and shard.is_retry == is_retry
        )

    def _add(self, line: bytes, inputs: int, model: str, group: SendGroup) -> None:
        if self._shard is None or self._file is None:
            token = uuid.uuid4()
            self._shard = Shard(token, self._folder / f"{token}.jsonl", model, group.is_retry)
            self._file = self._shard.path.open("wb")
            self._hash = hashlib.sha256()
        self._file.write(line)
        self._hash.update(line)
        self._shard.shard_bytes += len(line)
        self._shard.inputs += inputs

    def _close(self) -> Shard:
        shard, file = self._shard, self._file
        assert shard is not None
        assert file is not None
        file.flush()
        os.fsync(file.fileno())
        file.close()
        shard.sha256 = self._hash.digest()
        shard.est_tokens = round(shard.shard_bytes * self._tokens_per_byte)
        self._shard = self._file = None
        return shard


def _embedding_inputs(body: bytes) -> int:
    given = orjson.loads(body).get("input")
    return len(given) if isinstance(given, list) and given and isinstance(given[0], (str, list)) else 1
