"""Embeddings in their shape; simulated ones, and moderations: numbers that follow from the input alone."""

from __future__ import annotations

import base64
import math
from array import array
from hashlib import shake_128
from typing import Any

import orjson

from batchops.server.tokens import prompt_tokens

_DIMENSIONS = {"text-embedding-3-large": 3072}
_DEFAULT_DIMENSIONS = 1536
_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "sexual",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm/intent",
    "self-harm/instructions",
    "self-harm",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
_SEEN_IN_IMAGES = frozenset(
    {"self-harm", "self-harm/intent", "self-harm/instructions", "sexual", "violence", "violence/graphic"}
)


def inputs_of(given: Any) -> list[Any]:
    """The inputs of an embedding request: a text, texts, tokens, or arrays of tokens."""
    if isinstance(given, list) and given and isinstance(given[0], (str, list)):
        return given
    return [given]


def unit_vector(content: Any, dimensions: int) -> list[float]:
    """A vector of length one that follows from the content."""
    drawn = array("h", shake_128(orjson.dumps(content)).digest(2 * dimensions))
    billionths = 1e9 / (math.hypot(*drawn) or 1.0)
    # Nine decimals, in less than half the time of round(…, 9): a request may have 2,048 inputs.
    return [round(component * billionths) / 1e9 for component in drawn]


def embeddings(body: dict[str, Any]) -> dict[str, Any]:
    model = body["model"]
    wanted = body.get("dimensions")
    dimensions = int(wanted) if wanted else _DIMENSIONS.get(model, _DEFAULT_DIMENSIONS)
    return embedding_list(body, [unit_vector(content, dimensions) for content in inputs_of(body.get("input"))])


def embedding_list(body: dict[str, Any], vectors: list[list[float]]) -> dict[str, Any]:
    """Vectors in the shape of the endpoint, as numbers or packed, as the request asks."""
    is_packed = body.get("encoding_format") == "base64"
    tokens = prompt_tokens(body)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _packed(vector) if is_packed else vector}
            for index, vector in enumerate(vectors)
        ],
        "model": body["model"],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _packed(vector: list[float]) -> str:
    return base64.b64encode(array("f", vector).tobytes()).decode()


def moderations(body: dict[str, Any], digest: str) -> dict[str, Any]:
    """One result for each text; content parts together are one input, as the service takes them."""
    given = body.get("input")
    many = isinstance(given, list) and bool(given) and not isinstance(given[0], dict)
    contents = given if many and isinstance(given, list) else [given]
    return {
        "id": f"modr-{digest}",
        "model": body.get("model") or "omni-moderation-latest",
        "results": [_moderated(content) for content in contents],
    }


def _moderated(content: Any) -> dict[str, Any]:
    noise = shake_128(orjson.dumps(content)).digest(2 * len(_CATEGORIES))
    scores = {
        name: round((noise[2 * index] << 8 | noise[2 * index + 1]) / 65536 / 50, 9)
        for index, name in enumerate(_CATEGORIES)
    }
    kinds = {part.get("type") for part in content if isinstance(part, dict)} if isinstance(content, list) else {"text"}
    seen = ["image" if kind == "image_url" else "text" for kind in sorted(map(str, kinds))] or ["text"]
    read = [kind for kind in seen if kind == "text"]
    return {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": scores,
        "category_applied_input_types": {name: seen if name in _SEEN_IN_IMAGES else read for name in _CATEGORIES},
    }
