"""One environment variable → the tree of settings it stands for, by the rules of pydantic-settings.

Imported only when a `BATCHOPS_*` variable is set: the library costs more than everything else a small command does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from batchops.settings.model import Settings


class _Variables(Settings, BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="BATCHOPS_", env_nested_delimiter="__", extra="forbid", frozen=True, title="variables"
    )


class _OneVariable(EnvSettingsSource):
    """The library's source over one given variable instead of the whole process environment."""

    def __init__(self, name: str, text: str) -> None:
        self._given = {name.lower(): text}
        super().__init__(_Variables)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return dict(self._given)


def decode_variable(name: str, text: str) -> Mapping[str, Any]:
    """`BATCHOPS_POLL__INITIAL`, `2s` → `{"poll": {"initial": "2s"}}`. Raises ValueError for a table that is no JSON."""
    return _OneVariable(name, text)()
