"""What the suite asks of a server: a behaviour is seen as a plain value, and a value can be compared as a whole."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from openai.types import Batch
from subjects import Subject

Observe = Callable[[Subject], Any]
LOOK_SECONDS: Final = 0.01


@dataclass(frozen=True)
class Behaviour:
    """One row of the table.

    `expected` is what the service does, as `observe` sees it. `says` tells it in words, with a * at the end where no
    source shows it.
    """

    group: str
    title: str
    says: str
    expected: Any
    observe: Observe

    @property
    def name(self) -> str:
        """The title as a word: what a test is called by."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


REGISTERED: list[Behaviour] = []
"""Those of the modules that were imported; `suite.BEHAVIOURS` has them all."""


def behaviour(group: str, title: str, says: str, expected: Any) -> Callable[[Observe], Observe]:
    """Add a behaviour that the decorated function looks at."""

    def add(observe: Observe) -> Observe:
        REGISTERED.append(Behaviour(group, title, says, expected, observe))
        return observe

    return add


# Seeing


def call(subject: Subject, method: str, path: str, **more: Any) -> dict[str, Any]:
    """The status and the JSON body of a call on a connection of its own, which its refusal may cost."""
    answered = subject.desk.raw(method, path, headers={"connection": "close"}, **more)
    try:
        return {"status": answered.status_code, "body": answered.json()}
    except json.JSONDecodeError:
        return {"status": answered.status_code}


def refusal(seen: dict[str, Any], **names: str) -> Any:
    """What a refused call says: (status, code, param, message), or the whole when it has another shape.

    Of a call that was not refused only that is told: what it made is looked at elsewhere.
    `names` maps words to ids: where an id stands in a text, the word is put instead.
    """
    text = json.dumps(seen)
    for word, object_id in names.items():
        text = text.replace(object_id, word)
    seen = json.loads(text)
    if seen["status"] == 200:
        return "accepted"
    error = (seen.get("body") or {}).get("error")
    if isinstance(error, dict) and set(error) == {"message", "type", "param", "code"}:
        return seen["status"], error["code"], error["param"], error["message"]
    return seen


def problems(batch: Batch) -> list[tuple[int | None, str | None, str | None, str | None]]:
    """(line, code, param, message) of everything that failed a batch."""
    listed = batch.errors.data if batch.errors is not None else None
    return [(found.line, found.code, found.param, found.message) for found in listed or []]


def counts(batch: Batch) -> tuple[int, int, int] | None:
    """(total, completed, failed)."""
    if (counted := batch.request_counts) is None:
        return None
    return counted.total, counted.completed, counted.failed


def until(condition: Callable[[], bool], patience_seconds: float = 20.0) -> bool:
    """Look until the condition holds; False when patience is over."""
    deadline = time.monotonic() + patience_seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_SECONDS)
    return True


# Requests


def line(subject: Subject, custom_id: str, text: str = "Hello.", **more: Any) -> dict[str, Any]:
    """A line for chat completions."""
    body = {"model": subject.chat_model, "messages": [{"role": "user", "content": text}], **more}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def good(subject: Subject, number: int = 2, text: str = "Hello") -> list[dict[str, Any]]:
    return [line(subject, f"r{n}", f"{text} {n}.") for n in range(number)]


def mixed(subject: Subject) -> list[dict[str, Any]]:
    """Four requests that are answered, eight that are held and so fill every lane, four that come after them."""
    texts = [f"now {n}" for n in range(4)] + [f"hold {n}" for n in range(8)] + [f"later {n}" for n in range(4)]
    return [line(subject, f"r{n:02}", text) for n, text in enumerate(texts)]


def held(subject: Subject) -> Batch:
    """A batch of `mixed` at the point where four are answered and all that will be are under way."""
    subject.upstream.hold()
    batch = subject.desk.submit(mixed(subject))
    until(lambda: asked(subject, "now") == 4 and asked(subject, "hold") == subject.held_at_once)
    until(lambda: counts(subject.desk.sdk.batches.retrieve(batch.id)) == (16, 4, 0), patience_seconds=2)
    return batch


def asked(subject: Subject, text: str) -> int:
    """How often the model was asked something that begins with `text`, since `hold`."""
    return sum(times for said, times in subject.upstream.asked.copy().items() if said.startswith(text))


def create(subject: Subject, **change: Any) -> dict[str, Any]:
    """The raw answer to a create of a good batch with some parameters changed; None leaves one out."""
    asked = {"input_file_id": None, "endpoint": "/v1/chat/completions", "completion_window": "24h", **change}
    if asked["input_file_id"] is None and "input_file_id" not in change:
        asked["input_file_id"] = subject.desk.upload(good(subject))
    return call(subject, "POST", "/v1/batches", json={key: held for key, held in asked.items() if held is not None})
