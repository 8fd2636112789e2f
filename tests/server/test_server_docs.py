"""The page on the server: its fault plan is one, and it names every flag, effect, path and code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from batchops.cli.serve import command
from batchops.server.app import ROUTES
from batchops.server.faults import BatchRule, CallRule, LineRule, Rule, parse_rules

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")


def test_fault_plan_that_is_shown_is_one() -> None:
    [shown] = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(parse_rules(tomllib.loads(shown))) == 5


@pytest.mark.parametrize("rule", [CallRule, BatchRule, LineRule])
def test_every_effect_and_key_of_a_rule_is_named(rule: type[Rule]) -> None:
    effects = get_args(rule.model_fields["effect"].annotation)
    assert [word for word in (*effects, *rule.model_fields) if word != "effect" and f"`{word}" not in PAGE] == []


def test_every_flag_is_named() -> None:
    shared = {"-C", "--env", "--no-color", "-v", "--verbose"}
    flags = {flag for option in command.params for flag in option.opts} - shared
    assert [flag for flag in sorted(flags) if f"`{flag}" not in PAGE] == []


def test_every_path_is_named() -> None:
    named = PAGE.replace("`/responses`", "`POST /v1/responses`")
    for name in ("embeddings", "moderations", "completions"):
        named = named.replace(f"`/{name}`", f"`POST /v1/{name}`")
    missing = [
        f"{method} {path}"
        for method, path, _ in ROUTES
        if path != "/v1/models" and f"{method} {re.sub(r'{[a-z]+_id}', '{id}', path)}" not in named
    ]
    assert missing == []


def test_every_validation_code_is_named() -> None:
    source = (ROOT / "batchops" / "server" / "validate.py").read_text(encoding="utf-8")
    codes = set(re.findall(r'_add\(\s*(?:number|None),\s*"([a-z_]+)"', source))
    assert {"duplicate_custom_id", "too_many_tasks"} <= codes
    assert [code for code in sorted(codes) if f"`{code}`" not in PAGE] == []
