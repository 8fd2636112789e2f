"""Answers that tell which request they answer: `batchops serve --answers echoing:answer`."""

from __future__ import annotations

import json
from typing import Any


def answer(body: dict[str, Any], url: str) -> str:
    return json.dumps({"said": asked(body)})


def asked(body: dict[str, Any]) -> str:
    """The text of a request."""
    text: str = body["messages"][-1]["content"]
    return text
