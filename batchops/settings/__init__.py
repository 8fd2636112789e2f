"""Project settings: what may be set (`model`), where it is written (`toml`), and which source wins (`load`)."""

from batchops.settings.load import LoadedSettings, find_root, load_settings
from batchops.settings.model import (
    BudgetSettings,
    EnvironmentSettings,
    ModelSettings,
    PollSettings,
    PriceSettings,
    ProviderSettings,
    Settings,
    StateSettings,
    SubmitSettings,
)

__all__ = [
    "BudgetSettings",
    "EnvironmentSettings",
    "LoadedSettings",
    "ModelSettings",
    "PollSettings",
    "PriceSettings",
    "ProviderSettings",
    "Settings",
    "StateSettings",
    "SubmitSettings",
    "find_root",
    "load_settings",
]
