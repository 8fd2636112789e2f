"""Is this file a state that we can use? What stands in its place is told apart, each with its own sentence.

Nothing here writes. Python does not open the file either: its size is asked for, and DuckDB reads the rest.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from batchops.diagnostics import BatchopsError, error
from batchops.store import migrations

_HEADER_BYTES = 3 * 4096
"""What DuckDB writes before the first block (three headers)."""

_recognised: dict[Path, tuple[int, ...]] = {}
"""Files that were recognised in this process, and their versions then."""

_LOCKED = ("Could not set lock", "Conflicting lock")
_FOREIGN = ("not a valid DuckDB database file", "sqlite_scanner", "encrypt", "Is a directory")
_UNWRITABLE = (
    "No space left",
    "Could not write",
    "File too large",
    "Disk quota",
    "Read-only file system",
    "Permission denied",
    "Cannot open file",
)
_DAMAGED = ("Corrupt database file", "checksum", "Could not read", "Failed to deserialize", "Failed to load metadata")


def is_locked(problem: duckdb.Error) -> bool:
    """Another process has the file open."""
    return _says(problem, _LOCKED)


def is_unwritable(problem: duckdb.Error) -> bool:
    """The file, its folder or its disk takes no more."""
    return _says(problem, _UNWRITABLE) and not is_locked(problem)


def is_damage(problem: duckdb.Error) -> bool:
    """A block of the file could not be read, or is not what was written."""
    return _says(problem, _DAMAGED)


def _says(problem: duckdb.Error, texts: tuple[str, ...]) -> bool:
    said = str(problem)
    return any(text in said for text in texts)


def refuse_absent(path: Path) -> None:
    """No file, or one without a byte, as a failed copy leaves it: DuckDB would quietly make a new database there."""
    if not path.exists():
        raise BatchopsError(
            error("state_absent", "There is no state.", f"{path} does not exist. The first apply makes the state.")
        )
    if path.is_file() and path.stat().st_size == 0:
        raise _damaged(path, "it is empty")


def version_of(path: Path) -> tuple[int, ...] | None:
    """What changes with the file at this path, whoever changes it.

    None while a log beside it holds writes of it, and where there is no file.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    if _log_of(path).exists():
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def recognise(con: duckdb.DuckDBPyConnection, path: Path, version: tuple[int, ...] | None) -> None:
    """Raise BatchopsError unless the file attached as `state` is whole as far as its headers tell, ours, and not newer.

    The rest of the file is read when it is needed; `unreadable` turns what DuckDB finds then into a sentence. A file is
    not looked at again while its `version`, which is that from before it was attached, is the one that was recognised.
    """
    is_settled = version is not None and version == version_of(path)  # else another may have come into its place
    if is_settled and _recognised.get(path) == version:
        return
    try:
        _refuse_truncated(con, path)
        found = con.execute("SELECT schema_version FROM state.meta").fetchall()
    except (duckdb.CatalogException, duckdb.BinderException):
        raise _foreign(path, "a DuckDB database with other tables") from None
    except duckdb.Error as problem:
        raise unreadable(path, problem) from problem
    if len(found) != 1:
        raise _foreign(path, "its identity is missing")
    migrations.check_version(found[0][0])
    if version is not None and is_settled:
        _recognised[path] = version


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")


def _refuse_truncated(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Every block in use has its place in the file. Blocks that only a log beside the file knows are not counted."""
    if _log_of(path).exists():
        return
    row = con.execute(
        "SELECT used_blocks * block_size FROM pragma_database_size() WHERE database_name = 'state'"
    ).fetchone()
    needed = _HEADER_BYTES + (row[0] if row else 0)
    if path.stat().st_size < needed:
        raise _damaged(path, f"it is cut short: {path.stat().st_size:,} bytes of at least {needed:,}")


def unreadable(path: Path, problem: duckdb.Error) -> BatchopsError:
    """What DuckDB could not open or read, in our words."""
    if _says(problem, ("version number",)):
        return BatchopsError(
            error(
                "state_too_new",
                "The state is of a newer version.",
                f"{path} was written by a DuckDB that this one ({duckdb.__version__}) cannot read. Nothing was written"
                " to it. Upgrade:",
                fixes=["pip install --upgrade duckdb"],
            )
        )
    if _says(problem, _FOREIGN):
        return _foreign(path, "another kind of file")
    if is_unwritable(problem):
        return Unwritable(path, first_line(problem))
    return _damaged(path, first_line(problem))


class Unwritable(BatchopsError):
    """The state could not be opened for writing, or a commit did not reach the disk; nothing of it is recorded."""

    def __init__(self, path: Path, reason: str, *, kept: str = "", fixes: tuple[str, ...] = ()) -> None:
        self.reason = reason
        ending = ", or record by hand what was just made:" if fixes else "."
        super().__init__(
            error(
                "state_unwritable",
                "The state cannot be written.",
                f"{path}: {reason}. What was recorded before is safe, and what happened at the provider since is found"
                f" there by the next apply.{kept} Make room or allow writing; then run the same command again{ending}",
                fixes=fixes,
            )
        )


def _damaged(path: Path, why: str) -> BatchopsError:
    return BatchopsError(
        error(
            "state_damaged",
            "The state file is damaged.",
            f"{path}: {why}. Nothing was written to it. Put a backup in its place (the damaged file is kept beside),"
            " or move the file away: the next apply then finds what the provider still knows, and offers to adopt it.",
            fixes=["batchops state push --force state/backups/NAME.duckdb"],
        )
    )


def _foreign(path: Path, what: str) -> BatchopsError:
    return BatchopsError(
        error(
            "state_foreign",
            "The file is not a state of batchops.",
            f"{path} is {what}. Nothing was written to it. Move it away, or set `url` under [state] to another path.",
        )
    )


def first_line(problem: Exception) -> str:
    """What went wrong, without DuckDB's advice."""
    lines = str(problem).strip().splitlines()
    return (lines[0] if lines else type(problem).__name__)[:300].rstrip(".")
