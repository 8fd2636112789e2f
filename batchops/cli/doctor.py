"""`batchops doctor`: versions, every setting and where it came from, credentials, state integrity.

It says as much as it can: a project that cannot be loaded still has versions, and a problem is told at the end.
Secrets are never printed, only whether they are set.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any

import click

from batchops import __version__
from batchops.cli.options import Invocation, shared_options
from batchops.diagnostics import BatchopsError, Diagnostic, Severity, diagnostic_document, prevailing

if TYPE_CHECKING:
    from batchops.settings import LoadedSettings

LIBRARIES = ("duckdb", "openai", "pydantic", "jinja2", "ruamel.yaml", "click", "rich")
_VARIABLES = {
    "openai": ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"),
    "azure": ("AZURE_OPENAI_ENDPOINT", "OPENAI_API_VERSION"),
}


@dataclass
class Findings:
    """What doctor found so far."""

    versions: Mapping[str, str]
    project: dict[str, str] = field(default_factory=dict)
    settings: list[dict[str, Any]] = field(default_factory=list)
    credentials: list[dict[str, Any]] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    problems: list[Diagnostic] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)


@click.command("doctor")
@shared_options(json=True)
def command(invocation: Invocation) -> int:
    """Print versions, settings with their origins, which credentials are set, and whether the state is sound."""
    found = Findings(versions(invocation))
    try:
        _look_at_project(found, invocation)
    except BatchopsError as problem:
        found.problems += problem.diagnostics
        found.codes.append(problem.exit_code)
    if invocation.json:
        invocation.out(_document(found))
    else:
        invocation.out(_text(found))
        _tell(found.problems, invocation)
    has_errors = any(problem.severity is Severity.ERROR for problem in found.problems)
    return prevailing([*found.codes, int(has_errors)])


def versions(invocation: Invocation) -> dict[str, str]:
    """What is installed, without importing it."""
    installed = {name: metadata.version(name) for name in LIBRARIES}
    return {"batchops": __version__, "python": platform.python_version(), "platform": platform.platform(), **installed}


def _look_at_project(found: Findings, invocation: Invocation) -> None:
    found.project["root"] = str(invocation.root)
    loaded = invocation.loaded
    found.project |= {"name": loaded.settings.project or "", "environment": loaded.environment}
    found.settings = list(_settings(loaded))
    found.credentials = list(_credentials(loaded))
    found.problems += loaded.warnings
    _look_at_state(found, loaded, invocation)


def _settings(loaded: LoadedSettings) -> Iterator[dict[str, Any]]:
    from datetime import timedelta

    from batchops.settings.model import dotted, leaves
    from batchops.units import format_duration

    for path, value in leaves(loaded.settings):
        key = dotted(path)
        shown = format_duration(value) if isinstance(value, timedelta) else value
        yield {"key": key, "value": shown, "origin": loaded.origins[key]}


def _credentials(loaded: LoadedSettings) -> Iterator[dict[str, Any]]:
    """Which variables the providers read, and whether they are set."""
    from batchops.providers.credentials import key_variable

    for name, provider in loaded.settings.providers.items():
        if provider.kind == "local":
            continue
        for variable in (key_variable(provider), *_VARIABLES[provider.kind]):
            yield {"provider": name, "variable": variable, "set": bool(loaded.environ.get(variable))}


def _look_at_state(found: Findings, loaded: LoadedSettings, invocation: Invocation) -> None:
    from batchops.store.footprint import footprint  # it needs DuckDB
    from batchops.store.integrity import find_damage
    from batchops.store.lease import current_holder
    from batchops.store.store import StateReader
    from batchops.views.footprint import footprint_document

    url = loaded.settings.state.url
    reader = StateReader(invocation.root / url)
    found.state = {"url": url, "exists": reader.exists}
    if not reader.exists:
        return
    identity, holder = reader.identity(), current_holder(reader.path)
    found.state |= {
        "lineage": identity.lineage,
        "serial": identity.serial,
        **footprint_document(footprint(reader)),
        "leased_by": f"{holder.holder} on {holder.host}, process {holder.pid}" if holder else None,
    }
    damage = find_damage(reader)
    found.state["sound"] = not damage
    found.problems += damage


def _document(found: Findings) -> str:
    errors = sum(problem.severity is Severity.ERROR for problem in found.problems)
    document = {
        "format_version": "1.0",
        "valid": errors == 0,
        "error_count": errors,
        "warning_count": len(found.problems) - errors,
        "versions": found.versions,
        "project": found.project,
        "settings": found.settings,
        "credentials": found.credentials,
        "state": found.state,
        "diagnostics": [diagnostic_document(problem) for problem in found.problems],
    }
    return json.dumps(document, ensure_ascii=False)


def _text(found: Findings) -> str:
    blocks = [_pairs("Versions", found.versions), _pairs("Project", found.project)]
    rows = [(row["key"], _value(row["value"]), row["origin"]) for row in found.settings]
    blocks.append(_table("Settings", rows))
    credentials = [(row["provider"], row["variable"], "set" if row["set"] else "not set") for row in found.credentials]
    blocks.append(_table("Credentials", credentials))
    blocks.append(_pairs("State", {name: _value(value) for name, value in found.state.items()}))
    return "\n\n".join(block for block in blocks if block)


def _pairs(title: str, pairs: Mapping[str, str]) -> str:
    return _table(title, list(pairs.items()))


def _table(title: str, rows: Sequence[tuple[str, ...]]) -> str:
    from batchops.terminal import cells, pad, visible

    if not rows:
        return ""
    shown = [tuple(visible(cell) for cell in row) for row in rows]
    widths = [max(cells(row[column]) for row in shown) for column in range(len(shown[0]))]
    lines = ["  ".join(pad(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]
    return "\n".join([title, *(f"  {line}" for line in lines)])


def _value(value: object) -> str:
    words = {None: "-", True: "yes", False: "no"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def _tell(problems: list[Diagnostic], invocation: Invocation) -> None:
    from batchops.views.diagnostics import render_text

    if problems:
        sys.stdout.flush()
        invocation.note(render_text(problems, color=invocation.colors(sys.stderr)))
