"""Input files: the lines that Python's own loop would write, cut within the limits, whichever way they are rendered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import duckdb
import orjson
import pytest
from request_parts import make_job, render_all

from batchops.engine import manifest as manifest_module
from batchops.engine.gather import Gathered
from batchops.engine.shards import Shard, custom_id, shard_writer
from batchops.engine.sources import WantedJob
from batchops.plan.diff import DiffJob
from batchops.plan.estimate import ShardLimits
from batchops.profiles import Profile
from batchops.request.general import NotAsPlanned
from batchops.request.render import digest_rows
from batchops.request.source import SourceTable, load_source, open_work
from batchops.request.template import compile_request
from batchops.spec.job import Job
from batchops.store.connection import limit_resources

NOW = datetime(2026, 11, 1, tzinfo=UTC)
NO_LIMIT = ShardLimits(max_requests=10**6, max_bytes=10**9, max_inputs=10**6)
QUERY = """SELECT range AS id, CASE range % 7 WHEN 3 THEN 'Straße ' ELSE 'plain "text" \n' END || range AS t
           FROM range({rows}) ORDER BY hash(range)"""
BY_SQL = "{{ t }}"
SOME_BY_JINJA = "{{ t | upper }}"
"""Case is left to Jinja2 where a letter is unsure: here for every seventh row."""
ALL_BY_JINJA = "{% for x in [t] %}{{ x }}{% endfor %}"


class Bench:
    """A job with its rows in a work database, all of them due."""

    def __init__(self, folder: Path, job: Job) -> None:
        self.folder, self.job = folder, job
        with open_work(folder / "desired.duckdb", folder) as fenced:
            self.table: SourceTable = load_source(fenced, 0, job)
        self.con = duckdb.connect(str(folder / "desired.duckdb"))
        limit_resources(self.con, memory_limit="1GB", threads=2)
        self.request = compile_request(job)
        digest_rows(self.con, self.table, self.request, keys=None, into="digests_0")
        self.con.execute(
            """CREATE TABLE changes_0 AS SELECT key, digest, 0::UTINYINT AS round, 'submit' AS action,
                   NULL::TIMESTAMPTZ AS due_at, 0::UTINYINT AS attempts, 0::UTINYINT AS free_attempts,
                   NULL::VARCHAR AS amendment, row, digest AS body_digest, body_hash, body_bytes, inputs, input_tokens
               FROM digests_0 ORDER BY hash(key)"""
        )

    def shards(self, limits: ShardLimits = NO_LIMIT) -> Iterator[tuple[Shard, list[bytes]]]:
        """Each shard with the lines of its file, checked against what the shard says of itself."""
        diff = DiffJob(0, {}, False, None, False, False, None)
        wanted = WantedJob(0, self.job, self.request, self.table, diff)
        work = SimpleNamespace(con=self.con, folder=self.folder)
        gathered = Gathered(cast(Any, None), cast(Any, work), (wanted,), keeps_rows=True)
        with shard_writer(gathered, wanted, NOW, Profile()) as writer:
            for cut in writer.cuts(limits):
                shard = writer.write(cut)
                written = shard.path.read_bytes()
                lines = written.splitlines(keepends=True)
                assert (len(written), hashlib.sha256(written).digest()) == (shard.shard_bytes, shard.sha256)
                assert len(lines) == shard.requests
                assert [identifier(line) for line in lines] == self.manifest(shard)
                shard.path.unlink()
                yield shard, lines

    def manifest(self, shard: Shard) -> list[str]:
        found = self.con.execute(f"SELECT line, digest, round, attempt FROM {shard.manifest} ORDER BY line").fetchall()
        assert [line for line, *_ in found] == list(range(len(found)))
        return [custom_id(*of) for _, *of in found]

    def expected(self) -> list[bytes]:
        """What a plain loop makes of the rows, in the order of the source."""
        made = render_all(self.con, self.job)
        keys = [key for (key,) in self.con.execute("SELECT __key FROM source_0 ORDER BY rowid").fetchall()]
        return [written(made[key].digest, made[key].body) for key in keys]


def written(digest: UUID, body: bytes, round_: int = 0, attempt: int = 1) -> bytes:
    head = f'{{"custom_id":"{custom_id(digest, round_, attempt)}","method":"POST","url":"/v1/chat/completions","body":'
    return head.encode() + body + b"}\n"


def identifier(line: bytes) -> str:
    return str(orjson.loads(line)["custom_id"])


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_module, "PIECE_BYTES", 20_000)


@pytest.mark.parametrize("template", [BY_SQL, SOME_BY_JINJA, ALL_BY_JINJA])
@pytest.mark.usefixtures("small_pieces")
def test_lines_are_those_of_a_plain_loop_however_they_are_rendered(tmp_path: Path, template: str) -> None:
    bench = Bench(tmp_path, make_job(template, query=QUERY.format(rows=3000)))
    limits = ShardLimits(max_requests=1700, max_bytes=10**9, max_inputs=10**6)
    shards = list(bench.shards(limits))
    assert [shard.requests for shard, _ in shards] == [1700, 1300]
    assert [line for _, lines in shards for line in lines] == bench.expected()


@pytest.mark.usefixtures("small_pieces")
def test_long_lines_that_stand_together_are_rendered_in_small_pieces(tmp_path: Path) -> None:
    long = "CASE WHEN range BETWEEN 500 AND 600 THEN 5000 ELSE 1 END"
    query = f"SELECT range AS id, range || repeat('x', {long}) AS t FROM range(2000)"
    bench = Bench(tmp_path, make_job(BY_SQL, query=query))
    found = []
    manifest_of = manifest_module.Manifest.pieces

    def noted(self: manifest_module.Manifest, cut: manifest_module.Cut) -> Any:
        for group, piece in manifest_of(self, cut):
            found.append(piece.size)
            yield group, piece

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_module.Manifest, "pieces", noted)
        ((_, lines),) = bench.shards(ShardLimits(max_requests=10**6, max_bytes=10**9, max_inputs=10**6))
    assert lines == bench.expected()
    assert sum(found) == sum(map(len, lines))
    assert max(found) < 20_000 + 6_000


def test_large_pieces_keep_the_order_of_the_source(tmp_path: Path) -> None:
    bench = Bench(
        tmp_path, make_job(BY_SQL, query="SELECT range AS id, range || repeat('x', 40) AS t FROM range(150000)")
    )
    bench.con.execute("SET threads = 4")
    ((_, lines),) = bench.shards(ShardLimits(max_requests=10**6, max_bytes=10**9, max_inputs=10**6))
    keys = bench.con.execute("SELECT digest FROM digests_0 ORDER BY row").fetchall()
    assert [identifier(line) for line in lines] == [custom_id(digest, 0, 1) for (digest,) in keys]


@pytest.mark.parametrize("limit", ["max_bytes", "max_tokens", "max_inputs"])
def test_no_file_goes_beyond_a_limit_and_none_is_cut_early(tmp_path: Path, limit: str) -> None:
    job = make_job(
        "{{ t }}", query="SELECT range AS id, range || repeat('x', (range * 37 % 200)::INT) AS t FROM range(500)"
    )
    bench = Bench(tmp_path, job)
    most = {"max_bytes": 5_000, "max_tokens": 300, "max_inputs": 7}[limit]
    limits = ShardLimits(**{**vars_of(NO_LIMIT), limit: most})
    shards = list(bench.shards(limits))
    cost = {"max_bytes": len, "max_tokens": tokens, "max_inputs": one}[limit]
    costs = [cost(line) for line in bench.expected()]
    assert [len(lines) for _, lines in shards] == packed(costs, most)


def vars_of(limits: ShardLimits) -> dict[str, Any]:
    return {name: getattr(limits, name) for name in ("max_requests", "max_bytes", "max_inputs", "max_tokens")}


def one(line: bytes) -> int:
    return 1


def tokens(line: bytes) -> int:
    return -(-len(orjson.loads(line)["body"]["messages"][0]["content"]) // 4)


def packed(costs: list[int], most: int) -> list[int]:
    """Lengths of files that are filled one after the other."""
    files: list[list[int]] = []
    for cost in costs:
        if files and sum(files[-1]) + cost <= most:
            files[-1].append(cost)
        else:
            files.append([cost])
    return [len(file) for file in files]


def test_line_beyond_every_limit_has_a_file_to_itself(tmp_path: Path) -> None:
    bench = Bench(
        tmp_path, make_job("{{ t }}", query="SELECT range AS id, range || repeat('x', 300) AS t FROM range(3)")
    )
    assert [lines for _, lines in bench.shards(ShardLimits(10, 100, 10))] == [[line] for line in bench.expected()]


def test_rows_that_ask_the_same_are_one_line(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_job("{{ t }}", query="SELECT range AS id, range // 10 AS t FROM range(100)"))
    ((_, lines),) = bench.shards()
    assert sorted(lines) == sorted(set(bench.expected()))


def test_salted_digests_name_the_lines(tmp_path: Path) -> None:
    """Simulated answers and `reuse: false` have digests of their own in the ledger."""
    bench = Bench(tmp_path, make_job(SOME_BY_JINJA, query=QUERY.format(rows=50)))
    bench.con.execute("UPDATE changes_0 SET digest = md5(key)::UUID")
    ((_, lines),) = bench.shards()
    assert {identifier(line) for line in lines} == {
        custom_id(UUID(hashlib.md5(str(n).encode()).hexdigest()), 0, 1) for n in range(50)
    }
    assert sorted(orjson.loads(line)["body"]["messages"][0]["content"] for line in lines) == sorted(
        orjson.loads(line)["body"]["messages"][0]["content"] for line in bench.expected()
    )


def test_retries_and_amended_requests_keep_apart(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_job("{{ t }}", query="SELECT range AS id, range AS t FROM range(9)"))
    bench.con.execute("UPDATE changes_0 SET action = 'retry', attempts = 1 WHERE key >= '3'")
    bench.con.execute("""UPDATE changes_0 SET amendment = '{"set": {"temperature": 1}}' WHERE key >= '6'""")
    bench.con.execute("""UPDATE changes_0 SET amendment = '{"model": "big"}' WHERE key = '8'""")
    shards = list(bench.shards())
    assert [(shard.model, shard.is_retry, shard.requests) for shard, _ in shards] == [
        ("m", False, 3), ("big", True, 1), ("m", True, 5),
    ]  # fmt: skip
    ((_, first), (_, big), (_, again)) = shards
    assert first == bench.expected()[:3]
    plain = {row.key: row for row in render_all(bench.con, bench.job).values()}
    bodies = {identifier(line): orjson.loads(line)["body"] for line in [*big, *again]}
    amended = {"6": {"temperature": 1}, "7": {"temperature": 1}, "8": {"model": "big"}}
    assert bodies == {
        custom_id(plain[key].digest, 0, 2): orjson.loads(plain[key].body) | change
        for key, change in ({"3": {}, "4": {}, "5": {}} | amended).items()
    }
    sent = {
        custom_id(digest, round_, attempt): body_digest
        for shard, _ in shards
        for _, digest, round_, attempt, body_digest in bench.con.execute(f"FROM {shard.manifest}").fetchall()
    }
    assert sorted(key for key, digest in sent.items() if digest is not None) == sorted(
        custom_id(plain[key].digest, 0, 2) for key in "678"
    )


@pytest.mark.parametrize("template", [BY_SQL, ALL_BY_JINJA])
def test_body_of_another_digest_is_never_sent(tmp_path: Path, template: str) -> None:
    bench = Bench(tmp_path, make_job(template, query=QUERY.format(rows=20)))
    bench.con.execute("UPDATE source_0 SET t = t || '!' WHERE id = 11")
    with pytest.raises(NotAsPlanned):
        list(bench.shards())
