"""The OpenAPI text and the server agree on which bodies are good, where generated ones seldom come."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from batch_desk import Desk, serving

TEXT = json.loads((Path(__file__).parents[2] / "batchops/server/openapi.json").read_text(encoding="utf-8"))
EMBEDDING = {"model": "text-embedding-3-small", "dimensions": 2}
COMPLETION = {"model": "davinci-002", "max_tokens": 4}
PART = {"type": "text", "text": "a"}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with serving(tmp_path) as desk:
        yield desk


def is_described(path: str, body: dict[str, Any]) -> bool:
    return bool(_validator(path).is_valid(body))


@functools.cache
def _validator(path: str) -> Any:
    schema = TEXT["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return jsonschema_rs.validator_for({**schema, "components": TEXT["components"]})


@pytest.mark.parametrize(
    ("path", "body", "is_good"),
    [
        ("/embeddings", {**EMBEDDING, "input": [7] * 2_049}, True),  # tokens of one input, not inputs
        ("/embeddings", {**EMBEDDING, "input": [7] * 8_192}, True),
        ("/embeddings", {**EMBEDDING, "input": [7] * 8_193}, False),
        ("/embeddings", {**EMBEDDING, "input": [[7], [8, 9]]}, True),
        ("/embeddings", {**EMBEDDING, "input": [[7] * 8_193]}, False),
        ("/embeddings", {**EMBEDDING, "input": [[7]] * 2_049}, False),
        ("/embeddings", {**EMBEDDING, "input": [[]]}, False),
        ("/embeddings", {**EMBEDDING, "input": [[7], []]}, False),
        ("/embeddings", {**EMBEDDING, "input": [[7], "a"]}, False),
        ("/embeddings", {**EMBEDDING, "input": ["a"] * 2_048}, True),
        ("/embeddings", {**EMBEDDING, "input": ["a"] * 2_049}, False),
        ("/completions", {**COMPLETION, "prompt": [[7], [8]]}, True),
        ("/completions", {**COMPLETION, "prompt": [[7], 8]}, False),
        ("/completions", {**COMPLETION, "prompt": [[]]}, False),
        ("/moderations", {"input": ["a", "b"]}, True),
        ("/moderations", {"input": [PART, PART]}, True),
        ("/moderations", {"input": ["a", PART]}, False),
    ],
)
def test_body_is_taken_as_the_text_says(desk: Desk, path: str, body: dict[str, Any], is_good: bool) -> None:
    assert is_described(path, body) == is_good
    assert desk.raw("POST", f"/v1{path}", json=body).status_code == (200 if is_good else 400)
