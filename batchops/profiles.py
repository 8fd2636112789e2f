"""What is known of each service that speaks the Files+Batches API: limits, windows, endpoints. Pure data.

The client plans and submits by it and the embedded server can behave like it, so that both know the same facts. Facts
are of 2026-11, from the services' documentation, their SDKs and recorded replies; docs/providers.md shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from batchops.settings import ProviderSettings
from batchops.units import parse_duration

CHAT: Final = "/v1/chat/completions"
RESPONSES: Final = "/v1/responses"
EMBEDDINGS: Final = "/v1/embeddings"
MODERATIONS: Final = "/v1/moderations"
COMPLETIONS: Final = "/v1/completions"

_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_REFERENCE: Final = "env:"


@dataclass(frozen=True, slots=True)
class Profile:
    """What a service allows and how it differs; the defaults are OpenAI's (batch guide, OpenAPI text, 2026-08).

    Sizes are in bytes. What nobody has shown of a service is assumed to its disadvantage.
    """

    name: str = "openai"
    hosts: tuple[str, ...] = ()
    """Hosts, or their ends after a dot, that this service is known by."""
    max_requests: int = 50_000
    max_bytes: int = 200_000_000
    max_embedding_inputs: int = 50_000
    max_batches_per_hour: int = 2_000
    windows: tuple[str, ...] = ("24h",)
    longest_window: str | None = None
    """With it, every whole number of hours or days from the first of `windows` up to it is a window too."""
    endpoints: tuple[str, ...] = (CHAT, RESPONSES, EMBEDDINGS, MODERATIONS, COMPLETIONS)
    paths: Mapping[str, str] = field(default_factory=lambda: _NONE)
    """How the service writes an endpoint, where it is another way than ours."""
    model_paths: Mapping[str, str] = field(default_factory=lambda: _NONE)
    """Models with a path of their own for chat."""
    multi_model: bool = False
    """One input file may ask several models."""
    supports_metadata: bool = True
    """Metadata of a batch comes back as it was sent, perhaps with more: a batch can be found by it."""
    delete_revokes: bool = True
    """Deleting the input file makes a batch that is created later fail unpaid."""
    output_expiry_seconds: tuple[int, int] | None = (3_600, 2_592_000)
    """From and to, for `output_expires_after`; None: the service does not know it."""
    names_model_at_upload: bool = False
    """The gateway wants to be told the model of an upload (`x-litellm-model`), to know where the file goes."""

    def path(self, endpoint: str, model: str) -> str:
        """An endpoint as this service writes it, in lines and when a batch is created."""
        if endpoint == CHAT and model in self.model_paths:
            return self.model_paths[model]
        return self.paths.get(endpoint, endpoint)

    def endpoint(self, path: str) -> str:
        """Our name for what this service calls `path`."""
        if path in self.model_paths.values():
            return CHAT
        return next((ours for ours, theirs in self.paths.items() if theirs == path), path)

    def offers_window(self, window: str) -> bool:
        """Whether a completion window, such as `24h`, may be asked for."""
        if window in self.windows:
            return True
        if self.longest_window is None:
            return False
        try:
            return parse_duration(self.windows[0]) <= parse_duration(window) <= parse_duration(self.longest_window)
        except ValueError:
            return False

    @property
    def shown_windows(self) -> str:
        """The windows in words."""
        if self.longest_window is not None:
            return f"{self.windows[0]} to {self.longest_window}"
        return " and ".join(self.windows)


_UNPROVEN = Profile(delete_revokes=False, output_expiry_seconds=None)
"""A service of which nobody has shown what a deleted input file does, and that documents no expiry of answers."""

PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(hosts=("api.openai.com",)),
            replace(
                _UNPROVEN,
                name="azure",
                hosts=("openai.azure.com", "cognitiveservices.azure.com", "services.ai.azure.com"),
                max_requests=100_000,
                endpoints=(CHAT, RESPONSES, EMBEDDINGS),
                # Jobs longer than the window go on there; answers live 14 to 30 days.
                output_expiry_seconds=(1_209_600, 2_592_000),
            ),
            replace(
                _UNPROVEN,
                name="groq",
                hosts=("api.groq.com",),
                max_bytes=100_000_000,
                longest_window="7d",
                endpoints=(CHAT,),
            ),
            replace(
                _UNPROVEN,
                name="dashscope",
                hosts=("dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com", "dashscope-us.aliyuncs.com"),
                max_bytes=500_000_000,
                longest_window="336h",
                endpoints=(CHAT, EMBEDDINGS),
                model_paths=MappingProxyType({"batch-test-model": "/v1/chat/ds-test"}),  # free, for a first try
                supports_metadata=False,  # documents its own ds_* keys alone
            ),
            replace(
                _UNPROVEN,
                name="nebius",
                hosts=("nebius.com",),
                max_requests=5_000_000,
                max_bytes=10_000_000_000,
                endpoints=(CHAT, EMBEDDINGS),
            ),
            replace(
                _UNPROVEN,
                name="moonshot",
                hosts=("api.moonshot.ai", "api.moonshot.cn"),
                max_bytes=100_000_000,
                windows=("12h",),
                longest_window="7d",
                endpoints=(CHAT,),
            ),
            replace(
                _UNPROVEN,
                name="doubleword",
                hosts=("api.doubleword.ai",),
                windows=("24h", "1h"),
                endpoints=(CHAT, RESPONSES, EMBEDDINGS, COMPLETIONS),
                multi_model=True,
            ),
            replace(
                _UNPROVEN,
                name="parasail",
                hosts=("api.parasail.io",),
                max_bytes=500_000_000,
                endpoints=(CHAT, EMBEDDINGS),
                multi_model=True,
            ),
            # A batch whose input file is missing or deleted fails there before anything is asked (measured, ogx 1.5.0).
            replace(
                _UNPROVEN, name="ogx", endpoints=(CHAT, COMPLETIONS, EMBEDDINGS), multi_model=True, delete_revokes=True
            ),
            replace(
                _UNPROVEN,
                name="litellm",
                endpoints=(CHAT, RESPONSES, EMBEDDINGS, COMPLETIONS),
                names_model_at_upload=True,
            ),
        )
    }
)
"""By name. `ogx` and `litellm` run at home under any host, so they are chosen by `profile` alone."""

CLASSIC_AZURE: Final = MappingProxyType({CHAT: "/chat/completions", EMBEDDINGS: "/embeddings"})
"""The paths of Azure's classic surface."""


def profile_of(settings: ProviderSettings, environ: Mapping[str, str]) -> Profile:
    """The profile of a provider, without connecting: as it says, else by its host, else OpenAI's; limits as set.

    `environ` is where `env:` references and the SDK's own variables are looked up.
    """
    known = PROFILES[_name(settings, environ)]
    if settings.kind == "azure" and not (base_url(settings, environ) or "").rstrip("/").endswith("/v1"):
        known = replace(known, paths=CLASSIC_AZURE)
    return replace(
        known,
        max_requests=settings.max_requests or known.max_requests,
        max_bytes=settings.max_bytes or known.max_bytes,
        max_batches_per_hour=settings.max_batches_per_hour or known.max_batches_per_hour,
    )


def _name(settings: ProviderSettings, environ: Mapping[str, str]) -> str:
    if settings.profile is not None:
        return settings.profile
    if settings.kind != "openai":
        return "azure" if settings.kind == "azure" else "openai"
    return guess(base_url(settings, environ) or "")


def guess(url: str) -> str:
    """The service whose host stands in a base URL; `openai` where it is none that is known."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return "openai"
    for profile in PROFILES.values():
        if any(host == known or host.endswith(f".{known}") for known in profile.hosts):
            return profile.name
    return "openai"


_URL_VARIABLES: Final = MappingProxyType({"openai": "OPENAI_BASE_URL", "azure": "AZURE_OPENAI_ENDPOINT"})


def base_url(settings: ProviderSettings, environ: Mapping[str, str]) -> str | None:
    """Where the provider is, as far as settings and environment say; an unset reference is none."""
    written = settings.base_url
    variable = _URL_VARIABLES.get(settings.kind, "") if not written else written.removeprefix(_REFERENCE)
    if written and not written.startswith(_REFERENCE):
        return written
    return environ.get(variable, "").strip() or None
