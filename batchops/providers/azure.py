"""Azure OpenAI's classic surface, through the SDK's own AzureOpenAI client: `{resource}/openai/batches?api-version=…`.

Everything else is the openai adapter's. A base URL that ends in /v1 is Azure's newer surface, which the plain client
speaks.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import httpx2
import openai

from batchops.profiles import profile_of
from batchops.providers.credentials import Credentials, credentials
from batchops.providers.openai import OpenAIProvider, plain_client
from batchops.providers.provider import ProviderContext

API_VERSION: Final = "2024-10-21"
"""The generally available version with files and batches, where neither settings nor environment name another."""


def connect(context: ProviderContext) -> OpenAIProvider:
    """A client of the Azure resource that settings and environment name."""
    access = credentials(context)
    settings, environ = context.settings, context.environ
    version = settings.api_version or environ.get("OPENAI_API_VERSION", "").strip() or API_VERSION
    is_classic = not access.base_url.rstrip("/").endswith("/v1")
    return OpenAIProvider(
        context.name,
        settings,
        access,
        profile=profile_of(settings, environ),
        make_client=partial(azure_client, version=version) if is_classic else plain_client,
    )


def azure_client(access: Credentials, transport: httpx2.Client, *, version: str) -> openai.AzureOpenAI:
    """The SDK's Azure client of a resource, with its own retries off."""
    return openai.AzureOpenAI(
        azure_endpoint=access.base_url.rstrip("/").removesuffix("/openai"),
        api_version=version,
        api_key=access.api_key,
        organization=access.organization,
        max_retries=0,
        timeout=transport.timeout,
        http_client=transport,
    )
