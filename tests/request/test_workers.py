"""Rows rendered by other processes: the same as here, and a clear end when one of them dies."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import orjson
import psutil  # type: ignore[import-untyped]
import pytest
from request_parts import make_job, table_of

from batchops.diagnostics import BatchopsError
from batchops.request import workers
from batchops.request.render import digest_rows
from batchops.request.template import compile_request
from batchops.request.workers import rendering

TEMPLATE = "{% for word in t.split() %}{{ loop.index }} {{ word }} {% endfor %}{{ d }}"
QUERY = "SELECT range AS id, 'é \"b\" ' || range AS t, range::DECIMAL(9, 2) AS d FROM range(12000)"


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        yield con


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers, however few rows and cores there are."""
    monkeypatch.setattr(workers, "MANY_ROWS", 0)
    monkeypatch.setattr(workers, "_cores", lambda: 3)


def digests(con: duckdb.DuckDBPyConnection, template: str) -> list[tuple[object, ...]]:
    job = make_job(template, query=QUERY)
    digest_rows(con, table_of(con, job), compile_request(job), keys=None, into="d")
    return con.execute("FROM d ORDER BY key").fetchall()


def test_workers_digest_as_this_process_does(con: duckdb.DuckDBPyConnection, request: pytest.FixtureRequest) -> None:
    here = digests(con, TEMPLATE)
    others = set(psutil.Process().children(recursive=True))
    request.getfixturevalue("always")
    assert digests(con, TEMPLATE) == here
    assert set(psutil.Process().children(recursive=True)) <= others


@pytest.mark.usefixtures("always")
def test_rows_that_fail_in_a_worker_are_told_as_ever(con: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(BatchopsError, match="It fails on 2 rows: labels@7, labels@11000"):
        digests(con, "{% for x in [1] %}{{ 1 // ((id - 7) * (id - 11000)) }}{% endfor %}")


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("cores", [2, 3])
def test_batches_come_back_in_order(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    monkeypatch.setattr(workers, "_cores", lambda: cores)
    request = compile_request(make_job(TEMPLATE))
    batches = [([(str(n), n, "a b", 1)],) for n in range(20)]
    with rendering(request, ["t", "d"]) as each:
        assert [orjson.loads(digests.made)[0][0] for digests in each("digests", batches)] == list(map(str, range(20)))


@pytest.mark.usefixtures("always")
def test_worker_that_dies_ends_the_command_with_a_clear_error() -> None:
    request = compile_request(make_job(TEMPLATE))
    others = set(psutil.Process().children())  # such as the one that starts commands for tests

    def batches() -> Iterator[tuple[list[tuple[str, int, str, int]]]]:
        yield ([("1", 1, "a", 1)],)
        for child in set(psutil.Process().children()) - others:
            child.kill()
        while True:
            yield ([("2", 2, "a", 1)],)

    with rendering(request, ["t", "d"]) as each, pytest.raises(BatchopsError, match="A worker died"):
        list(each("digests", batches()))


@pytest.mark.usefixtures("always")
@pytest.mark.skipif(os.name != "posix", reason="process groups")
def test_ctrl_c_does_not_reach_the_workers() -> None:
    others = set(psutil.Process().children())
    with rendering(compile_request(make_job(TEMPLATE)), ["t", "d"]) as each:
        list(each("digests", [([("1", 1, "a", 1)],)]))
        groups = {os.getpgid(child.pid) for child in set(psutil.Process().children()) - others}
    assert len(groups) == 2
    assert os.getpgid(0) not in groups


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    """Also with one that is killed: their pipes end."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(kit=str(Path(__file__).parent)))
    with psutil.Popen([sys.executable, str(program)], stdout=-1, text=True) as parent:
        assert parent.stdout is not None
        children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(children) == 2
        parent.kill()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []


PROGRAM = """
import sys, time
sys.path.insert(0, {kit!r})
if __name__ == "__main__":
    import psutil
    from request_parts import make_job
    from batchops.request import workers
    from batchops.request.template import compile_request
    workers.MANY_ROWS, workers._cores = 0, lambda: 3
    with workers.rendering(compile_request(make_job("{{{{ t }}}}")), ["t"]) as each:
        list(each("digests", [([(str(n), n, "a")],) for n in range(4)]))
        print(*(process.pid for process in each._workers.processes), flush=True)
        sys.stdin.read() or time.sleep(600)
"""
