"""docs/cli.md says every flag of the verbs that it describes, and no flag that does not exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import click
import pytest

PAGE = (Path(__file__).parents[2] / "docs/cli.md").read_text(encoding="utf-8")
DESCRIBED = ("plan", "show", "apply", "wait", "watch", "status", "validate", "doctor")


def flags(verb: str) -> set[str]:
    command: click.Command = importlib.import_module(f"batchops.cli.{verb}").command
    names = {name for parameter in command.params if isinstance(parameter, click.Option) for name in parameter.opts}
    return {name for name in names if name.startswith("--") or name == "-C"}


@pytest.mark.parametrize("verb", DESCRIBED)
def test_every_flag_is_documented(verb: str) -> None:
    assert {flag for flag in flags(verb) if not re.search(rf"`{flag}\b", PAGE)} - {"--verbose"} == set()


def test_no_flag_is_documented_that_does_not_exist() -> None:
    existing = set().union(*(flags(verb) for verb in DESCRIBED)) | {"--help", "--check", "--diff"}
    assert set(re.findall(r"(?<!-)--[a-z][a-z-]+", PAGE)) - existing == set()
