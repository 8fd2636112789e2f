"""The private folder and work database of one command."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import duckdb

from batchops.engine.project import Project
from batchops.request.source import OutOfMemory, open_work
from batchops.store.connection import limit_resources, open_memory

T = TypeVar("T")

MEMORY_LIMIT = "400MB"
"""For SQL of ours in an apply, which spills."""
FRUGAL_LIMIT, GENEROUS_LIMIT = "250MB", "1GB"
"""For queries of users and the SQL of a plan: enough to stream any number of rows, as the Parquet reader would fill
whatever it is given; and for one that this is not enough for. A plan of 10,000,000 rows takes no less time with 1 GB
(measured, 2026-11)."""
THREADS = 2
SCRATCH_LIMIT = "500MB"
"""For the engine that judges a batch, which spills."""


class Work:
    """A DuckDB file of this command alone, opened one way or the other: tables stay from one to the next.

    `con` runs SQL of ours, in `memory`, and may attach the state; within `read` the users' queries run, behind the
    fence of the project, and `con` is another connection after it. Close it: its folder goes.
    """

    def __init__(self, project: Project, *, memory: str = MEMORY_LIMIT) -> None:
        self._memory = memory
        self.folder = new_work_folder(project)
        self._root = project.root
        self._path = self.folder / "work.duckdb"
        self._con: duckdb.DuckDBPyConnection | None = None
        self._is_frugal = True

    @property
    def con(self) -> duckdb.DuckDBPyConnection:
        if self._con is None:
            self._con = duckdb.connect(str(self._path))
            limit_resources(self._con, memory_limit=self._memory, threads=THREADS, temp_directory=self.folder / "spill")
        return self._con

    @contextmanager
    def _opened(self, path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
        """A database behind the fence of the project."""
        limit = FRUGAL_LIMIT if self._is_frugal else GENEROUS_LIMIT
        con = open_work(path, self._root, memory_limit=limit, threads=THREADS)
        try:
            yield con
        finally:
            con.close()

    def read(self, reading: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """What `reading` makes of the users' queries; begun anew with more memory where it needs that."""
        self._let_go()
        return self._with_enough_memory(self._path, reading)

    def read_apart(self, reading: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """As `read`, in another database, without these tables: `con` stays open, and so do its temporary ones."""
        return self._with_enough_memory(self._path.with_name("apart.duckdb"), reading)

    def _with_enough_memory(self, path: Path, reading: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        try:
            with self._opened(path) as con:
                return reading(con)
        except (OutOfMemory, duckdb.OutOfMemoryException):  # the latter from SQL of ours over what the query gave
            if not self._is_frugal:
                raise
        self._is_frugal = False  # from now on
        with self._opened(path) as con:
            return reading(con)

    def _let_go(self) -> None:
        if self._con is not None:
            self._con.close()
            self._con = None

    def close(self) -> None:
        self._let_go()
        shutil.rmtree(self.folder, ignore_errors=True)


class Scratch:
    """Engines in memory, each lent to one after the other. Close it when none is lent.

    Making one, and later giving back its memory, costs 30 ms of processor time each (measured, 2026-11).
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._idle: list[_Engine] = []

    @contextmanager
    def lent(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """An engine, empty; whatever is in it after the block is gone. Two threads may have one each."""
        try:
            engine = self._idle.pop()
        except IndexError:
            engine = _Engine(self._project)
        try:
            yield engine.con
            engine.clear()
        except BaseException:
            engine.close()
            raise
        self._idle.append(engine)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


class _Engine:
    def __init__(self, project: Project) -> None:
        self._folder = new_work_folder(project)
        self.con = open_memory(memory_limit=SCRATCH_LIMIT, threads=THREADS, temp_directory=self._folder)

    def clear(self) -> None:
        for kind, name in _left_behind(self.con):
            self.con.execute(f"DROP {kind} {name}")

    def close(self) -> None:
        self.con.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _left_behind(con: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    return con.execute(
        """SELECT 'VIEW', view_name FROM duckdb_views() WHERE NOT internal
           UNION ALL SELECT 'TABLE', table_name FROM duckdb_tables() ORDER BY 1 DESC"""
    ).fetchall()


def new_work_folder(project: Project) -> Path:
    """A private folder of this process under state/work, its process id in the name so that leavings can be swept."""
    folder = project.work_folder / f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
    folder.mkdir(parents=True)
    return folder


def sweep_work(project: Project) -> None:
    """Remove work folders of processes that are gone. Only under the lease."""
    if not project.work_folder.exists():
        return
    for folder in project.work_folder.iterdir():
        pid, _, _ = folder.name.partition("-")
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and not _is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
