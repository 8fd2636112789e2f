"""The fence around a source query: which files it may read, and which statements it may be.

A query is text from a repository that may be hostile. It reads files of the project's own folders and nothing else: no
dot files, no state, nothing outside (symbolic links are followed before they are judged, by DuckDB), no network, no
other database, no Python variable, and it changes no setting.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

import duckdb

from batchops.request.values import literal

_PRIVATE: Final = frozenset({"state"})
_HARMLESS: Final = frozenset({".gitkeep", ".keep", ".gitignore", ".gitattributes", ".DS_Store"})
"""Dot files that keep nobody from reading the folder they are in."""

_CONFIG: Final[dict[str, str | bool | int | float | list[str]]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
    "preserve_insertion_order": "false",
}


def connect_fenced(path: str, root: Path, *, memory_limit: str, threads: int) -> duckdb.DuckDBPyConnection:
    """A connection to the database at `path` (`:memory:` allowed) behind the fence of the project at `root`.

    Its settings cannot be changed any more. Paths in queries are relative to the working directory, which must be the
    root.
    """
    spill = "" if path == ":memory:" else f"{path}.tmp"
    limits = {"memory_limit": memory_limit, "threads": str(threads), "temp_directory": spill}
    connection = duckdb.connect(path, config={**_CONFIG, **limits})
    readable = list(_readable(root.resolve()))
    folders = [f"{entry.path}/" for entry in readable if entry.is_folder]
    files = [entry.path for entry in readable if not entry.is_folder]
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    connection.execute("SET force_compression = 'uncompressed'")  # work tables are read once or twice
    connection.execute(f"SET allowed_directories = {_list(folders)}")
    connection.execute(f"SET allowed_paths = {_list(files)}")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _list(texts: list[str]) -> str:
    return f"[{', '.join(map(literal, texts))}]"


@dataclass(frozen=True, slots=True)
class _Entry:
    path: str
    is_folder: bool


def _readable(root: Path) -> Iterator[_Entry]:
    for entry in sorted(os.scandir(root), key=lambda e: e.name):
        if entry.name.startswith(".") or entry.name in _PRIVATE or entry.is_symlink():
            continue
        if entry.is_dir():
            yield from _within(entry.path)[1]
        else:
            yield _Entry(entry.path, is_folder=False)


def _within(folder: str) -> tuple[bool, list[_Entry]]:
    """Whether a folder holds no dot file, and what of it may be read: the whole, or the parts around dot files."""
    is_clean, parts = True, []
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            is_clean = is_clean and entry.name in _HARMLESS and not entry.is_dir()
        elif entry.is_dir(follow_symlinks=False):
            inner_clean, inner = _within(entry.path)
            is_clean = is_clean and inner_clean
            parts += inner
        elif not entry.is_symlink():
            parts.append(_Entry(entry.path, is_folder=False))
    return is_clean, [_Entry(folder, is_folder=True)] if is_clean else parts


def is_absent(path: str) -> bool:
    """Whether a path in a query names nothing, in a place that it may name: a slip, and no trespass.

    Of a pattern the folder counts. Nothing is looked up outside the project's own folders or behind a link.
    """
    folder = re.split(r"[*?\[{]", path)[0]
    parts = PurePath(path if folder == path else folder.rpartition("/")[0]).parts
    if not parts or path.startswith("/") or "://" in path or parts[0].lower() in _PRIVATE:
        return False
    if any(part.startswith(".") for part in parts):
        return False
    steps = [Path(*parts[: depth + 1]) for depth in range(len(parts))]
    return next((not step.is_symlink() for step in steps if step.is_symlink() or not step.exists()), False)


# --- the statement


class NotSelect(ValueError):
    """The text is something else than one SELECT; the message says what."""


def single_select(connection: duckdb.DuckDBPyConnection, query: str) -> str:
    """The query if it is exactly one SELECT, its semicolons blanked so that it can stand in parentheses.

    Lines and columns stay where they are. Raises NotSelect, or duckdb.Error where it cannot be parsed. It must run in
    parentheses only: a SELECT that writes (`WITH x AS (COPY …)`) is refused there and nowhere else.
    """
    statements = connection.extract_statements(query)
    if len(statements) != 1:
        raise NotSelect("There is no statement." if not statements else f"There are {len(statements)} statements.")
    kind = str(statements[0].type).rpartition(".")[2]
    if kind != "SELECT":
        raise NotSelect(f"It is of type {kind}.")
    if statements[0].named_parameters:
        raise NotSelect("It has parameters.")
    return _without_semicolons(query)


def _without_semicolons(query: str) -> str:
    text = query.encode()
    for start, _ in duckdb.tokenize(query):
        if text[start : start + 1] == b";":
            text = text[:start] + b" " + text[start + 1 :]
    return text.decode()


def wrapped(select: str) -> str:
    """A SELECT in parentheses. It starts on a line of its own, and a comment at its end does not swallow the `)`."""
    return f"(\n{select}\n)"


# --- warnings


_VOLATILE: Final = re.compile(
    r"(random|now|uuid|uuidv4|uuidv7|gen_random_uuid|get_current_time|get_current_timestamp|today|nextval|"
    r"transaction_timestamp|statement_timestamp|clock_timestamp|current_localtime|current_localtimestamp|txid_current)"
    r"\s*\(|(current_timestamp|current_date|current_time|localtime|localtimestamp|tablesample|using\s+sample)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Unsteady:
    """A part of a query that may give other rows next time: at `offset`, a function or a LIMIT without ORDER BY."""

    offset: int
    word: str
    is_limit: bool


def unsteady_parts(query: str) -> Iterator[Unsteady]:
    """What makes two runs of a query differ over the same data."""
    text, depth, ordered = query.encode(), 0, {0: False}
    for start, kind in duckdb.tokenize(query):
        if str(kind).rpartition(".")[2].startswith(("string", "comment")):
            continue
        rest = text[start : start + 60].decode(errors="ignore")
        word = (re.match(r"\w+|.", rest) or [""])[0].lower()
        if word in "()":
            depth += 1 if word == "(" else -1
            ordered[depth] = False if word == "(" else ordered.get(depth, False)
        elif word == "order":
            ordered[depth] = True
        elif word == "limit" and not ordered.get(depth, False):
            yield Unsteady(len(text[:start].decode()), word, is_limit=True)
        elif found := _VOLATILE.match(rest):
            yield Unsteady(len(text[:start].decode()), found[0].rstrip("( ").lower(), is_limit=False)
