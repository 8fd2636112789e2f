"""docs/providers.md: its examples are settings, and its tables say what the code does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from batchops.engine.judge import Expectation, judge
from batchops.plan.prices import price
from batchops.profiles import PROFILES, Profile
from batchops.providers.refusals import kind_of
from batchops.settings import ProviderSettings, Settings
from batchops.spec.job import Outcome

PAGE = (Path(__file__).parents[2] / "docs" / "providers.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("example", re.findall(r"```toml\n(.*?)```", PAGE, re.S))
def test_example_is_accepted_as_settings(example: str) -> None:
    found = Settings.model_validate(tomllib.loads(example))
    assert found.provider in found.providers


def test_every_key_of_a_provider_is_described() -> None:
    for name in ProviderSettings.model_fields:
        assert f"`{name}" in PAGE or f"`{name}.NAME." in PAGE, name


def test_the_table_of_services_says_what_the_profiles_say() -> None:
    rows = re.findall(r"<!-- profiles -->\n(.*?)\n<!-- end -->", PAGE, re.S)[0].splitlines()[2:]
    assert rows == [_row(profile) for profile in PROFILES.values()]


def _row(profile: Profile) -> str:
    endpoints = ", ".join(f"`{endpoint}`" for endpoint in profile.endpoints)
    kept, revokes = ("yes" if known else "no" for known in (profile.supports_metadata, profile.delete_revokes))
    size = f"{profile.max_bytes // 1_000_000:,} MB"
    cells = (f"`{profile.name}`", f"{profile.max_requests:,}", size, profile.shown_windows, endpoints, kept, revokes)
    return f"| {' | '.join(cells)} |"


def test_every_outcome_is_in_the_table() -> None:
    assert {outcome for outcome in Outcome if f"`{outcome}`" in PAGE} == set(Outcome)


def test_price_of_the_example_is_the_one_that_counts() -> None:
    example = tomllib.loads(re.findall(r"```toml\n(.*?)```", PAGE, re.S)[0])
    own = Settings.model_validate(example).providers["gateway"].models["house-model"].price
    found = price("house-model", own)
    assert found is not None
    assert (found.input, found.cached, found.output) == (0.10, 0.02, 0.40)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("400, 401, 403, 404, 413, 422", "Refusal|Denied|Missing"),
        ("301, 307, 308", "Refusal"),
        ("408, 409", "Uncertain"),
    ],
)
def test_statuses_mean_what_the_page_says(row: str, kind: str) -> None:
    assert row in PAGE
    for status in row.split(", "):
        assert re.search(kind, kind_of(int(status), None).__name__)


@pytest.mark.parametrize(
    ("row", "outcome"),
    [
        ("500, 502, 503, 409", Outcome.SERVER_ERROR),
        ("408, 504", Outcome.TIMED_OUT),
        ("400, 401, 403, 422", Outcome.BAD_REQUEST),
    ],
)
def test_lines_are_judged_as_the_page_says(row: str, outcome: Outcome) -> None:
    assert row in PAGE
    for status in row.split(", "):
        line = {"response": {"status_code": int(status), "body": {"error": {"message": "m"}}}, "error": None}
        assert judge(line, Expectation("/v1/chat/completions")).outcome is outcome
