"""Files that a spec names: only the project's own, never its state, its repository or its secrets.

A spec may come from a stranger's fork, so a path is checked as written and again where its symbolic links lead.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from batchops.diagnostics import BatchopsError, Diagnostic, Location, Position, error

MAX_FILE_BYTES: Final = 16_000_000
_PRIVATE = "state"


def read_text(root: Path, path: str) -> str:
    """The text of a project file. Raises BatchopsError with one diagnostic that says why it may or can not be read."""
    data = read_bytes(root, path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        detail = f'"{path}" has byte 0x{data[problem.start]:02x} at offset {problem.start}. Save it as UTF-8.'
        raise BatchopsError(error("file_encoding", "The file is not UTF-8.", detail)) from problem


def read_bytes(root: Path, path: str) -> bytes:
    """The bytes of a project file; raises as `read_text` does."""
    target = resolve(root, path)
    try:
        status = target.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BatchopsError(error("missing_file", "No such file.", f'"{path}" is not a regular file.'))
        if status.st_size > MAX_FILE_BYTES:
            detail = f'"{path}" has {status.st_size} bytes; {MAX_FILE_BYTES} are the limit.'
            raise BatchopsError(error("file_too_large", "The file is too large.", detail))
        return target.read_bytes()
    except OSError as problem:
        detail = f'"{path}": {problem.strerror}. Paths are relative to the project root.'
        raise BatchopsError(error("missing_file", "No such file.", detail)) from problem


def with_snippets(root: Path, diagnostics: Iterable[Diagnostic]) -> Iterator[Diagnostic]:
    """The diagnostics, each with the source line at its place where that line can still be read."""
    read: dict[str, list[str]] = {}
    for found in diagnostics:
        place = found.location
        if place is None or found.snippet is not None:
            yield found
            continue
        if place.filename not in read:
            try:
                read[place.filename] = read_text(root, place.filename).split("\n")
            except BatchopsError:
                read[place.filename] = []
        lines = read[place.filename]
        line = lines[place.start.line - 1].rstrip("\r") if 1 <= place.start.line <= len(lines) else None
        yield found.at(place, line)


def resolve(root: Path, path: str) -> Path:
    """The file that `path` names, links followed; BatchopsError when it is not one of the project's own."""
    if (why := _refusal(path)) is not None:
        raise BatchopsError(why)
    real_root = root.resolve()
    try:
        target = (real_root / path).resolve()
    except (OSError, RuntimeError) as problem:  # a loop of links
        raise BatchopsError(error("missing_file", "No such file.", f'"{path}" cannot be followed.')) from problem
    if not target.is_relative_to(real_root):
        raise BatchopsError(_outside(path, "a symbolic link leads out of it"))
    if (why := _refusal(target.relative_to(real_root).as_posix(), written=path)) is not None:
        raise BatchopsError(why)
    return target


def spec_files(root: Path) -> tuple[tuple[str, ...], tuple[Diagnostic, ...]]:
    """Every jobs/**/*.yaml and *.yml by its path from the root, sorted; links that lead out are diagnostics."""
    found: list[str] = []
    problems: list[Diagnostic] = []
    for path, is_linked in _walk(root, "jobs", set(), is_linked=False):
        try:
            if is_linked or _refusal(path) is not None:
                resolve(root, path)
        except BatchopsError as problem:
            place = Location(path, Position(1, 1))
            problems += [diagnostic.at(place) for diagnostic in problem.diagnostics]
        else:
            found.append(path)
    return tuple(sorted(found)), tuple(problems)


def _walk(root: Path, folder: str, seen: set[Path], *, is_linked: bool) -> Iterator[tuple[str, bool]]:
    """Spec files and refused links under a folder, each with whether a link leads there.

    A folder that links lead to twice is entered once.
    """
    here = root / folder
    if not here.is_dir():
        return
    is_linked = is_linked or here.is_symlink()
    real = here.resolve()
    if not real.is_relative_to(root.resolve()):
        yield folder, True
        return
    if real in seen:
        return
    seen.add(real)
    try:
        entries = sorted(here.iterdir(), key=lambda entry: (entry.is_symlink(), entry.name))
    except OSError:
        yield folder, True  # reading it says why
        return
    for entry in entries:
        inner = f"{folder}/{entry.name}"
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(root, inner, seen, is_linked=is_linked)
        elif entry.suffix in {".yaml", ".yml"}:
            yield inner, is_linked or entry.is_symlink()


def _refusal(path: str, written: str | None = None) -> Diagnostic | None:
    shown = path if written is None else written
    pure = PurePosixPath(path)
    if not path.strip() or "\0" in path:
        return error("missing_file", "No such file.", "The path is empty." if not path.strip() else "It has a NUL.")
    if pure.is_absolute() or "\\" in path:
        return _outside(shown, "paths are relative to the project root, with /")
    depth = 0
    for part in pure.parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return _outside(shown, "it climbs above the root")
    parts = [part for part in pure.parts if part != ".."]
    private = next((part for part in parts if part.startswith(".")), None)
    if private is not None or (parts and parts[0] == _PRIVATE):
        kept = f'"{private or _PRIVATE}"'
        detail = f'"{shown}" points into {kept}; specs read neither state/ nor names that begin with a dot.'
        return error("path_forbidden", "The path is private.", detail)
    return None


def _outside(path: str, why: str) -> Diagnostic:
    return error("path_outside", "The path leaves the project.", f'"{path}": {why}.')
