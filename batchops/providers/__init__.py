"""Who answers: the port, and adapters for services that speak the Files+Batches API. Adapters load lazily."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchops.providers.provider import Provider, ProviderContext

PROVIDERS = {
    "openai": "batchops.providers.openai:connect",
    "azure": "batchops.providers.azure:connect",
    "local": "batchops.providers.local:connect",
}


def connect(context: ProviderContext) -> Provider:
    """The provider that `context.settings.kind` names. Importing an adapter may take a second: call it late."""
    module, _, function = PROVIDERS[context.settings.kind].partition(":")
    provider: Provider = getattr(importlib.import_module(module), function)(context)
    return provider
