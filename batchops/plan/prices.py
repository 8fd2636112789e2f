"""What a model costs in a batch, by a dated table and the user's own prices. Unknown is None, never 0.

A simulated provider uses the same table: it shows the cost that the work would have had. Not counted: cache writes,
which models from gpt-5.6 on bill and batch lines do not report.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from batchops.request.answers import Usage
from batchops.settings import PriceSettings

LONG_PROMPT_TOKENS: Final = 272_000
"""Prompts with more tokens have prices of their own (price map of 2026-11)."""

_SNAPSHOT: Final = re.compile(r"-\d{4}-\d{2}-\d{2}\Z")


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens in a batch. `cached` is None where cached input costs what input costs."""

    input: float
    cached: float | None
    output: float
    long: Price | None = None
    """For prompts over LONG_PROMPT_TOKENS; None where they cost the same."""

    @property
    def is_free(self) -> bool:
        return self.input == self.output == 0

    def for_prompt(self, input_tokens: int) -> Price:
        """The price of a request with so long a prompt."""
        return self.long if self.long is not None and input_tokens > LONG_PROMPT_TOKENS else self


@dataclass(frozen=True, slots=True)
class PriceTable:
    """The shipped prices, the day they were read, and where."""

    as_of: str
    source: str
    models: Mapping[str, Price]


def price(model: str, settings_override: PriceSettings | None = None) -> Price | None:
    """The user's price, else the table's for the model or the family of a snapshot (`gpt-5-mini-2025-08-07`)."""
    if settings_override is not None:
        return Price(settings_override.input, settings_override.cached, settings_override.output)
    models = table().models
    return next((models[name] for name in _names(model) if name in models), None)


def cost_nano_usd(price: Price | None, usage: Usage) -> int | None:
    """The cost of one answered request in 10⁻⁹ USD; None where the price or the tokens are unknown.

    Reasoning tokens are inside output tokens. Cached tokens cost the cached rate where there is one.
    """
    if price is None:
        return None
    if price.is_free:
        return 0
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    tier = price.for_prompt(usage.input_tokens)
    cached = min(usage.cached_tokens or 0, usage.input_tokens)
    cached_rate = tier.input if tier.cached is None else tier.cached
    dollars_per_million = (usage.input_tokens - cached) * tier.input + cached * cached_rate
    return round((dollars_per_million + usage.output_tokens * tier.output) * 1000)


@functools.cache
def table() -> PriceTable:
    """The table beside this module."""
    raw = json.loads(Path(__file__).with_name("prices.json").read_text(encoding="utf-8"))
    return PriceTable(raw["as_of"], raw["source"], {name: _price(row) for name, row in raw["models"].items()})


def _price(row: list[Any]) -> Price:
    into, cached, out, *more = row
    return Price(into, cached, out, _price(more[0]) if more else None)


def _names(model: str) -> list[str]:
    """The names to look for, the nearest first. A tuned model (`ft:base:org::id`) never has its base's price."""
    if model.startswith("ft:"):
        model = ":".join(model.split(":")[:2])
    return [model, _SNAPSHOT.sub("", model)]
