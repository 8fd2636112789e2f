"""Project settings: flags, `BATCHOPS_*`, `.env`, batchops.toml or [tool.batchops], defaults, strongest first."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from batchops.units import Count, Duration, Size, parse_duration


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StateSettings(Section):
    url: str = "state/batchops.duckdb"


class BudgetSettings(Section):
    max_cost_usd: float | None = Field(default=None, ge=0)


class PriceSettings(Section):
    """USD per million tokens, as billed in a batch."""

    input: float = Field(ge=0)
    output: float = Field(default=0, ge=0)
    cached: float | None = Field(default=None, ge=0)


class ModelSettings(Section):
    max_enqueued_tokens: Count | None = None
    price: PriceSettings | None = None


class ProviderSettings(Section):
    kind: Literal["openai", "local"]
    base_url: str | None = None
    api_key: str | None = Field(default=None, repr=False)
    organization: str | None = None
    project: str | None = None
    models: dict[str, ModelSettings] = Field(default_factory=dict)
    max_requests: int | None = Field(default=None, ge=1)
    max_bytes: Size | None = Field(default=None, ge=1)
    timeout: Duration = parse_duration("10m")


class PollSettings(Section):
    initial: Duration = parse_duration("1s")
    max: Duration = parse_duration("60s")


class SubmitSettings(Section):
    settle_grace: Duration = parse_duration("60s")
    parallel_uploads: int = Field(default=4, ge=1, le=64)


class EnvironmentSettings(Section):
    provider: str | None = None
    limit: int | None = Field(default=None, ge=1)


class Settings(Section):
    project: str | None = None
    provider: str = "openai"
    required_version: str | None = None
    state: StateSettings = StateSettings()
    budget: BudgetSettings = BudgetSettings()
    providers: dict[str, ProviderSettings] = Field(default_factory=dict)
    poll: PollSettings = PollSettings()
    submit: SubmitSettings = SubmitSettings()
    environments: dict[str, EnvironmentSettings] = Field(default_factory=dict)
