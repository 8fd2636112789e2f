"""Where settings come from: each source becomes a layer, a tree of values with the origin of every leaf.

Knows files and variables, not what the values mean: `load` checks the sum of the layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from batchops.diagnostics import BatchopsError, Diagnostic, did_you_mean, error, warning
from batchops.settings import toml
from batchops.settings.model import names_at

SETTINGS_FILE = "batchops.toml"
PYPROJECT = "pyproject.toml"
PREFIX = "BATCHOPS_"
NOT_SETTINGS = frozenset({"BATCHOPS_ENV"})
"""Variables with the prefix that choose something other than a setting."""


@dataclass(frozen=True)
class Layer:
    """One source: a tree of values, and where each leaf of it came from."""

    values: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[tuple[str, ...], str] = field(default_factory=dict)


@dataclass(frozen=True)
class SettingsFile:
    """The file that holds the settings, and the path of their table in it: () or ("tool", "batchops")."""

    document: toml.Document
    table: tuple[str, ...]

    @property
    def values(self) -> Mapping[str, Any]:
        found: Any = self.document.tree
        for part in self.table:
            found = found[part]
        return found if isinstance(found, dict) else {}

    def place(self, path: tuple[str | int, ...]) -> toml.Place | None:
        """Where the setting `path`, or the nearest table above it, is written."""
        return self.document.nearest((*self.table, *path))


def has_table(pyproject: Path) -> bool:
    """Whether a pyproject.toml has [tool.batchops]. One that cannot be parsed counts if it seems to."""
    if not pyproject.is_file() or "batchops" not in (text := pyproject.read_text("utf-8", errors="replace")):
        return False
    try:
        return "batchops" in toml.parse(text, PYPROJECT).tree.get("tool", {})
    except BatchopsError:
        return "[tool.batchops" in text


def read_settings_file(root: Path) -> SettingsFile | None:
    """batchops.toml or [tool.batchops] of the project; both at once is an error, for one would be overlooked."""
    own, shared = root / SETTINGS_FILE, root / PYPROJECT
    if own.is_file() and has_table(shared):
        detail = f"{SETTINGS_FILE} and the table [tool.batchops] of {PYPROJECT} both hold settings. Keep one of them."
        raise BatchopsError(error("two_settings_files", "Settings in two files.", detail))
    if own.is_file():
        return SettingsFile(toml.parse(_text(own), SETTINGS_FILE), ())
    if has_table(shared):
        return SettingsFile(toml.parse(_text(shared), PYPROJECT), ("tool", "batchops"))
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as problem:
        detail = f'"{path.name}" is not UTF-8: byte {problem.start + 1} does not fit.'
        raise BatchopsError(error("invalid_toml", "Invalid TOML.", detail)) from problem


def file_layer(file: SettingsFile | None) -> Layer:
    """The settings file as a layer; origins are `batchops.toml:3`."""
    if file is None:
        return Layer()

    def origin(path: tuple[str, ...]) -> str:
        place = file.place(path)
        return f"{file.document.filename}:{place.key.start.line}" if place else file.document.filename

    return Layer(file.values, {path: origin(path) for path in leaf_paths(file.values)})


def read_dotenv(root: Path) -> tuple[dict[str, str], tuple[Diagnostic, ...]]:
    """The variables of `.env`, as they are written: `$OTHER` is not expanded. A line that sets nothing is a warning.

    Raises BatchopsError when it is not UTF-8. No line is quoted: it may hold a secret.
    """
    path = root / ".env"
    if not path.is_file():
        return {}, ()
    from dotenv.parser import parse_stream  # noqa: PLC0415  most projects have no .env

    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        detail = f'".env": byte {problem.start + 1} does not fit. Save the file as UTF-8.'
        raise BatchopsError(error("file_encoding", "The file is not UTF-8.", detail)) from None
    bindings = list(parse_stream(StringIO(text)))
    unread = tuple(_unread(binding.original.line) for binding in bindings if binding.error)
    return {b.key: b.value for b in bindings if b.key is not None and b.value is not None}, unread


def _unread(line: int) -> Diagnostic:
    detail = f"Line {line} of .env sets nothing. Write NAME=value, or # before a remark."
    return warning("dotenv_syntax", "Not a variable.", detail)


def variable_layer(variables: Mapping[str, str], *, origin: str | None = None) -> tuple[Layer, tuple[Diagnostic, ...]]:
    """The `BATCHOPS_*` variables as a layer, and a warning for each that is no setting.

    Nested names are joined by two underscores: `BATCHOPS_POLL__INITIAL`. An empty variable counts as not set. The
    origin of a leaf is the variable's name, or `origin`.
    """
    layers, warnings = [], []
    for name in sorted(variables):
        if not name.startswith(PREFIX) or name in NOT_SETTINGS or not variables[name]:
            continue
        if not _is_setting(path := tuple(name.removeprefix(PREFIX).lower().split("__"))):
            warnings.append(_unknown_variable(name, path))
            continue
        values = _decode(name, variables[name])
        layers.append(Layer(values, dict.fromkeys(leaf_paths(values), origin or name)))
    return lay_over(layers), tuple(warnings)


def _is_setting(path: tuple[str, ...]) -> bool:
    known = (names_at(path[:depth]) for depth in range(len(path)))
    return all(names is None or part in names for part, names in zip(path, known, strict=True))


def _decode(name: str, text: str) -> Mapping[str, Any]:
    from batchops.settings.variables import decode_variable  # noqa: PLC0415  it doubles the start-up of every verb

    try:
        return decode_variable(name, text)
    except ValueError as problem:
        detail = f"{name} stands for a whole table, so its value must be a JSON object."
        raise BatchopsError(error("invalid_setting", "Invalid setting.", detail)) from problem


def _unknown_variable(name: str, path: tuple[str, ...]) -> Diagnostic:
    depth = next(d for d in range(len(path)) if not _is_setting(path[: d + 1]))
    near = [PREFIX + "__".join((*path[:depth], other)).upper() for other in sorted(names_at(path[:depth]) or ())]
    detail = f"No setting is called {name}, so it changes nothing.{did_you_mean(name, near)}"
    return warning("unknown_variable", "Unknown variable.", detail)


def flag_layer(flags: Mapping[str, object]) -> Layer:
    """Values given by flags, by dotted key; the flag carries the last part's name."""
    layers = []
    for key, value in flags.items():
        path = tuple(key.split("."))
        values: Any = value
        for part in reversed(path):
            values = {part: values}
        layers.append(Layer(values, {path: f"--{path[-1].replace('_', '-')}"}))
    return lay_over(layers)


def lay_over(layers: Iterable[Layer]) -> Layer:
    """One layer out of several, the last the strongest; tables are merged, everything else is replaced."""
    values: dict[str, Any] = {}
    origins: dict[tuple[str, ...], str] = {}
    for layer in layers:
        values = _merged(values, layer.values)
        origins |= layer.origins
    return Layer(values, origins)


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        both_tables = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both_tables else value
    return merged


def leaf_paths(values: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of everything that is not a table."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaf_paths(value, (*above, key))
        else:
            yield (*above, key)
