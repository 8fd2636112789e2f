"""`init`: a project that validates, plans and applies at once, with the local provider and no key."""

from __future__ import annotations

import json
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from batchops.cli.options import Invocation, shared_options
from batchops.diagnostics import BatchopsError, error
from batchops.spec.editor import job_schema

_IGNORE = ".gitignore"
_RENAMED = {"gitignore": _IGNORE, "gitignore-of-state": f"state/{_IGNORE}"}
"""Under their real names these would rule over this repository."""


@click.command("init", help="Scaffold a project that plans and applies at once with the local provider.")
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(path_type=Path))
@shared_options(json=True)
def command(invocation: Invocation, folder: Path) -> None:
    """Write the files of a first project; refuse when one of them exists already."""
    root = invocation.directory / folder
    files = scaffold()
    if (root / _IGNORE).exists():  # a repository has one before it has jobs
        del files[_IGNORE]
        invocation.note(f"  {_IGNORE} is kept as it is; it should name .env")
    if in_the_way := sorted(name for name in files if (root / name).exists() or (root / name).is_symlink()):
        shown = "this folder" if folder == Path() else folder
        detail = f"init overwrites nothing, and {shown} has: {', '.join(in_the_way)}. Choose another folder."
        raise BatchopsError(error("files_in_the_way", "Files are in the way.", detail))
    try:
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
    except OSError as problem:
        detail = f"{problem.filename}: {problem.strerror}."
        raise BatchopsError(error("output_unwritable", "The output cannot be written.", detail)) from problem
    for name in files:
        invocation.note(f"  {name}")
    made = {"format_version": "1.0", "folder": str(root), "files": list(files), "diagnostics": []}
    invocation.out(json.dumps(made, ensure_ascii=False) if invocation.json else _next_steps(folder))


def scaffold() -> dict[str, str]:
    """The files of a first project by their path."""
    files = dict(sorted(_texts(resources.files("batchops.cli") / "scaffold", "")))
    files["schemas/job.schema.json"] = json.dumps(job_schema(), indent=2, ensure_ascii=False) + "\n"
    return files


def _texts(folder: Traversable, prefix: str) -> list[tuple[str, str]]:
    """Every file below a folder, under the name that the project knows it by."""
    found: list[tuple[str, str]] = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _texts(entry, f"{prefix}{entry.name}/")
        else:
            name = _RENAMED.get(entry.name, entry.name)
            found.append((f"{prefix}{name}", entry.read_text(encoding="utf-8")))
    return found


def _next_steps(directory: Path) -> str:
    go = "" if directory == Path() else f"  cd {directory}\n"
    return (
        "One job over 20 product reviews. Its answers are simulated until batchops.toml says otherwise. Next:\n"
        f"{go}"
        "  batchops validate\n"
        "  batchops plan\n"
        "  batchops apply --wait\n"
        "  batchops results review-sentiment"
    )
