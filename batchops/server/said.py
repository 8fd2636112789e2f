"""What a simulated model says to a request, before it is put into the shape of an endpoint."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from random import Random
from typing import Any, NamedTuple

import orjson

from batchops.server.conform import Conformer
from batchops.server.tokens import text_tokens

_REASONING_TOKENS = {"none": 0, "minimal": 0, "low": 16, "medium": 64, "high": 192, "xhigh": 384, "max": 512}


class Said(NamedTuple):
    """A text, a tool call or a refusal; `finish` is chat's word for why it ended."""

    text: str = ""
    call: str | None = None
    """Name of the tool that is called; `text` is then its arguments."""
    is_refusal: bool = False
    finish: str = "stop"
    reasoning_tokens: int = 0

    @property
    def output_tokens(self) -> int:
        return text_tokens(self.text) + self.reasoning_tokens


class Wanted(NamedTuple):
    """What a request asks for, whatever endpoint it is written for."""

    tools: list[tuple[str, Any]]
    """(name, schema of the arguments)"""
    choice: Any
    format: dict[str, Any]
    """`{"type": "text" | "json_object" | "json_schema", "schema": …}`"""
    cap: int | None
    effort: str | None


def say(wanted: Wanted, rng: Random, *, is_reasoning: bool, is_brief: bool = False) -> Said:
    """Answer as asked: call a tool, fill the schema, or write a sentence that says it is simulated."""
    name = _chosen(wanted, rng)
    if name is not None:
        said = Said(_json(dict(wanted.tools)[name], rng), call=name, finish="tool_calls")
    elif wanted.format.get("type") == "json_schema":
        said = Said(_json(wanted.format.get("schema"), rng))
    elif wanted.format.get("type") == "json_object":
        said = Said(orjson.dumps({"simulated": True, "answer": _sentence(rng, is_brief=True)}).decode())
    else:
        said = Said(_sentence(rng, is_brief=is_brief))
    return _capped(said, wanted, is_reasoning=is_reasoning)


def _sentence(rng: Random, *, is_brief: bool) -> str:
    mark = f"{rng.randrange(16**6):06x}"
    return f"Simulated answer {mark}." if is_brief else f"Simulated answer {mark}: no model was asked."


def _json(schema: Any, rng: Random) -> str:
    return orjson.dumps(_conformer(orjson.dumps(schema)).value(rng)).decode()


@lru_cache(maxsize=256)
def _conformer(schema: bytes) -> Conformer:
    return Conformer(orjson.loads(schema))


def _chosen(wanted: Wanted, rng: Random) -> str | None:
    """The tool that is called, if any."""
    names = [name for name, _ in wanted.tools]
    choice = wanted.choice
    if isinstance(choice, dict):
        allowed = choice.get("allowed_tools", choice)
        if isinstance(allowed, dict) and isinstance(allowed.get("tools"), list):
            names = [name for name in names if name in map(_tool_name, allowed["tools"])]
        else:
            names = [name for name in names if name == _tool_name(choice)]
    elif choice == "none":
        names = []
    return rng.choice(names) if names else None


def _tool_name(tool: Any) -> Any:
    if not isinstance(tool, dict):
        return None
    inner = tool.get("function") or tool.get("custom")
    return inner.get("name") if isinstance(inner, dict) else tool.get("name")


def tools_of(tools: Any) -> list[tuple[str, Any]]:
    """(name, schema) of every function tool, in chat's nested or in the flat shape."""
    out: list[tuple[str, Any]] = []
    for tool in tools if isinstance(tools, list) else []:
        inner = tool.get("function", tool) if isinstance(tool, dict) else None
        if isinstance(inner, dict) and isinstance(inner.get("name"), str):
            out.append((inner["name"], inner.get("parameters") or {"type": "object", "properties": {}}))
    return out


def _capped(said: Said, wanted: Wanted, *, is_reasoning: bool) -> Said:
    """Cut at the cap. Reasoning takes what the answer leaves, so the answer alone decides whether it fits."""
    needed = text_tokens(said.text)
    if wanted.cap is not None and needed > wanted.cap:
        return said._replace(text=said.text[: 4 * int(wanted.cap)], finish="length")
    if not is_reasoning:
        return said
    thought = _REASONING_TOKENS.get(wanted.effort or "medium", 64)
    return said._replace(reasoning_tokens=thought if wanted.cap is None else min(thought, int(wanted.cap) - needed))


BENDS: dict[str, Callable[[Said], Said]] = {
    "length": lambda said: said._replace(text=said.text[: max(len(said.text) // 2, 1)], finish="length"),
    "refusal": lambda said: Said("I'm sorry, but I can't assist with that request. (simulated)", is_refusal=True),
    "content_filter": lambda said: Said("", finish="content_filter"),
    "invalid_json": lambda said: said._replace(text=f"Sure! Here you are: {said.text[:-1]}"),
    "schema_mismatch": lambda said: said._replace(text='{"unexpected":["simulated"]}'),
    "empty": lambda said: Said("", finish="stop"),
}
"""How a fault plan spoils an answer that came back with HTTP 200."""
