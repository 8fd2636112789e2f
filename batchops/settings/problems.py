"""What pydantic found wrong → diagnostics at the line of the settings file, or named by the variable it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from batchops.diagnostics import Diagnostic, did_you_mean, error
from batchops.settings.model import dotted, names_at
from batchops.settings.sources import SettingsFile

Path = tuple[str | int, ...]


def diagnose(
    problem: ValidationError, origins: Mapping[tuple[str, ...], str], file: SettingsFile | None
) -> list[Diagnostic]:
    """Every problem of `problem` as a diagnostic, sorted by place."""
    found = [_diagnose(dict(details), origins, file) for details in problem.errors(include_url=False)]
    return sorted(found, key=lambda diagnostic: diagnostic.place)


def _diagnose(details: dict[str, Any], origins: Mapping[tuple[str, ...], str], file: SettingsFile | None) -> Diagnostic:
    path: Path = tuple(part for part in details["loc"] if part != "[key]")
    match details["type"]:
        case "extra_forbidden":
            found = _unknown(path)
        case "literal_secret":
            found = _literal_secret(path)
        case _:
            found = _invalid(path, details)
    is_key = details["type"] in {"extra_forbidden", "missing"} or "[key]" in details["loc"]
    return place(found, path, origins, file, at_key=is_key)


def _unknown(path: Path) -> Diagnostic:
    table, name = tuple(str(part) for part in path[:-1]), str(path[-1])
    where = f"of [{dotted(table)}]" if table else "of the settings"
    detail = f'"{name}" is not a key {where}.{did_you_mean(name, sorted(names_at(table) or ()))}'
    return error("unknown_setting", "Unknown setting.", detail)


def _literal_secret(path: Path) -> Diagnostic:
    detail = (
        f'"{dotted(path)}" holds a secret. Secrets are only ever named: api_key = "env:NAME" reads the environment '
        "variable NAME, which may stand in .env. If this one was committed or shared, revoke it."
    )
    return error("literal_secret", "Literal secret.", detail)


def _invalid(path: Path, details: dict[str, Any]) -> Diagnostic:
    message = str(details["msg"]).removeprefix("Value error, ")
    match details["type"]:
        case "missing":
            said = f"is missing.{' Kinds are openai, azure and local.' if path[-1] == 'kind' else ''}"
        case "literal_error":
            expected = str(details["ctx"]["expected"])
            said = f"must be {expected}.{did_you_mean(str(details['input']), expected.split(chr(39)))}"
        case "string_pattern_mismatch":
            said = "is no name: names are lower-case letters, digits, - and _, at most 63, a letter or digit first."
        case _:
            said = f"{message[:1].lower()}{message[1:]}.".replace("input should be", "must be")
    return error("invalid_setting", "Invalid setting.", f'"{dotted(path)}" {said}')


def place(
    found: Diagnostic, path: Path, origins: Mapping[tuple[str, ...], str], file: SettingsFile | None, *, at_key: bool
) -> Diagnostic:
    """`found` at its line of the settings file; a diagnostic about a variable names the variable instead."""
    origin = origins.get(tuple(str(part) for part in path))
    spot = file.place(path) if file else None
    if origin and not (file and origin.startswith(file.document.filename)):
        return replace(found, detail=f"{found.detail} It comes from {origin}.")
    if file is None or spot is None:
        return found
    location = spot.key if at_key or spot.value is None else spot.value
    return found.at(location, file.document.line(location.start.line))
