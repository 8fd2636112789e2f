"""`fmt`: specs in canonical form. Says which files were not; `--check` leaves them alone and exits 3."""

from __future__ import annotations

import difflib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from batchops.cli.options import Invocation, shared_options
from batchops.diagnostics import BatchopsError, Diagnostic, ExitCode, error, prevailing
from batchops.spec.files import spec_files
from batchops.spec.format import format_text
from batchops.views.diagnostics import render_json


@click.command("fmt", help="Write specs in canonical YAML, comments kept. PATHS are files or folders; default: jobs/.")
@click.option("--check", is_flag=True, help="Change nothing; exit 3 when a file is not formatted.")
@click.option("--diff", is_flag=True, help="Print what changes.")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@shared_options(json=True)
def command(invocation: Invocation, paths: tuple[Path, ...], *, check: bool, diff: bool) -> int:
    """Format every file that can be read, then report those that cannot."""
    codes: list[int] = []
    changed: list[dict[str, str]] = []
    problems: list[Diagnostic] = []
    for path, shown in _files(invocation, paths):
        try:
            before = path.read_bytes()
            after = format_text(before, shown)
        except BatchopsError as problem:
            problems += problem.diagnostics
            continue
        if before == after.encode():
            continue
        codes.append(ExitCode.NOT_FORMATTED if check else ExitCode.DONE)
        changed.append({"file": shown} | ({"diff": _diff(before, after, shown)} if diff else {}))
        if not invocation.json:
            invocation.out(changed[-1].get("diff", shown))
        if not check:
            _replace(path, after)
    if not invocation.json and problems:
        raise BatchopsError(*problems)
    if invocation.json:
        invocation.out(_document(changed, problems))
    return BatchopsError(*problems).exit_code if problems else prevailing(codes)


def _document(changed: list[dict[str, str]], problems: list[Diagnostic]) -> str:
    """What was changed, and what could not be read."""
    told = json.loads(render_json(problems, valid=False)) if problems else {"format_version": "1.0", "diagnostics": []}
    return json.dumps(told | {"changed": changed}, ensure_ascii=False)


def _files(invocation: Invocation, paths: tuple[Path, ...]) -> Iterator[tuple[Path, str]]:
    """Files and how they are named in messages: from the root when the project is meant, else as given."""
    if not paths:
        for name in spec_files(invocation.root)[0]:
            yield invocation.root / name, name
    for given in paths:
        path = invocation.directory / given
        if path.is_dir():
            for spec in sorted(p for p in path.rglob("*") if p.suffix in {".yaml", ".yml"} and _is_plain(p, path)):
                yield spec, (given / spec.relative_to(path)).as_posix()
        elif path.is_file():
            yield path, given.as_posix()
        else:
            raise BatchopsError(error("missing_file", "No such file.", f'"{given}" is neither a file nor a folder.'))


def _is_plain(path: Path, folder: Path) -> bool:
    return path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)


def _diff(before: bytes, after: str, shown: str) -> str:
    old = before.decode("utf-8", errors="replace").splitlines(keepends=True)
    lines = difflib.unified_diff(old, after.splitlines(keepends=True), f"a/{shown}", f"b/{shown}")
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    ).rstrip()


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all; a link stays a link, and the mode stays."""
    target = path.resolve()
    with tempfile.NamedTemporaryFile("wb", dir=target.parent, prefix=".", delete=False) as file:
        file.write(text.encode())
    temporary = Path(file.name)
    try:
        temporary.chmod(target.stat().st_mode & 0o7777)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
