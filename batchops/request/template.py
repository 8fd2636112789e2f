"""A job ready to turn rows into bodies. Knows nothing of where rows come from."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import orjson
from jinja2 import TemplateSyntaxError

from batchops.diagnostics import BatchopsError, Diagnostic, did_you_mean, error
from batchops.request.digest import canonical
from batchops.request.endpoints import Body, Slot, body_of
from batchops.request.place import place_in
from batchops.request.sandbox import Environment
from batchops.request.skeleton import chunks_of, filled, mapped, tagged, texts_in
from batchops.request.text import RowFailed, Text, compile_text
from batchops.request.tokens import count_inputs, leaf_bytes, prompt_leaves, tokens_of
from batchops.request.values import PLAIN, seen
from batchops.spec.job import Job, Message

__all__ = ["CompiledRequest", "RowFailed", "compile_request"]

RENDER_VERSION: Final = 1
"""Part of the render id. Raising it makes every row be rendered again; it pays only where bytes change."""


@dataclass(frozen=True, eq=False)
class CompiledRequest:
    """A job ready to turn rows into bodies. One rendering at a time: it holds the budget of the row in progress."""

    job: Job
    environment: Environment
    skeleton: Body
    """The body with a Text in place of each template."""

    @property
    def url(self) -> str:
        return self.job.spec.endpoint

    @property
    def model(self) -> str:
        return self.job.spec.model

    # --- what it is

    @cached_property
    def render_id(self) -> uuid.UUID:
        """Identity of everything but the row that can change a body."""
        nulls = self.job.spec.source.nulls
        return uuid.UUID(_hash(RENDER_VERSION, self.url, self.model, nulls, tagged(self.skeleton))[:32])

    @cached_property
    def parts(self) -> dict[str, str]:
        """Hashes of what may change an answer, for the reasons of a change."""
        spec, job = self.job.spec, self.job
        bare = spec.model_copy(update={"params": {}, "tools": None, "tool_choice": None, "model": ""})
        return {
            "prompt": _hash(tagged(body_of(replace(job, schema=None, spec=bare))), spec.source.nulls),
            "model": _hash(spec.model),
            "params": _hash(spec.endpoint, tagged(spec.params)),
            "schema": _hash(tagged(job.schema), tagged(list(spec.tools or ())), tagged(spec.tool_choice)),
        }

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns that the templates name, sorted."""
        return tuple(sorted(set().union(*(text.columns for text in self.all_texts))))

    @cached_property
    def all_texts(self) -> tuple[Text, ...]:
        """Every template of the body, constants too."""
        return tuple(texts_in(self.skeleton))

    @cached_property
    def chunks(self) -> tuple[bytes | Text, ...]:
        """The canonical body cut at its templates; what lies between them is the same for every row."""
        return chunks_of(self.skeleton)

    @cached_property
    def texts(self) -> tuple[Text, ...]:
        """The templates that depend on the row, in the order of the body."""
        return tuple(part for part in self.chunks if isinstance(part, Text))

    @cached_property
    def inputs(self) -> int:
        """How many inputs each body counts for."""
        return count_inputs(self.skeleton, self.url)

    @cached_property
    def prompt_cost(self) -> tuple[int, tuple[int, ...]]:
        """Bytes of prompt text that every body has, and which of `texts` are prompt text."""
        leaves = list(prompt_leaves(self.skeleton))
        fixed = [leaf.constant if isinstance(leaf, Text) else leaf for leaf in leaves]
        varying = {id(leaf) for leaf in leaves if isinstance(leaf, Text)}
        return sum(map(leaf_bytes, fixed)), tuple(i for i, text in enumerate(self.texts) if id(text) in varying)

    # --- what it makes of a row

    def body(self, row: Mapping[str, object]) -> dict[str, Any]:
        """The body for a row; RowFailed where a template fails on it."""
        rendered = self.rendered(row)
        self.assembled(rendered)  # fails on text that has no JSON
        body: dict[str, Any] = filled(self.skeleton, dict(zip(map(id, self.texts), rendered, strict=True)))
        return body

    def canonical(self, row: Mapping[str, object]) -> bytes:
        """The canonical text of the body for a row; RowFailed where a template fails on it."""
        return self.assembled(self.rendered(row))

    def rendered(self, row: Mapping[str, object]) -> list[str]:
        """The text of each of `texts` for a row."""
        environment = self.environment
        environment.budget.reset()
        names = dict(environment.globals)
        for name in self.columns:
            if name in row:
                value = row[name]
                names[name] = value if type(value) in PLAIN else seen(value, environment.null, name)
        return [text.render(names) for text in self.texts]

    def assembled(self, rendered: list[str]) -> bytes:
        """The canonical text of the body with these texts in it."""
        given = iter(rendered)
        try:
            return b"".join([part if type(part) is bytes else orjson.dumps(next(given)) for part in self.chunks])
        except TypeError:
            raise self._not_unicode(rendered) from None

    def _not_unicode(self, rendered: list[str]) -> RowFailed:
        slot = next(text.slot for text, made in zip(self.texts, rendered, strict=True) if not _is_unicode(made))
        return RowFailed("template_render_failed", "its text is not Unicode (half of a surrogate pair)", slot, 1)

    def input_tokens(self, rendered: list[str]) -> int:
        """Estimated input tokens of the body with these texts in it; see `tokens.estimate_tokens`."""
        fixed, varying = self.prompt_cost
        return tokens_of(fixed + sum([leaf_bytes(rendered[index]) for index in varying]))

    def amended(self, amendment: Mapping[str, Any]) -> CompiledRequest:
        """The request as a retry changes it: `cap` and `set` change params, `model` and `template` what they name."""
        return compile_request(_amended(self.job, amendment))


def _is_unicode(text: str) -> bool:
    try:
        orjson.dumps(text)
    except TypeError:
        return False
    return True


def _hash(*parts: Any) -> str:
    return hashlib.sha256(canonical(list(parts))).hexdigest()


def _amended(job: Job, amendment: Mapping[str, Any]) -> Job:
    spec = job.spec
    changed = {**(amendment.get("set") or {}), **(amendment.get("cap") or {})}
    update: dict[str, Any] = {"params": {**spec.params, **changed}}
    if amendment.get("model") is not None:
        update["model"] = amendment["model"]
    template = amendment.get("template")
    if template is None:
        return replace(job, spec=spec.model_copy(update=update))
    if not isinstance(template, str):
        template = tuple(m if isinstance(m, Message) else Message.model_validate(m) for m in template)
    return replace(job, template=template, spec=spec.model_copy(update={**update, "template": template, "body": None}))


# --- compiling


def compile_request(job: Job) -> CompiledRequest:
    """The job's templates compiled; BatchopsError with a diagnostic for each that cannot be."""
    problems: list[Diagnostic] = []
    environment = Environment(job.spec.source.nulls)

    def compiled(slot: Slot) -> Text | None:
        try:
            return compile_text(environment, slot)
        except TemplateSyntaxError as problem:
            problems.append(_syntax_problem(job, slot, problem, environment))
        except (RecursionError, MemoryError, SyntaxError):  # Python compiles what Jinja2 wrote, and has limits too
            found = error("template_too_large", "Template too large.", "Its expressions are nested too deeply.")
            problems.append(place_in(job, slot.path).put(found, job.address))
        except ValueError:  # neither reads nor writes a whole number of more than 4,300 digits
            found = error("template_too_large", "Template too large.", "It holds a number of thousands of digits.")
            problems.append(place_in(job, slot.path).put(found, job.address))
        return None

    skeleton = mapped(body_of(job), compiled)
    if problems:
        raise BatchopsError(*problems)
    return CompiledRequest(job, environment, skeleton)


def _syntax_problem(job: Job, slot: Slot, problem: TemplateSyntaxError, environment: Environment) -> Diagnostic:
    place = place_in(job, slot.path, problem.lineno)
    message = (problem.message or "It cannot be read").rstrip(".")
    hint = ""
    if unknown := re.match(r"No (filter|test) named '(.*)'", message):
        choices = environment.filters if unknown[1] == "filter" else environment.tests
        hint = did_you_mean(unknown[2], (name for name in choices if not name.startswith("_")))
    detail = f"{message[:1].upper()}{message[1:]}{place.words}.{hint}"
    return place.put(error("template_syntax", "Template syntax.", detail), job.address)
