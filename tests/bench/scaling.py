"""What ten times the rows cost: `scaling.py [ROWS]`, ten million unless told otherwise, and a tenth of them before.

Every command is a process of the command line, start-up and all; the service is the stand-in of sending.py, which takes
the files over HTTP and says yes. Before the last plan every row is marked as answered.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
from floors import BY_SQL
from measuring import Measured, batchops, measure, size_asked
from sending import HERE, make_project

COMMANDS = {
    "plan, first time": ("plan", "--offline"),
    "apply: planned, recorded, written, uploaded": ("apply", "--auto-approve"),
    "status": ("status",),
    "plan, everything in flight": ("plan", "--offline"),
    "plan, nothing changed": ("plan", "--offline"),
}


def run_all(folder: Path, rows: int, port: int) -> dict[str, Measured]:
    """Each command once, in this order, over a project of so many rows."""
    make_project(folder, rows, port, BY_SQL)
    found = {}
    for what, words in COMMANDS.items():
        if what.endswith("changed"):
            answer(folder)
        found[what] = measure(batchops(*words), folder)
        print(f"{rows:>12,} rows  {what:44} {told(found[what])}", flush=True)
    state = sum(path.stat().st_size for path in (folder / "state").glob("batchops.duckdb*"))
    print(f"{rows:>12,} rows  {'the state':44} {state / 1e6:8.0f} MB  {state / rows:5.0f} bytes a row", flush=True)
    return found


def answer(folder: Path) -> None:
    """Have every request of the state answered."""
    with duckdb.connect(folder / "state" / "batchops.duckdb") as con:
        con.execute("UPDATE requests SET state = 2, outcome = 0")
        con.execute("UPDATE submissions SET phase = 'fetched'")


def told(measured: Measured) -> str:
    return f"{measured.seconds:8.1f} s  {measured.cpu_seconds:8.1f} s of work  {measured.peak_mb:6.0f} MB"


def main(rows: int) -> None:
    print(f"{os.cpu_count()} CPUs, Python {sys.version.split()[0]}, DuckDB {duckdb.__version__}, one run each")
    serve = [sys.executable, str(HERE / "sending.py"), "serve"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        port = int(service.stdout.readline())
        os.environ["OPENAI_API_KEY"] = "bench"
        found = []
        try:
            for size in (rows // 10, rows):
                with tempfile.TemporaryDirectory(prefix="batchops-bench-") as name:
                    found.append(run_all(Path(name), size, port))
        finally:
            service.terminate()
    few, many = found
    for what in COMMANDS:
        seconds, memory = many[what].seconds / few[what].seconds, many[what].peak_mb / few[what].peak_mb
        print(f"ten times the rows: {what:44} {seconds:6.1f} × the time {memory:6.2f} × the memory")


if __name__ == "__main__":
    main(size_asked(__doc__, 10_000_000))
