"""A project folder to work in, and a work database behind its fence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from batchops.request.source import open_work


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, and the working directory."""
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def con(root: Path, tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A work database of the project."""
    connection = open_work(tmp_path / "work" / "work.duckdb", root)
    yield connection
    connection.close()
