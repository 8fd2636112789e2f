"""Times what every command pays before it works, against floors taken in the same run: `make bench`.

A floor is a fresh process that imports the libraries a command cannot do without, makes a model, opens its connections,
and ends. The work floor adds what only the libraries themselves can do: libyaml reads every spec, DuckDB binds every
query. A command and its floor run in turns; work is what other processes of the machine disturb least.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
from measuring import HEADING, Against, batchops, command_line, measure, middle

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
    """A command, and the floor it is held against."""

    what: str
    words: Sequence[str]
    floor: str
    floor_is: str


LINES = (
    Line("batchops --version", ["--version"], PASS, "python -c pass"),
    Line("batchops --help", ["--help"], CLICK, "import click"),
    Line(f"validate, {SPECS} specs", ["validate"], VALIDATE, "imports, one connection"),
    Line(f"validate, {SPECS} specs", ["validate"], VALIDATE_WORK, "the same, specs read, queries bound"),
)
PLAN_LINE = Line("plan, nothing to do, 1 job", ["plan"], PLAN, "imports, state attached, source loaded")


def python(*words: str) -> list[str]:
    return [sys.executable, *words]


def tell(line: Line, folder: Path) -> None:
    """Run the command and its floor in turns, and print both."""
    pairs = [
        (measure(batchops(*line.words), folder), measure(python("-c", line.floor), folder)) for _ in range(TURNS + 1)
    ][1:]  # the first run writes byte code and fills the disk's cache
    ours, floor = (middle(runs) for runs in zip(*pairs, strict=True))
    Against(floor).tell(f"{line.floor_is} (floor)", floor)
    Against(floor).tell(line.what, ours)


def make_project(folder: Path, jobs: int) -> None:
    for name in ("jobs", "data"):
        (folder / name).mkdir(parents=True)
    (folder / "batchops.toml").write_text('project = "bench"\nprovider = "local"\n')
    for number in range(jobs):
        (folder / "jobs" / f"job-{number}.yaml").write_text(JOB.format(n=number))
    rows = f"SELECT i AS id, 'Text ' || i AS text, i % {jobs} AS area FROM range({10 * jobs}) t(i)"
    duckdb.execute(f"COPY ({rows}) TO '{folder}/data/rows.parquet' (FORMAT parquet)")


def main() -> None:
    print(f"start-up: {os.cpu_count()} CPUs, Python {sys.version.split()[0]}, medians of {TURNS}")
    print(HEADING)
    with tempfile.TemporaryDirectory(prefix="batchops-bench-") as name:
        many, small = Path(name, "many"), Path(name, "small")
        make_project(many, SPECS)
        make_project(small, 1)
        measure(batchops("apply", "--auto-approve", "--wait"), small)
        for line in LINES:
            tell(line, many)
        tell(PLAN_LINE, small)


if __name__ == "__main__":
    command_line(__doc__).parse_args()
    main()
