"""Which source wins: flags, `BATCHOPS_*`, `.env`, batchops.toml or [tool.batchops], defaults, strongest first.

The sources are laid over each other and checked once, so that every mistake is found in one run and named at its own
place. Secrets are never looked up here: a reference stays a reference, and the environment it points into is handed
on as `LoadedSettings.environ`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from batchops import __version__
from batchops.diagnostics import BatchopsError, Diagnostic, UsageProblem, did_you_mean, error
from batchops.settings.model import ProviderSettings, Settings, dotted, leaves
from batchops.settings.problems import diagnose, place
from batchops.settings.sources import (
    SETTINGS_FILE,
    Layer,
    SettingsFile,
    file_layer,
    flag_layer,
    has_table,
    lay_over,
    read_dotenv,
    read_settings_file,
    variable_layer,
)

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

DEFAULT = "default"
"""The origin of what nobody set, and the name of the environment that nobody chose."""

KINDS = ("openai", "local", "azure")
"""Every kind of provider; one of each exists without being declared, under the same name."""


@dataclass(frozen=True)
class LoadedSettings:
    """Settings, and where each came from.

    `origins` maps a dotted key (`poll.initial`) to `default`, `batchops.toml:3`, `pyproject.toml:12`, `.env`, the name
    of an environment variable, or a flag. `environ` is the process environment with `.env` underneath; `env:`
    references are looked up there. `warnings` are names in it that look like settings and are none.
    """

    settings: Settings
    origins: Mapping[str, str]
    environ: Mapping[str, str] = field(repr=False)
    environment: str = DEFAULT
    warnings: tuple[Diagnostic, ...] = ()

    @property
    def limit(self) -> int | None:
        """At most so many rows of each job, in this environment."""
        chosen = self.settings.environments.get(self.environment)
        return chosen.limit if chosen else None

    @property
    def provider(self) -> ProviderSettings:
        """The default provider of the jobs."""
        return self.settings.providers[self.settings.provider]


def find_root(directory: Path) -> Path:
    """The nearest folder upwards with batchops.toml, a [tool.batchops] table or jobs/, absolute."""
    start = directory.resolve()
    for folder in (start, *start.parents):
        if (folder / SETTINGS_FILE).is_file() or (folder / "jobs").is_dir() or has_table(folder / "pyproject.toml"):
            return folder
    detail = f'Neither "{start}" nor a folder above it has {SETTINGS_FILE}, a [tool.batchops] table or jobs/.'
    raise BatchopsError(error("no_project", "No project.", detail, fixes=["batchops init"]))


def load_settings(
    root: Path, *, environ: Mapping[str, str], env: str | None = None, flags: Mapping[str, object] | None = None
) -> LoadedSettings:
    """Read every source of the project at `root`. `flags` maps dotted keys to values, `env` is what --env said.

    Raises BatchopsError with every problem of every source; UsageProblem for an environment that is not declared.
    """
    file = read_settings_file(root)
    dotenv, unread = read_dotenv(root)
    from_dotenv, dotenv_warnings = variable_layer(dotenv, origin=".env")
    from_environ, environ_warnings = variable_layer(environ)
    stronger = lay_over([from_dotenv, from_environ, flag_layer(flags or {})])
    layer = lay_over([_built_in(), file_layer(file), stronger])
    _check_version(layer, file)
    settings = _validated(layer, file)
    _check_state(root / settings.state.url)
    merged = {**dotenv, **environ}
    environment = _chosen(env or merged.get("BATCHOPS_ENV") or DEFAULT, settings)
    _check_providers(settings, layer, file)
    settings, origins = _entered(environment, settings, layer, has_flag=("provider",) in stronger.origins)
    return LoadedSettings(
        settings=settings.model_copy(update={"project": settings.project or root.resolve().name}),
        origins={dotted(path): origins.get(path, DEFAULT) for path, _ in leaves(settings)},
        environ=merged,
        environment=environment,
        warnings=(*unread, *dotenv_warnings, *environ_warnings),
    )


def _built_in() -> Layer:
    return Layer({"providers": {kind: {"kind": kind} for kind in KINDS}})


def _validated(layer: Layer, file: SettingsFile | None) -> Settings:
    values = dict(layer.values)
    try:
        return Settings.model_validate(values)
    except ValidationError as problem:
        # Not chained: pydantic's text holds the values it refused, and one of them may be a secret.
        raise BatchopsError(*diagnose(problem, layer.origins, file)) from None


def _check_state(path: Path) -> None:
    """DuckDB reads `?` in the path of a database as the beginning of parameters, and a backslash as a slash."""
    if found := [mark for mark in "?\\" if mark in str(path)]:
        detail = f"A state cannot lie at {path}: DuckDB opens no file with {found[0]} in its path. Rename the folder."
        raise BatchopsError(error("unusable_path", "Unusable path.", detail))


def _chosen(environment: str, settings: Settings) -> str:
    if environment == DEFAULT or environment in settings.environments:
        return environment
    known = [DEFAULT, *settings.environments]
    detail = f'"{environment}" is not declared. Environments are {", ".join(known)}.{did_you_mean(environment, known)}'
    raise UsageProblem(error("unknown_environment", "Unknown environment.", detail))


def _entered(
    environment: str, settings: Settings, layer: Layer, *, has_flag: bool
) -> tuple[Settings, Mapping[tuple[str, ...], str]]:
    """The settings inside an environment: its provider stands before the project's, behind variables and flags."""
    chosen = settings.environments.get(environment)
    if has_flag or chosen is None or chosen.provider is None:
        return settings, layer.origins
    origin = layer.origins["environments", environment, "provider"]
    return settings.model_copy(update={"provider": chosen.provider}), {**layer.origins, ("provider",): origin}


def _check_providers(settings: Settings, layer: Layer, file: SettingsFile | None) -> None:
    named: dict[tuple[str, ...], str] = {("provider",): settings.provider}
    for name, environment in settings.environments.items():
        if environment.provider is not None:
            named["environments", name, "provider"] = environment.provider
    found = []
    for path, provider in named.items():
        if provider not in settings.providers:
            known = sorted(settings.providers)
            detail = f'"{provider}" is not declared. Providers are {", ".join(known)}.{did_you_mean(provider, known)}'
            problem = error("unknown_provider", "Unknown provider.", detail)
            found.append(place(problem, path, layer.origins, file, at_key=False))
    if found:
        raise BatchopsError(*sorted(found, key=lambda diagnostic: diagnostic.place))


def _check_version(layer: Layer, file: SettingsFile | None) -> None:
    """Before anything else is checked: another version may know other keys."""
    wanted = layer.values.get("required_version")
    if not isinstance(wanted, str):
        return
    path = ("required_version",)
    specifiers = _specifiers(wanted)
    if specifiers is None:
        detail = f'"required_version" {wanted!r} is no version range; write one such as ">=0.3" or ">=0.3,<2".'
        problem = error("invalid_setting", "Invalid setting.", detail)
    elif not specifiers.contains(__version__, prereleases=True):
        detail = f"The project asks for batchops {wanted}, and this is {__version__}. Install a version that fits."
        problem = error("version_mismatch", "Version mismatch.", detail)
    else:
        return
    raise BatchopsError(place(problem, path, layer.origins, file, at_key=False))


def _specifiers(text: str) -> SpecifierSet | None:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # noqa: PLC0415  only a few projects pin it

    try:
        return SpecifierSet(text)
    except InvalidSpecifier:
        return None
