"""Times what every command pays before it works, against floors taken in the same run: `make bench`.

A floor is a fresh process that imports the libraries a command cannot do without, opens its connections, and ends. The
work floor adds what only the libraries themselves can do: libyaml reads every spec, DuckDB binds every query. Each line
is the median ratio of runs taken in turns, in processor seconds, which other processes of the machine disturb least.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
from measuring import command_line

TURNS = 15
SPECS = 100

JOB = """\
name: job-{n}
description: Labels the texts of area {n}.
owner: team-{n}
tags: [area-{n}, labels]
source:
  query: |
    SELECT id, text, area FROM read_parquet('data/rows.parquet')
    WHERE area = {n}
  key: id
model: gpt-5-mini
template:
  - role: system
    content: You label texts of area {n}. Answer with one word.
  - role: user
    content: |
      {{% if area %}}Area {{{{ area }}}}: {{% endif %}}{{{{ text | trim }}}}
params:
  max_completion_tokens: 100
schema:
  type: object
  properties:
    label: {{type: string, enum: [good, bad, unclear]}}
    why: {{type: string}}
  required: [label, why]
  additionalProperties: false
retry:
  max_attempts: 4
"""

PASS = "pass"
CLICK = "import click"
IMPORTS = """\
import click, duckdb, jinja2.sandbox, jsonschema_rs, orjson, pydantic, ruamel.yaml
class Model(pydantic.BaseModel):
    name: str
"""
"""pydantic imports half of itself when the first model is made."""

VALIDATE = IMPORTS + "duckdb.connect()\n"
VALIDATE_WORK = (
    VALIDATE.replace("duckdb.connect()", "con = duckdb.connect()")
    + """\
from pathlib import Path
from ruamel.yaml.cyaml import CParser
for path in Path('jobs').glob('*.yaml'):
    parser = CParser(path.read_text())
    while parser.check_event():
        value = getattr(parser.get_event(), 'value', '')
        if value.startswith('SELECT'):
            con.execute('DESCRIBE ' + value)
"""
)
PLAN = (
    IMPORTS
    + """\
import filelock
con = duckdb.connect()
con.execute("ATTACH 'state/batchops.duckdb' AS state (READ_ONLY)")
con.execute("SELECT count(*) FROM state.rows").fetchall()
work = duckdb.connect('state/work.duckdb')
work.execute("CREATE OR REPLACE TABLE t AS FROM read_parquet('data/rows.parquet')")
"""
)


@dataclass(frozen=True)
class Line:
    """A command, the floor it is held against, and the ratio that is the aim."""

    what: str
    words: Sequence[str]
    floor: str
    floor_is: str
    aim: str = ""


LINES = (
    Line("batchops --version", ["--version"], PASS, "python -c pass", "3"),
    Line("batchops --help", ["--help"], CLICK, "import click"),
    Line(f"validate, {SPECS} specs", ["validate"], VALIDATE, "imports, one connection"),
    Line(f"validate, {SPECS} specs", ["validate"], VALIDATE_WORK, "the same, specs read, queries bound"),
)
PLAN_LINE = Line("plan, nothing to do, 1 job", ["plan"], PLAN, "imports, state attached, source loaded")


def cpu_seconds(command: Sequence[str], folder: Path) -> float:
    """Processor time of one fresh process; RuntimeError when it fails."""
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} exited {process.returncode}: {said.decode()}")
    return usage.ru_utime + usage.ru_stime


def python(*words: str) -> list[str]:
    return [sys.executable, *words]


def measure(line: Line, folder: Path) -> None:
    """Run the command and its floor in turns, and print both medians and the median of the ratios."""
    pairs = [
        (cpu_seconds(python("-m", "batchops", *line.words), folder), cpu_seconds(python("-c", line.floor), folder))
        for _ in range(TURNS + 1)
    ][1:]  # the first run writes byte code and fills the disk's cache
    seconds, floor = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(command / below for command, below in pairs)
    aim = f"(aim {line.aim})" if line.aim else ""
    print(f"{line.what:28} {seconds:7.3f} s {ratio:6.2f} × {floor:.3f} s {line.floor_is} {aim}".rstrip(), flush=True)


def make_project(folder: Path, jobs: int) -> None:
    for name in ("jobs", "data"):
        (folder / name).mkdir(parents=True)
    (folder / "batchops.toml").write_text('project = "bench"\nprovider = "local"\n')
    for number in range(jobs):
        (folder / "jobs" / f"job-{number}.yaml").write_text(JOB.format(n=number))
    rows = f"SELECT i AS id, 'Text ' || i AS text, i % {jobs} AS area FROM range({10 * jobs}) t(i)"
    duckdb.execute(f"COPY ({rows}) TO '{folder}/data/rows.parquet' (FORMAT parquet)")


def main() -> None:
    print(f"start-up: {os.cpu_count()} CPUs, Python {sys.version.split()[0]}, processor time, medians of {TURNS}")
    with tempfile.TemporaryDirectory(prefix="batchops-bench-") as name:
        many, small = Path(name, "many"), Path(name, "small")
        make_project(many, SPECS)
        make_project(small, 1)
        cpu_seconds(python("-m", "batchops", "apply", "--auto-approve", "--wait"), small)
        for line in LINES:
            measure(line, many)
        measure(PLAN_LINE, small)


if __name__ == "__main__":
    command_line(__doc__).parse_args()
    main()
