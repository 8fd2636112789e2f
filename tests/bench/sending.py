"""Times `apply` up to the upload against floors taken in the same run: `sending.py ROWS…`.

The service is a stand-in that takes whatever is uploaded and says yes to every create, so that what is timed is our
own work: rows rendered, packed, hashed, written and put on record. Floors: DuckDB's COPY of the same request lines,
the script that people write first (a loop of `json.dumps`), and for templates that SQL cannot render a bare loop of
Jinja2 and orjson. Every line is the median of a few fresh processes.

Seconds of the processor are told beside those of the clock: a loop of Python uses one core, the engine all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import planning
from floors import BY_JINJA, BY_SQL, FLOORS, Began, bare_jinja, busy_seconds, copy_by_engine, script
from measuring import HEADING, Against, Measured, about_runs, measure, middle, repeats_for, sizes_asked
from planning import write_job

from batchops.engine.converge import Convergence
from batchops.engine.gather import Gathered, gather
from batchops.engine.planning import assemble
from batchops.engine.project import open_project
from batchops.engine.run import Run
from batchops.engine.scope import Scope
from batchops.plan.events import StopFlag
from batchops.plan.model import Plan
from batchops.providers.normalise import batch_from
from batchops.providers.provider import Provider, RemoteFile
from batchops.request.render import digest_rows
from batchops.request.source import load_source, open_work
from batchops.request.template import compile_request
from batchops.settings import load_settings

HERE = Path(__file__).parent
SERVICE = """\
[providers.openai]
base_url = "http://127.0.0.1:{port}/v1"
"""

# --- what is measured


@contextmanager
def approved() -> Iterator[tuple[Convergence, Gathered, Plan]]:
    """An apply at the moment of its approval, with a provider that swallows what it is given."""
    with open_project(Path.cwd(), load_settings(Path.cwd(), environ=os.environ)) as project:
        project._providers["openai"] = cast(Provider, Swallowing(project.profile("openai")))
        jobs = project.jobs()
        with project.leased() as store:
            gathered = gather(project, jobs, is_whole_project=True, keeps_rows=True)
            plan = assemble(gathered, [], samples=1)
            yield Convergence(Run(project, store, lambda _: None, StopFlag()), jobs, Scope()), gathered, plan
            gathered.close()


def write() -> None:
    """Shards written, their intents, file ids and batches recorded."""
    with approved() as (convergence, gathered, plan):
        convergence.record(gathered, plan)
        began = Began()
        convergence.submit(gathered)
        began.tell()


def send() -> None:
    """All that `apply` does from the approval of its plan on."""
    with approved() as (convergence, gathered, plan):
        began = Began()
        convergence.converge(gathered, plan, wait=False, timeout=None)
        began.tell()


def digest() -> None:
    """Render and digest every row, as a first plan does."""

    with open_project(Path.cwd(), load_settings(Path.cwd(), environ=os.environ)) as project:
        (job,) = project.jobs()
        con = open_work(Path("work.duckdb"), Path.cwd())
        request, table = compile_request(job), load_source(con, 0, job)
        began = Began()
        digest_rows(con, table, request, keys=None, into="digests_0")
        began.tell()
        con.close()
        Path("work.duckdb").unlink()


class Swallowing:
    """The `Provider` that a bench needs: whatever is uploaded is taken, whatever is created is in progress."""

    name = "openai"
    is_simulated = False

    def __init__(self, profile: Any) -> None:
        self.profile = profile
        self._lock = threading.Lock()
        self._count = 0

    def _next(self) -> int:
        with self._lock:
            self._count += 1
            return self._count

    def upload(self, path: Path, filename: str, *, model: str | None = None) -> Any:

        return RemoteFile(f"file-{self._next()}", filename, path.stat().st_size, int(time.time()))

    def create(self, *, input_file_id: str, **_: Any) -> Any:

        return batch_from(_batch(self._next(), input_file_id))

    def list_batches(self, **_: Any) -> Any:
        return iter(())

    def close(self) -> None: ...


def _batch(number: int, input_file_id: str) -> dict[str, Any]:
    return {
        "id": f"batch_{number}", "object": "batch", "endpoint": "/v1/chat/completions", "status": "in_progress",
        "input_file_id": input_file_id, "completion_window": "24h", "created_at": int(time.time()), "metadata": {},
    }  # fmt: skip


class _Service(BaseHTTPRequestHandler):
    """The same over HTTP."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # a head and a body in two packets wait 40 ms for each other
    count = 0

    def do_GET(self) -> None:
        self._answer({"object": "list", "data": [], "has_more": False})

    def do_POST(self) -> None:
        given = self._taken()
        _Service.count += 1
        if self.path.endswith("/files"):
            now = int(time.time())
            self._answer({"id": f"file-{self.count}", "object": "file", "bytes": len(given), "created_at": now,
                          "filename": "input.jsonl", "purpose": "batch", "status": "processed"})  # fmt: skip
        else:
            self._answer(_batch(self.count, json.loads(given)["input_file_id"]))

    def _taken(self) -> bytes:
        """The body, of which only the first part is kept."""
        if "chunked" in self.headers.get("transfer-encoding", ""):
            raise NotImplementedError
        left = int(self.headers["content-length"])
        kept = self.rfile.read(min(left, 4096))
        left -= len(kept)
        while left > 0:
            left -= len(self.rfile.read(min(left, 1 << 20)))
        return kept

    def _answer(self, document: Mapping[str, Any]) -> None:
        text = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None: ...


def serve() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Service)
    print(server.server_port, flush=True)
    server.serve_forever()


# --- the table


def in_process(
    what: Callable[[], None], folder: Path, repeats: int, *, before: Callable[[], object] = lambda: None
) -> Measured:
    """What a function of this file says of itself, or what its whole process took where it says nothing."""
    runs = []
    for _ in range(repeats):
        before()
        program = "floors.py" if what.__name__ in FLOORS else "sending.py"
        runs.append(_once([sys.executable, str(HERE / program), what.__name__], folder))
    return middle(runs)


def _once(command: Sequence[str], folder: Path) -> Measured:
    said = folder / "said"
    before = busy_seconds()
    measured = measure(["/bin/sh", "-c", 'exec "$0" "$@" > said', *command], folder)
    told = json.loads(said.read_text() or "null") if command[1] != "-m" else None
    seconds, busy = told or (measured.seconds, busy_seconds() - before)
    return Measured(seconds, busy, measured.peak_mb)


def make_project(folder: Path, rows: int, port: int, template: str) -> None:
    if (folder / "data").exists():
        write_job(folder, template)
        return
    planning.make_project(folder, rows, template=template)
    with (folder / "batchops.toml").open("a") as settings:
        settings.write(SERVICE.format(port=port))


def forget(folder: Path) -> None:
    """No state: the next apply is the first."""
    for path in (folder / "state").glob("batchops.*"):
        path.unlink()


def sending(folder: Path, rows: int, port: int) -> None:
    make_project(folder, rows, port, BY_SQL)
    repeats = repeats_for(rows)
    floor, loop = in_process(copy_by_engine, folder, repeats), in_process(script, folder, repeats)
    against = Against(floor, loop, rows)
    against.tell(f"DuckDB: COPY of the lines, {rows:,} rows (floor)", floor)
    against.tell("a script: json.dumps in a loop", loop)
    again = lambda: forget(folder)  # noqa: E731
    against.tell("shards written and intents recorded", in_process(write, folder, repeats, before=again))
    against.tell("apply from its approval on, uploads free", in_process(send, folder, repeats, before=again))
    runs = []
    for _ in range(repeats):
        forget(folder)
        runs.append(_once([sys.executable, "-m", "batchops", "apply", "--auto-approve"], folder))
    against.tell("batchops apply, the whole process, uploads in", middle(runs))
    forget(folder)
    make_project(folder, rows, port, BY_JINJA)
    floor = in_process(bare_jinja, folder, repeats)
    against = Against(floor, loop, rows)
    against.tell(f"a bare loop of Jinja2 and orjson, {rows:,} rows (floor)", floor)
    against.tell("digest every row, as a plan does", in_process(digest, folder, repeats))
    against.tell("shards written and intents recorded", in_process(write, folder, repeats, before=again))


def main(sizes: Sequence[int]) -> None:
    print(about_runs("send"))
    print(HEADING)
    with subprocess.Popen(
        [sys.executable, str(HERE / "sending.py"), "serve"], stdout=subprocess.PIPE, text=True
    ) as service:
        assert service.stdout is not None
        port = int(service.stdout.readline())
        os.environ["OPENAI_API_KEY"] = "bench"
        try:
            for rows in sizes:
                with tempfile.TemporaryDirectory(prefix="batchops-bench-") as name:
                    sending(Path(name), rows, port)
        finally:
            service.terminate()


PARTS = {part.__name__: part for part in (write, send, digest, serve)}

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in PARTS:
        PARTS[sys.argv[1]]()
    else:
        main(sizes_asked(__doc__, planning.SIZES))
