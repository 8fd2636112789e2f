"""Where the answer of a verb goes: stdout, or a file that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchops.diagnostics import BatchopsError, error
from batchops.results.sinks import Target


@contextmanager
def open_output(path: Path | None) -> Iterator[Target]:
    """A target to write to. The file at `path` is replaced when the block ends well, and untouched otherwise.

    A link stays one: what it points to is replaced. A pipe or a device is written to as it is.
    """
    if path is None:
        sys.stdout.flush()
        yield Target(sys.stdout.buffer, width=terminal_width())
        sys.stdout.buffer.flush()
        return
    path = path.resolve()
    if path.exists() and not path.is_file():
        with _through(path) as target:
            yield target
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as problem:
        raise _unwritable(path, problem) from problem
    fresh = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield Target(stream, path=fresh)
        _publish(fresh, path)
    except OSError as problem:
        raise _unwritable(path, problem) from problem
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def _through(path: Path) -> Iterator[Target]:
    try:
        with path.open("wb") as stream:
            yield Target(stream)
    except OSError as problem:
        raise _unwritable(path, problem) from problem


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
