"""A job's templates, compiled: which columns they need, and how a row becomes a body.

Knows nothing of where rows come from. Compiling never runs a template on a row and never evaluates its expressions.
"""

from __future__ import annotations

import hashlib
import re
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import TracebackType
from typing import Any, Final, cast

import orjson
from jinja2 import Template, TemplateSyntaxError, nodes
from jinja2.meta import find_undeclared_variables
from jinja2.visitor import NodeTransformer

from batchops.diagnostics import BatchopsError, Diagnostic, did_you_mean, error
from batchops.request.budget import TemplateTooLarge, limit
from batchops.request.digest import canonical
from batchops.request.endpoints import ENDPOINTS, Body, Slot, body_of
from batchops.request.place import template_place
from batchops.request.sandbox import EACH, JOINED, MADE, Environment
from batchops.request.tokens import count_inputs, leaf_bytes, prompt_leaves, tokens_of
from batchops.request.values import NullPrinted, seen
from batchops.spec.job import Job, Message

RENDER_VERSION: Final = 1
"""Part of the render id. Raising it makes every row be rendered again; it pays only where bytes change."""

_FILENAME = "<template>"


class RowFailed(Exception):
    """A row could not be rendered. `reason` shows nothing of the row's text."""

    def __init__(self, code: str, reason: str, slot: Slot, line: int) -> None:
        super().__init__(reason)
        self.code, self.reason, self.slot, self.line = code, reason, slot, line


@dataclass(frozen=True)
class Text:
    """One compiled template. `constant` is its text where nothing in it depends on the row."""

    slot: Slot
    tree: nodes.Template
    constant: str | None
    columns: frozenset[str]
    optional: frozenset[str]
    """Names that may be missing: the template asks `is defined`, or gives a default."""
    template: Template
    join: Callable[[Iterator[str]], str]

    def line_of(self, name: str) -> int:
        """The first line that names a column."""
        lines = [node.lineno for node in self.tree.find_all(nodes.Name) if node.name == name]
        return min(lines, default=1)

    def render(self, values: dict[str, Any]) -> str:
        """The text for a row's values, as templates see them; RowFailed where it has none."""
        if self.constant is not None:
            return self.constant
        try:
            text = self.join(self.template.root_render_func(self.template.new_context(values)))
            limit(len(text))
        except Exception as problem:
            raise self._failed(problem) from None
        return text

    def _failed(self, problem: Exception) -> RowFailed:
        line = self.template.get_corresponding_lineno(_template_line(problem.__traceback__))
        if isinstance(problem, NullPrinted):
            name = f'column "{problem.column}"' if problem.column else "a value inside a list or struct"
            return RowFailed("null_in_template", f"{name} is NULL", self.slot, line)
        if isinstance(problem, (TemplateTooLarge, MemoryError, RecursionError)):
            reason = str(problem) if isinstance(problem, TemplateTooLarge) else "it calls itself too deeply"
            return RowFailed("template_too_large", reason, self.slot, line)
        return RowFailed("template_render_failed", _reason(problem, self.slot.text), self.slot, line)


def _template_line(trace: TracebackType | None) -> int:
    frames = [line for frame, line in traceback.walk_tb(trace) if frame.f_code.co_filename == _FILENAME]
    return frames[-1] if frames else 1


def _reason(problem: Exception, template: str) -> str:
    """The message without what it quotes of the row: only words of the template and of Python's types stay."""

    def shown(quote: re.Match[str]) -> str:
        inner = quote[1]
        return quote[0] if inner in template or inner.removesuffix(" object") in _TYPE_NAMES else "'…'"

    message = re.sub(r"'([^']*)'", shown, str(problem))
    if isinstance(problem, (KeyError, ValueError)) and "'" not in message:
        message = "a value does not fit"
    for ours, theirs in _OUR_NAMES.items():
        message = message.replace(ours, theirs)
    return message[:300] or type(problem).__name__


_TYPE_NAMES = {"str", "int", "float", "bool", "list", "dict", "tuple", "NoneType"}
_OUR_NAMES = {"batchops.request.values.": "", "ForbiddenNull": "NULL", "NullText": "NULL", "Exact": "decimal"}


# --- compiling


class _Guarded(NodeTransformer):
    """Puts the budget's filters into a parsed template, and refuses what reaches beyond it."""

    refused: tuple[type[nodes.Node], ...] = (
        nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.Block, nodes.EvalContextModifier,
    )  # fmt: skip

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        if isinstance(node, self.refused):
            raise TemplateSyntaxError(f"{type(node).__name__.lower()} is not available in a template", node.lineno)
        return super().generic_visit(node, *args, **kwargs)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        if node.recursive:
            raise TemplateSyntaxError("a recursive loop is not available in a template", node.lineno)
        self.generic_visit(node)
        node.iter = _filtered(EACH, cast(nodes.Expr, node.iter))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(JOINED, nodes.Tuple(node.nodes, "load", lineno=node.lineno))

    def _visit_made(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        if getattr(node, "ctx", "load") != "load" or all(isinstance(part, nodes.Const) for part in _leaves(node)):
            return node
        return _filtered(MADE, node)

    visit_List = visit_Dict = visit_Tuple = _visit_made


def _leaves(node: nodes.Node) -> Iterator[nodes.Node]:
    for part in node.iter_child_nodes():
        if isinstance(part, nodes.Pair):
            yield from (part.key, part.value)
        else:
            yield part


def _filtered(name: str, node: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _compile_text(environment: Environment, slot: Slot) -> Text:
    tree = environment.parse(slot.text)
    names = frozenset(find_undeclared_variables(tree)) - set(environment.globals)
    optional = _optional(tree) & names
    constant = _constant(tree)
    guarded = _Guarded().visit(environment.parse(slot.text))
    is_bounded = constant is not None or not any(tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock, nodes.Call)))
    code = environment.compile(guarded, filename=_FILENAME)
    template = Template.from_code(environment, code, environment.make_globals(None))
    join: Callable[[Iterator[str]], str] = "".join if is_bounded else environment.budget.joined
    return Text(slot, tree, constant, names, optional, template, join)


def _constant(tree: nodes.Template) -> str | None:
    parts = [part for output in tree.body if isinstance(output, nodes.Output) for part in output.nodes]
    if not all(isinstance(node, nodes.Output) for node in tree.body):
        return None
    data = [part.data for part in parts if isinstance(part, nodes.TemplateData)]
    return "".join(data) if len(data) == len(parts) else None


def _optional(tree: nodes.Template) -> frozenset[str]:
    """Names asked for with `is defined`, or used with a default wherever they are used."""
    asked, given, loads = set(), [], []
    for test in tree.find_all(nodes.Test):
        if test.name in {"defined", "undefined"} and isinstance(test.node, nodes.Name):
            asked.add(test.node.name)
    for used in tree.find_all(nodes.Filter):
        if used.name in {"default", "d"} and isinstance(used.node, nodes.Name):
            given.append(used.node.name)
    loads = [name.name for name in tree.find_all(nodes.Name) if name.ctx == "load"]
    return frozenset(asked | {name for name in given if given.count(name) == loads.count(name)})


def _syntax_problem(job: Job, slot: Slot, problem: TemplateSyntaxError, environment: Environment) -> Diagnostic:
    place = template_place(job, slot.path, slot.text, problem.lineno)
    message = (problem.message or "the template cannot be read").rstrip(".")
    if unknown := re.match(r"No (filter|test) named '(.*)'", message):
        choices = environment.filters if unknown[1] == "filter" else environment.tests
        message += "." + did_you_mean(unknown[2], (name for name in choices if not name.startswith("_")))
    detail = f"{message}{place.words}{'' if message.endswith('?') else '.'}".replace("..", ".")
    return error("template_syntax", "Template syntax.", detail, address=job.address, location=place.location)


# --- a compiled request


@dataclass(frozen=True)
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

    @cached_property
    def chunks(self) -> tuple[bytes | Text, ...]:
        """The canonical body cut at its templates; what lies between them is the same for every row."""
        merged: list[bytes | Text] = []
        for part in _chunks(self.skeleton):
            if isinstance(part, bytes) and merged and isinstance(merged[-1], bytes):
                merged[-1] += part
            else:
                merged.append(part)
        return tuple(merged)

    @cached_property
    def texts(self) -> tuple[Text, ...]:
        """The templates that depend on the row, in the order of the body."""
        return tuple(part for part in self.chunks if isinstance(part, Text))

    @cached_property
    def all_texts(self) -> tuple[Text, ...]:
        """Every template of the body, constants too."""
        return tuple(part for part in _walk(self.skeleton) if isinstance(part, Text))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns that the templates name, sorted."""
        return tuple(sorted(set().union(*(text.columns for text in self.all_texts))))

    @cached_property
    def parts(self) -> dict[str, str]:
        """Hashes of what may change an answer, for the reasons of a change."""
        spec, job = self.job.spec, self.job
        return {
            "prompt": _hash(_tagged(self._prompt), spec.source.nulls),
            "model": _hash(spec.model),
            "params": _hash(spec.endpoint, _tagged(spec.params)),
            "schema": _hash(_tagged(job.schema), _tagged(list(spec.tools or ())), _tagged(spec.tool_choice)),
        }

    @property
    def _prompt(self) -> Body:
        return body_of(replace(self.job, schema=None, spec=self.job.spec.model_copy(update=_WITHOUT_PARAMS)))

    @cached_property
    def render_id(self) -> uuid.UUID:
        """Identity of everything but the row that can change a body."""
        text = _hash(RENDER_VERSION, self.url, self.model, self.job.spec.source.nulls, _tagged(self.skeleton))
        return uuid.UUID(text[:32])

    @cached_property
    def inputs(self) -> int:
        """How many inputs each body counts for."""
        return count_inputs(self.skeleton, self.url)

    @cached_property
    def _prompt_cost(self) -> tuple[int, tuple[int, ...]]:
        """Bytes of prompt text that are always there, and which of `texts` are prompt text."""
        leaves = [leaf.constant if isinstance(leaf, Text) and leaf.constant is not None else leaf
                  for leaf in prompt_leaves(self.skeleton)]  # fmt: skip
        varying = [id(leaf) for leaf in leaves if isinstance(leaf, Text)]
        return sum(map(leaf_bytes, leaves)), tuple(i for i, text in enumerate(self.texts) if id(text) in varying)

    def values(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row's columns as templates see them."""
        null = self.environment.null
        return {name: seen(row[name], null, name) for name in self.columns if name in row}

    def rendered(self, row: Mapping[str, Any]) -> list[str]:
        """The text of each of `texts` for a row."""
        self.environment.budget.reset()
        values = self.values(row)
        return [text.render(values) for text in self.texts]

    def body(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The body for a row; RowFailed where a template fails on it."""
        rendered = self.rendered(row)
        self.assembled(rendered)
        given = dict(zip(map(id, self.texts), rendered, strict=True))
        filled: dict[str, Any] = _filled(self.skeleton, given)
        return filled

    def canonical(self, row: Mapping[str, Any]) -> bytes:
        """The canonical text of the body for a row; RowFailed where a template fails on it."""
        return self.assembled(self.rendered(row))

    def assembled(self, rendered: list[str]) -> bytes:
        """The canonical text of the body with these texts in it."""
        given = iter(rendered)
        return b"".join([part if isinstance(part, bytes) else _json_text(part, next(given)) for part in self.chunks])

    def input_tokens(self, rendered: list[str]) -> int:
        """Estimated input tokens of the body with these texts in it; see `tokens.estimate_tokens`."""
        fixed, varying = self._prompt_cost
        return tokens_of(fixed + sum(leaf_bytes(rendered[index]) for index in varying))

    def amended(self, amendment: Mapping[str, Any]) -> CompiledRequest:
        """The request as a retry changes it: `cap` and `set` change params, `model` and `template` what they name."""
        return compile_request(_amended(self.job, amendment))


def compile_request(job: Job) -> CompiledRequest:
    """The job's templates compiled; BatchopsError with a diagnostic for each that cannot be."""
    problems = list(_form_problems(job))
    if problems:
        raise BatchopsError(*problems)
    environment = Environment(job.spec.source.nulls)

    def compiled(slot: Slot) -> Text | None:
        try:
            return _compile_text(environment, slot)
        except TemplateSyntaxError as problem:
            problems.append(_syntax_problem(job, slot, problem, environment))
        except RecursionError:
            problems.append(_too_deep(job, slot))
        return None

    skeleton = _mapped(body_of(job), compiled)
    if problems:
        raise BatchopsError(*problems)
    return CompiledRequest(job, environment, skeleton)


def _too_deep(job: Job, slot: Slot) -> Diagnostic:
    return error("template_too_large", "Template too large.", "Its expressions are nested too deeply.",
                 address=job.address, location=job.location(*slot.path))  # fmt: skip


def _form_problems(job: Job) -> Iterator[Diagnostic]:
    spec, endpoint = job.spec, ENDPOINTS[job.spec.endpoint]
    if (job.template is None) == (spec.body is None):
        yield error("template_form", "Template form.", "A job has either template: or body:.",
                    address=job.address, location=job.location("template"))  # fmt: skip
    elif isinstance(job.template, tuple) and not endpoint.allows_messages:
        yield error("template_form", "Template form.",
                    f"{endpoint.url} takes one text, not a list of messages; for other inputs write body:.",
                    address=job.address, location=job.location("template"))  # fmt: skip
    if spec.body is not None and spec.body.get("model", spec.model) != spec.model:
        yield error("template_form", "Template form.",
                    "body: names another model than model:; leave it out of body:, one batch has one model.",
                    address=job.address, location=job.location("body", "model"))  # fmt: skip
    if job.schema is not None and endpoint.answer_format is None:
        yield error("schema_unsupported", "Schema not supported.", f"{endpoint.url} has no structured output.",
                    address=job.address, location=job.location("schema"))  # fmt: skip


_WITHOUT_PARAMS: dict[str, Any] = {"params": {}, "tools": None, "tool_choice": None, "model": ""}


def _amended(job: Job, amendment: Mapping[str, Any]) -> Job:
    changed = {**(amendment.get("set") or {}), **(amendment.get("cap") or {})}
    update: dict[str, Any] = {"params": {**job.spec.params, **changed}}
    if amendment.get("model") is not None:
        update["model"] = amendment["model"]
    template = amendment.get("template")
    if template is None:
        return replace(job, spec=job.spec.model_copy(update=update))
    if not isinstance(template, str):
        template = tuple(m if isinstance(m, Message) else Message.model_validate(m) for m in template)
    update |= {"template": template, "body": None}
    return replace(job, template=template, spec=job.spec.model_copy(update=update))


# --- trees with templates in them


def _mapped(value: Any, compiled: Callable[[Slot], Text | None]) -> Any:
    if isinstance(value, Slot):
        return compiled(value)
    if isinstance(value, Mapping):
        return {key: _mapped(part, compiled) for key, part in value.items()}
    return [_mapped(part, compiled) for part in value] if isinstance(value, (list, tuple)) else value


def _walk(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _walk(part)
    else:
        yield value


def _filled(value: Any, given: Mapping[int, str]) -> Any:
    if isinstance(value, Text):
        return value.constant if value.constant is not None else given[id(value)]
    if isinstance(value, Mapping):
        return {key: _filled(part, given) for key, part in value.items()}
    return [_filled(part, given) for part in value] if isinstance(value, list) else value


def _chunks(value: Any) -> Iterator[bytes | Text]:
    if isinstance(value, Text):
        yield value if value.constant is None else canonical(value.constant)
    elif isinstance(value, Mapping):
        for number, (key, part) in enumerate(value.items()):
            yield (b"," if number else b"{") + canonical(str(key)) + b":"
            yield from _chunks(part)
        yield b"}" if value else b"{}"
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield b"," if number else b"["
            yield from _chunks(part)
        yield b"]" if value else b"[]"
    else:
        yield canonical(value)


def _json_text(text: Text, rendered: str) -> bytes:
    try:
        return orjson.dumps(rendered)
    except TypeError:
        raise RowFailed(
            "template_render_failed", "its text is not Unicode (half of a surrogate pair)", text.slot, 1
        ) from None


def _tagged(value: Any) -> Any:
    """A tree as lists that cannot be mistaken for another: order kept, templates apart from texts."""
    if isinstance(value, (Text, Slot)):
        return ["template", value.text if isinstance(value, Slot) else value.slot.text]
    if isinstance(value, Mapping):
        return ["object", [[str(key), _tagged(part)] for key, part in value.items()]]
    if isinstance(value, (list, tuple)):
        return ["array", [_tagged(part) for part in value]]
    return ["value", value]


def _hash(*parts: Any) -> str:
    return hashlib.sha256(canonical(list(parts))).hexdigest()
