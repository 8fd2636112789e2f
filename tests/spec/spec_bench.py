"""A project of a few files, loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from batchops.spec.load import LoadedProject, load_project


@pytest.fixture
def load(tmp_path: Path) -> Callable[[dict[str, str]], LoadedProject]:
    """Write files and load them as a project whose default provider is `local`."""

    def loaded(files: dict[str, str]) -> LoadedProject:
        for name, text in files.items():
            target = tmp_path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        return load_project(tmp_path, default_provider="local", providers=("local", "openai"))

    return loaded
