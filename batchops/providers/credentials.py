"""Where a service is and who asks: settings and environment → Credentials. Secrets come by reference alone."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from batchops.diagnostics import BatchopsError, error
from batchops.providers.provider import ProviderContext
from batchops.settings import ProviderSettings
from batchops.settings.model import is_web_address

OPENAI_URL: Final = "https://api.openai.com/v1"
_REFERENCE: Final = "env:"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client needs to speak to a service. The key is never printed."""

    base_url: str
    api_key: str = field(repr=False)
    organization: str | None = None
    project: str | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether the service is on this machine: no proxy stands between."""
        host = urlsplit(self.base_url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")


def key_variable(settings: ProviderSettings) -> str:
    """The environment variable that holds the provider's key."""
    reference = settings.api_key  # the settings model refuses anything but a reference
    if reference is not None:
        return reference.removeprefix(_REFERENCE)
    return "AZURE_OPENAI_API_KEY" if settings.kind == "azure" else "OPENAI_API_KEY"


def credentials(context: ProviderContext) -> Credentials:
    """From settings, else the SDK's own variables: OPENAI_BASE_URL, _API_KEY, _ORG_ID, _PROJECT_ID, or Azure's."""
    settings, environ = context.settings, context.environ
    return Credentials(
        base_url=_checked_url(_value(context, "base_url", settings.base_url) or _usual_url(context)),
        api_key=_api_key(context),
        organization=_value(context, "organization", settings.organization) or _unless_empty(environ, "OPENAI_ORG_ID"),
        project=_value(context, "project", settings.project) or _unless_empty(environ, "OPENAI_PROJECT_ID"),
    )


def _usual_url(context: ProviderContext) -> str:
    """Where a provider is that says nothing of it. Every Azure resource has an address of its own."""
    if context.settings.kind != "azure":
        return _unless_empty(context.environ, "OPENAI_BASE_URL") or OPENAI_URL
    return _unless_empty(context.environ, "AZURE_OPENAI_ENDPOINT") or ""


def _api_key(context: ProviderContext) -> str:
    name = key_variable(context.settings)
    return _checked_key(context, name, context.environ.get(name, "").strip())


def _checked_key(context: ProviderContext, name: str, key: str) -> str:
    if not key:
        raise BatchopsError(
            error(
                "missing_credentials",
                "No API key.",
                f"{name} is not set, and provider {context.name!r} needs it. Set it in the environment or in .env, or"
                f' write api_key = "env:NAME" under [providers.{context.name}]. A service on this machine needs one'
                ' too; any text will do. Simulated answers need none: provider = "local".',
            )
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise BatchopsError(
            error(
                "invalid_credentials",
                "Unusable API key.",
                f"{name}, for provider {context.name!r}, has a space, a line break or a character outside ASCII."
                " Copy the key again.",
            )
        )
    return key


def _checked_url(url: str) -> str:
    if not is_web_address(url):
        raise BatchopsError(
            error(
                "invalid_base_url",
                "Unusable base URL.",
                f"base_url is {url!r}. Write the address up to the version, such as {OPENAI_URL}; for Azure the"
                " resource's, such as https://NAME.openai.azure.com.",
            )
        )
    return url


def _value(context: ProviderContext, key: str, setting: str | None) -> str | None:
    """A setting that is not secret: a value, or `env:NAME`, which must then be set: never a silent default."""
    if setting is None or not setting.startswith(_REFERENCE):
        return setting or None
    name = setting.removeprefix(_REFERENCE)
    if (value := _unless_empty(context.environ, name)) is not None:
        return value
    raise BatchopsError(
        error(
            "unset_variable",
            "Environment variable not set.",
            f"{key} of provider {context.name!r} is {setting!r}, and {name} is not set in the environment or in .env.",
        )
    )


def _unless_empty(environ: Mapping[str, str], name: str) -> str | None:
    return environ.get(name, "").strip() or None
