"""SQL over answers and state: one fenced SELECT on a snapshot.

What a query can reach: the views of tables.sql, one view results."job" a job with the columns of `columns`, and the
copied tables in `main`. No file but the answer files, no network, no writing, no change of settings.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb

from batchops.diagnostics import BatchopsError, Diagnostic, Location, Position, did_you_mean, error
from batchops.exhaustion import LESS_AT_ONCE, exhausted, is_out_of_memory, out_of_memory
from batchops.results.answers import OUTCOME_NAMES, STATES, Answers, Selection
from batchops.results.columns import flat_columns, select_list, sql_name
from batchops.results.damage import altered, damage_told, damaged, is_of_sql, scratch_folder
from batchops.results.recorded import recorded_jobs
from batchops.results.vectors import vector_type
from batchops.store.connection import file_text, lift_memory_limit, sql_text

_ROWS_AT_ONCE = 2048
_PLACE = re.compile(r"^LINE (\d+): (.*)\n( *)\^", re.MULTILINE)


class QueryOutOfMemory(BatchopsError):
    """A query needs more memory than its connection may use."""


@dataclass(frozen=True)
class Found:
    """The result of a query: column names, DuckDB type names, and the rows, to be read once."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: Iterator[Sequence[Any]]


@dataclass
class QueryRoom:
    """A snapshot made ready for users' queries; `unread` tells which jobs have no view because of a file, and why.

    `files` are the answer files of those that have one.
    """

    con: duckdb.DuckDBPyConnection
    folder: Path
    unread: dict[str, BatchopsError] = field(default_factory=dict)
    files: dict[str, tuple[Path, ...]] = field(default_factory=dict)

    @property
    def problems(self) -> tuple[Diagnostic, ...]:
        """What is told of all that is unread."""
        return tuple(found for problem in self.unread.values() for found in problem.diagnostics)

    def prepare(self, *, with_all_memory: bool = False) -> None:
        """Make the views, then lock the connection: nothing but SELECT on them works from here on.

        `with_all_memory` allows most of the machine's, as DuckDB does by itself.
        """
        if with_all_memory:
            lift_memory_limit(self.con)
        text = resources.files("batchops.results").joinpath("tables.sql").read_text(encoding="utf-8")
        states = "[" + ", ".join(map(sql_text, STATES)) + "]"
        self.con.execute(text.replace("{states}", states).replace("{outcomes}", OUTCOME_NAMES))
        self.con.execute("CREATE SCHEMA results")
        for job in recorded_jobs(self.con):
            try:
                self._show(Answers(self.con, job, self.folder))
            except BatchopsError as problem:
                self.unread[job.address] = problem
        self._lock()

    def _show(self, answers: Answers) -> None:
        """Make the view of a job. Raises BatchopsError when one of its answer files is gone or cannot be read."""
        columns = select_list(flat_columns(answers.job, vectors=vector_type(answers)), typed=True)
        view = f"SELECT {columns} FROM ({answers.source()}) WHERE {Selection().where()}"
        with damage_told(self.con, answers.paths):
            self.con.execute(f"CREATE VIEW results.{sql_name(answers.job.address)} AS {view}")
        self.files[answers.job.address] = answers.paths

    def _lock(self) -> None:
        files = set().union(*self.files.values())
        paths = ", ".join(sorted({sql_text(str(path)) for path in files} | set(map(file_text, files))))
        self.con.execute("SET search_path = 'shown,main'")
        self.con.execute("SET python_enable_replacements = false")
        self.con.execute(f"SET allowed_paths = [{paths}]")
        self.con.execute("SET enable_external_access = false")
        self.con.execute("SET lock_configuration = true")

    def run(self, sql: str) -> Found:
        """Run one SELECT, up to its first rows.

        Raises BatchopsError for anything else, and with DuckDB's own words when it fails; its subclass QueryOutOfMemory
        where more memory may help.
        """
        try:
            statements = self.con.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise _refused(len(statements))
            result = self.con.execute(sql)
            first = result.fetchmany(_ROWS_AT_ONCE)
        except duckdb.Error as problem:
            raise self._failed(sql, problem) from problem
        described = result.description or []
        columns, types = tuple(c[0] for c in described), tuple(str(c[1]) for c in described)
        return Found(columns, types, itertools.chain(first, self._rest(sql, result)))

    def _rest(self, sql: str, result: duckdb.DuckDBPyConnection) -> Iterator[Sequence[Any]]:
        try:
            while batch := result.fetchmany(_ROWS_AT_ONCE):
                yield from batch
        except duckdb.Error as problem:
            raise self._failed(sql, problem) from problem

    def _failed(self, sql: str, problem: duckdb.Error) -> BatchopsError:
        if told := self._not_of_the_query(sql, problem):
            return told
        text = str(problem)
        said = text.split("\n\nLINE ", maxsplit=1)[0].strip()
        if missing := re.search(r"Table with name (\S+) does not exist", said):
            if missing[1] in self.unread:
                return self.unread[missing[1]]
            known = list(self.files)
            said = said.splitlines()[0] + did_you_mean(missing[1], known)
            said += f" Answers are in: {', '.join(f'results.{sql_name(job)}' for job in known[:10]) or 'nothing yet'}."
        location, snippet = _place(sql, text)
        found = error("query_failed", "Query failed.", said, location=location, snippet=snippet)
        return BatchopsError(found)

    def _not_of_the_query(self, sql: str, problem: duckdb.Error) -> BatchopsError | None:
        """What went wrong with memory or files."""
        if is_out_of_memory(problem):
            return QueryOutOfMemory(out_of_memory(problem, LESS_AT_ONCE))
        if told := exhausted(problem, scratch_folder(self.con)):
            return told
        return damaged(problem) if self._is_damage(sql, problem) else None

    def _is_damage(self, sql: str, problem: duckdb.Error) -> bool:
        """Of a damaged file DuckDB tells the path, throws an error of no class, or one that values may earn as well.

        Only then the files of the jobs that are named in the query are read, to be sure.
        """
        paths = {str(path): path for paths in self.files.values() for path in paths}
        if any(path in str(problem) for path in paths) or (paths and type(problem) is duckdb.Error):
            return True
        if is_of_sql(problem) or isinstance(problem, duckdb.InterruptException):
            return False
        named = {path for job, files in self.files.items() if job in sql for path in files}
        named |= {path for text, path in paths.items() if text in sql}
        return any(altered(self.con, self.folder, named))


def _refused(count: int) -> BatchopsError:
    what = "It is none" if count == 1 else f"There are {count} statements" if count else "There is none"
    return BatchopsError(error("query_refused", "The query is refused.", f"One SELECT statement is run. {what}."))


def _place(sql: str, text: str) -> tuple[Location | None, str | None]:
    """Where DuckDB's caret points, as a place in the query."""
    found = _PLACE.search(text)
    lines = sql.split("\n")
    if found is None or not 1 <= (number := int(found[1])) <= len(lines):
        return None, None
    line = lines[number - 1]
    column = len(found[3]) - len(f"LINE {number}: ")
    is_whole = found[2].rstrip() == line.rstrip()
    start = Position(number, column + 1 if is_whole and column >= 0 else 1)
    return Location("query", start), line
