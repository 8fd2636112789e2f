from __future__ import annotations
import io
from pathlib import Path
import duckdb
from result_states import every_state, State
from batchops.results.answers import Answers, Selection, prepare
from batchops.results.recorded import find_job
from batchops.results.sinks import Target, sink
from batchops.store.snapshot import snapshot


def test_x(tmp_path):
    path = every_state(tmp_path / "s.duckdb").write()
    with snapshot(path) as con:
        prepare(con)
        job = find_job(con, "review-sentiment")
        for f, w in (("csv", None), ("table", 100), ("table", None), ("table", 60), ("table", 30), ("parquet", None)):
            out = io.BytesIO()
            p = tmp_path / "x.parquet" if f == "parquet" else None
            sink(f)(Answers(con, job, path.parent), Target(out, path=p, width=w))
            print(out.getvalue().decode())
    print(duckdb.sql(f"describe from '{tmp_path}/x.parquet'"))
    print(duckdb.sql(f"from '{tmp_path}/x.parquet'"))
