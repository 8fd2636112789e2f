"""What models cost in a batch, and what nobody knows."""

from __future__ import annotations

import re

import pytest

from batchops.plan.prices import LONG_PROMPT_TOKENS, Price, cost_nano_usd, price, table
from batchops.request.answers import Usage
from batchops.settings import PriceSettings


def usage(into: int | None, out: int | None, cached: int | None = None, reasoning: int | None = None) -> Usage:
    return Usage(input_tokens=into, cached_tokens=cached, output_tokens=out, reasoning_tokens=reasoning)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-5-mini", Price(0.125, 0.0125, 1)),
        ("gpt-5-mini-2025-08-07", Price(0.125, 0.0125, 1)),
        ("gpt-5-mini-2031-01-01", Price(0.125, 0.0125, 1)),
        ("gpt-4o-2024-05-13", Price(2.5, None, 7.5)),
        ("gpt-4o-2024-08-06", Price(1.25, None, 5)),
        ("text-embedding-3-small", Price(0.01, None, 0)),
        ("ft:gpt-4o-mini-2024-07-18:acme:labels:Bx1", Price(0.15, 0.075, 0.6)),
        ("omni-moderation-latest", Price(0, 0, 0)),
        ("omni-moderation-2024-09-26", Price(0, 0, 0)),
        ("gpt-5-mini-", None),
        ("gpt-5-mini-turbo", None),
        ("ft:gpt-5-mini:acme::1", None),
        ("my-model", None),
        ("", None),
    ],
)
def test_price_of_a_model_is_known_or_none(model: str, expected: Price | None) -> None:
    assert price(model) == expected


def test_user_knows_better() -> None:
    own = PriceSettings(input=3, output=4)
    assert price("gpt-5-mini", own) == price("my-model", own) == Price(3, None, 4)


@pytest.mark.parametrize(
    ("model", "used", "nano_usd"),
    [
        ("gpt-5-mini", usage(1_000_000, 1_000_000), 1_125_000_000),
        ("gpt-5-mini", usage(1, 0), 125),
        ("gpt-5-nano", usage(3, 1, cached=1), 252),
        ("gpt-5-mini", usage(1000, 500, cached=400, reasoning=300), 580_000),
        ("gpt-5-mini", usage(10, 0, cached=99), 125),
        ("gpt-4.1", usage(1000, 0, cached=1000), 1_000_000),
        ("text-embedding-3-large", usage(1000, 0), 65_000),
        ("omni-moderation-latest", usage(None, None), 0),
        ("gpt-5-mini", usage(None, 5), None),
        ("gpt-5-mini", usage(5, None), None),
        ("my-model", usage(5, 5), None),
    ],
)
def test_cost_counts_each_token_once(model: str, used: Usage, nano_usd: int | None) -> None:
    assert cost_nano_usd(price(model), used) == nano_usd


def test_long_prompt_has_its_own_price() -> None:
    found = price("gpt-5.4")
    at, over = LONG_PROMPT_TOKENS, LONG_PROMPT_TOKENS + 1
    assert cost_nano_usd(found, usage(at, 0)) == at * 1250
    assert cost_nano_usd(found, usage(over, 0)) == over * 2500


def test_table_is_dated_sourced_and_sound() -> None:
    shipped = table()
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", shipped.as_of)
    assert shipped.source
    for name, found in shipped.models.items():
        assert found.output >= found.input or found.output == 0, name
        assert found.cached is None or found.cached <= found.input, name
        assert found.long is None or found.long.input > found.input, name
