"""A provider that left the settings while it has batches of ours: told as that, and fetched once it is back."""

from __future__ import annotations

import pytest
from yard import SETTINGS, Yard, job

pytest_plugins = ("yard_fixtures",)
ROWS = 2
OTHER = '[providers.other]\nkind = "openai"\n'


def spec(**keys: str) -> dict[str, str]:
    return {"jobs/chat.yaml": job(rows=ROWS, **keys)}


@pytest.mark.parametrize(
    "words",
    [("plan",), ("apply", "--auto-approve"), ("wait",), ("status", "--refresh"), ("cancel", "chat")],
    ids=lambda words: words[0],
)
def test_batches_at_a_provider_that_left_the_settings_are_told_of_and_not_lost(
    yard: Yard, words: tuple[str, ...]
) -> None:
    yard.write({"batchops.toml": SETTINGS + OTHER, **spec(provider="other")})
    yard.run("apply", "--auto-approve")
    yard.write({"batchops.toml": SETTINGS, **spec()})
    ran = yard.run(*words, code=1)
    assert 'The state has batches at "other"' in ran.err
    assert "[provider_gone]" in ran.err
    yard.run("status")
    yard.write({"batchops.toml": SETTINGS + OTHER})
    yard.run("retry", "chat")
    yard.apply()
    yard.hold_laws(rows=ROWS)
