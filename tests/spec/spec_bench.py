"""A project of a few files, loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from batchops.diagnostics import Diagnostic, Location
from batchops.spec.load import LoadedProject, load_project

Load = Callable[[dict[str, str]], LoadedProject]
JOB = """\
name: labels
source:
  query: SELECT 1 AS id
  key: id
model: gpt-4o-mini
template: "{{ id }}"
"""


def placed(diagnostics: Iterable[Diagnostic]) -> list[str]:
    """`code file:line:column` of each."""
    return [f"{found.code} {_place(found.location)}" for found in diagnostics]


def _place(location: Location | None) -> str:
    return f"{location.filename}:{location.start.line}:{location.start.column}" if location else "nowhere"


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write files and load them as a project whose default provider is `local`."""

    def loaded(files: dict[str, str]) -> LoadedProject:
        for name, text in files.items():
            target = tmp_path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        return load_project(tmp_path, default_provider="local", providers=("local", "openai"))

    return loaded
