"""Hostile queries: nothing outside is read, nothing is written, no setting changes."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb
import pytest
from request_parts import loaded_rows, make_job

from batchops.diagnostics import BatchopsError
from batchops.request.check import check_jobs
from batchops.request.source import load_source, open_work
from batchops.spec.job import Job

CANARY = "canary-7f3a"


@pytest.fixture
def fenced(root: Path, tmp_path: Path) -> Path:
    """A project with secrets in it and around it; returns the root."""
    for name in (".env", ".git/config", "state/x.csv", "secrets/.key", "mixed/.env", "mixed/deep/.hidden/x.csv"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"id\n{CANARY}\n", encoding="utf-8")
    for name in ("data/x.csv", "data/sub/y.csv", "data/.gitkeep", "mixed/ok.csv", "mixed/deep/ok.csv", "top.csv"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("id\n1\n", encoding="utf-8")
    (tmp_path / "outside.csv").write_text(f"id\n{CANARY}\n", encoding="utf-8")
    (tmp_path / "data2").mkdir()
    (tmp_path / "data2" / "x.csv").write_text(f"id\n{CANARY}\n", encoding="utf-8")
    links = {"linked.csv": tmp_path / "outside.csv", "dir": tmp_path, "env.csv": root / ".env", "st": root / "state"}
    (root / "links").mkdir()
    for name, target in links.items():
        (root / "links" / name).symlink_to(target)
    (root / "toplink.csv").symlink_to(tmp_path / "outside.csv")
    return root


READS = [
    "/etc/passwd", "../outside.csv", "data/../../outside.csv", "data/../.env", ".env", "./.env", ".git/config",
    "state/x.csv", "data/../state/x.csv", "secrets/.key", "mixed/.env", "mixed/deep/.hidden/x.csv",
    "links/linked.csv", "links/dir/outside.csv", "links/env.csv", "links/st/x.csv", "toplink.csv",
    "data2/x.csv", "../data2/x.csv", "file:///etc/passwd", "/proc/self/environ",
]  # fmt: skip

QUERIES = [
    *(f"SELECT content AS id FROM read_text('{path}')" for path in READS),
    *(f"SELECT * FROM read_csv('{path}', all_varchar=true)" for path in READS),
    "SELECT file AS id FROM glob('/etc/*')",
    "SELECT file AS id FROM glob('*')",
    "SELECT file AS id FROM glob('.*')",
    "SELECT file AS id FROM glob('../*')",
    "SELECT content AS id FROM read_blob('.env')",
    "SELECT * AS id FROM '.env'",
    "FROM 'state/x.csv'",
    "FROM read_json('.env')",
    "FROM parquet_metadata('/etc/passwd')",
    "FROM read_parquet('/etc/passwd')",
    "FROM read_duckdb('/etc/passwd')",
    "FROM read_text('http://127.0.0.1:9/x')",
    "FROM read_csv('s3://bucket/x.csv')",
    "SELECT getenv('HOME') AS id",
    "SELECT id FROM query('COPY (SELECT 1 AS id) TO ''data/w.csv''')",
    "SELECT id FROM query('WITH w AS (COPY (SELECT 1) TO ''data/w.csv'') SELECT 1 AS id')",
    "WITH w AS (COPY (SELECT 1) TO 'data/w.csv') SELECT 1 AS id",
    "WITH w AS (INSERT INTO source_9 VALUES (1) RETURNING 1) SELECT 1 AS id",
    "COPY (SELECT 1) TO 'data/w.csv'",
    "ATTACH 'data/w.duckdb'",
    "ATTACH '../w.duckdb' AS w",
    "CREATE TABLE w AS SELECT 1 AS id",
    "INSERT INTO source_9 VALUES (1)",
    "DROP TABLE source_9",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "SET memory_limit = '64GB'",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "INSTALL httpfs",
    "LOAD httpfs",
    "EXPORT DATABASE 'data/w'",
    "CHECKPOINT",
    "VACUUM",
    "USE memory",
    "EXPLAIN SELECT 1 AS id",
    "PREPARE p AS SELECT 1",
    "SELECT 1 AS id; COPY (SELECT 1) TO 'data/w.csv'",
    "SELECT 1 AS id) AS q; COPY (SELECT 1) TO 'data/w.csv' --",
    "SELECT 1 AS id) AS q ORDER BY 1 --",
    "SELECT 1 AS id) TO 'data/w.csv' --",
    "SELECT id FROM rows_of_python",
]

ONLY_WHEN_RUN = ["SELECT 1 AS id FROM sniff_csv('/etc/passwd')", "SELECT name AS id FROM duckdb_secrets()"]
"""These bind without looking at a file."""


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "work" not in path.parts}


@pytest.mark.parametrize("query", QUERIES + ONLY_WHEN_RUN)
def test_hostile_query_is_refused_and_leaves_nothing(fenced: Path, tmp_path: Path, query: str) -> None:
    rows_of_python = [{"id": CANARY}]
    before, con = _files(tmp_path), open_work(tmp_path / "work" / "w.duckdb", fenced)
    try:
        con.execute("CREATE TABLE source_9(id INT)")
        with pytest.raises(BatchopsError) as refused:
            load_source(con, 0, make_job(query=query))
        assert all(found.code != "key_missing" for found in refused.value.diagnostics)
        assert CANARY not in str(refused.value)
        assert con.execute("SELECT count(*) FROM source_9").fetchone() == (0,)
    finally:
        con.close()
    assert _files(tmp_path) == before
    assert rows_of_python


@pytest.mark.parametrize("query", QUERIES)
def test_hostile_query_is_refused_by_the_check_too(fenced: Path, tmp_path: Path, query: str) -> None:
    before = _files(tmp_path)
    told = check_jobs(fenced, [make_job(query=query)])
    assert told, "nothing was said"
    assert not any(CANARY in found.detail for found in told)
    assert _files(tmp_path) == before


@pytest.mark.parametrize(
    "query",
    [
        "FROM 'data/x.csv'",
        "FROM 'data/*.csv'",
        "FROM 'data/**/y.csv'",
        "FROM read_csv('./data/x.csv')",
        "FROM 'top.csv'",
        "FROM 'mixed/ok.csv'",
        "FROM 'mixed/deep/ok.csv'",
        "SELECT r.* FROM read_json('data/r.json') AS r",
        "FROM 'data/p.parquet'",
    ],
)
def test_files_of_the_project_are_read(fenced: Path, tmp_path: Path, query: str) -> None:
    (fenced / "data" / "r.json").write_text('[{"id": 1}]', encoding="utf-8")
    duckdb.execute("COPY (SELECT 1 AS id) TO 'data/p.parquet'")
    con = open_work(tmp_path / "work" / "w.duckdb", fenced)
    try:
        assert loaded_rows(con, make_job(query=query)) == 1
    finally:
        con.close()


def test_absolute_path_into_the_project_is_read(fenced: Path, tmp_path: Path) -> None:
    con = open_work(tmp_path / "work" / "w.duckdb", fenced)
    try:
        assert loaded_rows(con, make_job(query=f"FROM '{fenced}/data/x.csv'")) == 1
    finally:
        con.close()


def test_query_spills_beside_the_work_database_and_nowhere_else(fenced: Path, tmp_path: Path) -> None:
    con = open_work(tmp_path / "work" / "w.duckdb", fenced, memory_limit="60MB", threads=1)
    before = _files(tmp_path)
    try:
        query = "SELECT range AS id, repeat(md5(range::VARCHAR), 8) AS t FROM range(300000) ORDER BY t"
        assert loaded_rows(con, make_job(query=query)) == 300_000
    finally:
        con.close()
    assert _files(tmp_path) == before


def test_check_runs_no_query(fenced: Path) -> None:
    jobs: list[Job] = [
        make_job(query="SELECT error('ran') AS id"),
        make_job(query="SELECT range AS id FROM range(1000000000000)"),
        make_job("{{ 'a' * 10**10 }}{{ id }}"),
    ]
    assert check_jobs(fenced, jobs) == ()


def test_settings_of_a_fenced_connection_are_locked(con: duckdb.DuckDBPyConnection) -> None:
    for statement in ("SET threads = 8", "SET enable_external_access = true", "SET allowed_directories = ['/']"):
        with pytest.raises(duckdb.Error):
            con.execute(statement)
    assert con.execute("SELECT current_setting('TimeZone')").fetchone() == ("UTC",)
    assert os.environ.get("HOME") is not None
