"""Where the answer of a verb goes: stdout, or a file that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchops.descriptors import is_descriptor
from batchops.diagnostics import BatchopsError, error
from batchops.results.sinks import Target, output_needed


@contextmanager
def open_output(path: Path | None, *, needs_file: bool = False) -> Iterator[Target]:
    """A target to write to. The file at `path` is replaced when the block ends well, and untouched otherwise.

    A link stays one: what it points to is replaced. A pipe, a device or an open file by its number is written to as
    it is; with `needs_file` that is refused as UsageProblem.
    """
    if path is not None and not _is_stream(path):
        with _draft(path) as target:
            yield target
    elif needs_file:  # before a pipe is opened: that would wait for its reader
        raise output_needed()
    elif path is not None:
        with _through(path) as target:
            yield target
    else:
        sys.stdout.flush()
        yield Target(sys.stdout.buffer, width=terminal_width())
        sys.stdout.buffer.flush()


def _is_stream(path: Path) -> bool:
    """Whether what is at `path` must not be replaced: no file, the one that stdout is sent to, or one by its number."""
    try:
        found = path.stat()  # of the path as it was given: /dev/fd/63 links to a name that is nowhere
    except FileNotFoundError:
        return False
    except OSError as problem:
        raise _unwritable(path, problem) from problem
    is_no_file = not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode))
    return is_no_file or _is_stdout(found) or is_descriptor(path)


def _is_stdout(found: os.stat_result) -> bool:
    try:
        return os.path.samestat(found, os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):  # it is closed
        return False


@contextmanager
def _through(path: Path) -> Iterator[Target]:
    try:
        with path.open("ab" if path.is_file() else "wb") as stream:
            yield Target(stream)
    except OSError as problem:
        raise _unwritable(path, problem) from problem


@contextmanager
def _draft(path: Path) -> Iterator[Target]:
    """A new file beside the one at `path`, or beside what it links to. It takes that place when the block ends well."""
    place = path.resolve()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{place.name}.", suffix=".tmp", dir=place.parent)
    except OSError as problem:
        raise _unwritable(path, problem) from problem
    fresh = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield Target(stream, path=fresh)
        _publish(fresh, place)
    except OSError as problem:
        raise _unwritable(path, problem) from problem
    finally:
        fresh.unlink(missing_ok=True)


def _publish(fresh: Path, path: Path) -> None:
    """Move the finished file into place, with the rights of any new file: mkstemp makes private ones."""
    mask = os.umask(0)
    os.umask(mask)
    fresh.chmod(0o666 & ~mask)
    with fresh.open("rb") as stream:
        os.fsync(stream.fileno())
    fresh.replace(path)


def terminal_width() -> int | None:
    """Columns of the terminal, or of COLUMNS; None when stdout is a pipe or a file: then nothing is cut."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal():
        return shutil.get_terminal_size().columns
    return None


def _unwritable(path: Path, problem: OSError) -> BatchopsError:
    detail = f"{path}: {problem.strerror or problem}."
    return BatchopsError(error("output_unwritable", "The output cannot be written.", detail))
