"""What may be set, with its types and defaults. Knows no file and no environment.

Values are frozen. A secret is only ever a reference (`env:NAME`): the model itself refuses anything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from batchops.units import Count, Duration, Size, parse_duration

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_USER_INFORMATION = re.compile(r"://[^/@]*@")
_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*\Z")


def _is_reference(value: str) -> str:
    if not _REFERENCE.match(value):
        raise PydanticCustomError("literal_secret", "a secret is written as a reference")
    return value


def _has_no_password(url: str) -> str:
    if _USER_INFORMATION.search(url):
        raise PydanticCustomError("literal_secret", "a password is not part of an address")
    return url


Address = Annotated[str, AfterValidator(_has_no_password)]
"""An address without a user's name and password in it."""


def is_web_address(text: str) -> bool:
    """Whether a text is an http(s) URL with a host."""
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _leads_to_a_service(url: str) -> str:
    if url and not _REFERENCE.match(url) and not is_web_address(url):
        raise PydanticCustomError("address", "must be an address up to the version, such as https://api.openai.com/v1")
    return url


ServiceAddress = Annotated[Address, AfterValidator(_leads_to_a_service)]
"""The address of a service, or `env:NAME`, the variable that holds it."""

SecretReference = Annotated[str, AfterValidator(_is_reference)]
"""`env:NAME`: the name of the environment variable that holds a secret."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class Section(BaseModel):
    """A table of the settings file: unknown keys are errors, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _local_file(url: str) -> str:
    if "://" in url:
        raise PydanticCustomError("local_file", "only a local file is supported yet, such as state/batchops.duckdb")
    return url


class StateSettings(Section):
    url: Annotated[Address, AfterValidator(_local_file)] = Field(default="state/batchops.duckdb", min_length=1)
    keep_attempts: Duration | None = None
    keep_events: Duration | None = None


class BudgetSettings(Section):
    max_cost_usd: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class PriceSettings(Section):
    """USD per million tokens, as billed in a batch."""

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(default=0, ge=0, allow_inf_nan=False)
    cached: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class ModelSettings(Section):
    max_enqueued_tokens: Count | None = None
    price: PriceSettings | None = None


ProfileName = Literal[
    "openai", "azure", "groq", "dashscope", "nebius", "moonshot", "doubleword", "parasail", "ogx", "litellm"
]
"""The services whose limits and ways are known; `batchops.profiles` says what they are."""


class ProviderSettings(Section):
    kind: Literal["openai", "local", "azure"]
    profile: ProfileName | None = None
    base_url: ServiceAddress | None = None
    api_version: str | None = Field(default=None, min_length=1)
    api_key: SecretReference | None = Field(default=None, repr=False)
    organization: str | None = None
    project: str | None = None
    models: dict[str, ModelSettings] = Field(default_factory=dict)
    max_requests: int | None = Field(default=None, ge=1)
    max_bytes: Size | None = Field(default=None, ge=1)
    max_batches_per_hour: int | None = Field(default=None, ge=1)
    timeout: Duration = parse_duration("10m")


class PollSettings(Section):
    max: Duration = parse_duration("60s")
    initial: Duration = parse_duration("1s")

    @field_validator("initial")
    @classmethod
    def _is_at_most_the_last(cls, initial: timedelta, others: ValidationInfo) -> timedelta:
        if initial > others.data.get("max", initial):
            raise PydanticCustomError("backoff", "is longer than poll.max, which polling backs off to: raise that too")
        return initial


class SubmitSettings(Section):
    settle_grace: Duration = parse_duration("60s")
    parallel_uploads: int = Field(default=4, ge=1, le=64)


class EnvironmentSettings(Section):
    provider: str | None = None
    limit: int | None = Field(default=None, ge=1)


class Settings(Section):
    """The whole of batchops.toml. `load_settings` makes one from every source; see docs/settings.md."""

    project: str | None = Field(default=None, min_length=1)
    provider: str = "openai"
    required_version: str | None = None
    state: StateSettings = StateSettings()
    budget: BudgetSettings = BudgetSettings()
    providers: dict[Name, ProviderSettings] = Field(default_factory=dict)
    poll: PollSettings = PollSettings()
    submit: SubmitSettings = SubmitSettings()
    environments: dict[Name, EnvironmentSettings] = Field(default_factory=dict)


def names_at(path: tuple[str, ...]) -> frozenset[str] | None:
    """The keys that may stand in the table at `path`; None where any name may; nothing below a plain value."""
    found: Any = Settings
    for part in path:
        found = _below(found, part)
    if get_origin(found) is dict:
        return None
    return frozenset(found.model_fields) if isinstance(found, type) and issubclass(found, Section) else frozenset()


def _below(annotation: Any, part: str) -> Any:
    """The type of `part` in a table or mapping of type `annotation`."""
    if get_origin(annotation) is dict:
        return get_args(annotation)[1]
    if isinstance(annotation, type) and issubclass(annotation, Section) and part in annotation.model_fields:
        inner = annotation.model_fields[part].annotation
        tables = [a for a in get_args(inner) if isinstance(a, type) and issubclass(a, Section)]
        return tables[0] if tables and get_origin(inner) is not dict else inner
    return None


def leaves(settings: Section, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every plain setting with its path, defaults too."""
    for name in type(settings).model_fields:
        yield from _leaves_of(getattr(settings, name), (*above, name))


def _leaves_of(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    if isinstance(value, Section):
        yield from leaves(value, path)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves_of(inner, (*path, name))
    else:
        yield path, value


def dotted(path: Iterable[str | int]) -> str:
    """A path as TOML writes it: `providers.openai.models."gpt-4.1".price`."""
    return ".".join(str(part) if _BARE.fullmatch(str(part)) else f'"{part}"' for part in path)
