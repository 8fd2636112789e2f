"""What one job must fulfil beyond its types. Pure: a spec in, findings out; files and other jobs are `load`'s part.

`STRUCTURE` decides whether a job can be rendered at all; the findings of `CONTENT` leave it readable.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from batchops.diagnostics import did_you_mean, error, warning
from batchops.spec.document import Path
from batchops.spec.job import FileText, JobSpec, Message, Outcome, Rule, Template
from batchops.spec.params import ENDPOINTS, Finding, check_model, check_params

Check = Callable[[JobSpec], Iterator[Finding]]

LATER: Final = ("budget", "rollout", "checks", "evaluate", "output", "matrix")
_WINDOW = re.compile(r"[1-9][0-9]*[hd]\Z")
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
_CHOICES: Final = ("auto", "required", "none")
_RESERVED: Final = "batchops_"
_KEY_CHARACTERS, _VALUE_CHARACTERS = 64, 512
_EXPIRY = (timedelta(hours=1), timedelta(days=30))
_INT64 = 2**63
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "/v1/chat/completions": ("messages",),
    "/v1/responses": ("input", "prompt"),
    "/v1/embeddings": ("input",),
    "/v1/moderations": ("input",),
    "/v1/completions": ("prompt",),
}
_RESULTS_TABLE = re.compile(r'\b(?:from|join)\s+"?results"?\s*\.', re.IGNORECASE)
_NOT_CODE = re.compile(r"'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/|\$\$.*?\$\$", re.DOTALL)


def reads_results(sql: str) -> bool:
    """Whether a query takes rows from the answers of another job: `FROM results."extract"`."""
    return _RESULTS_TABLE.search(_NOT_CODE.sub(" ", sql)) is not None


def check_supported(spec: JobSpec) -> Iterator[Finding]:
    """Keys that are described and do nothing yet are refused: a limit that is ignored in silence costs money."""
    for name in LATER:
        if getattr(spec, name) is not None:
            yield not_supported(f'"{name}"', (name,))
    if spec.source.attach is not None:
        yield not_supported('"source.attach"', ("source", "attach"))


def not_supported(what: str, path: Path) -> Finding:
    """The finding that a part of the job format is not built yet."""
    detail = f"{what} is not supported by this version, and it is not ignored either. Remove it for now."
    return Finding(error("not_supported_yet", "Not supported yet.", detail), path, at_key=True)


def check_query(spec: JobSpec) -> Iterator[Finding]:
    """Exactly one of query: and file:."""
    source = spec.source
    if (source.query is None) == (source.file is None):
        said = "has neither query: nor file:" if source.query is None else "has both query: and file:"
        diagnostic = error("query_choice", "One query is needed.", f'"source" {said}; write one of them.')
        yield Finding(diagnostic, ("source",), depends=(("source", "query"), ("source", "file")))
    elif source.query is not None and not source.query.strip():
        yield Finding(error("query_choice", "One query is needed.", '"source.query" is empty.'), ("source", "query"))


def check_key(spec: JobSpec) -> Iterator[Finding]:
    """Key columns stand once each."""
    seen: set[str] = set()
    for index, column in enumerate(spec.source.key):
        if column in seen or not column:
            why = f'has "{column}" twice' if column else "has an empty name"
            yield Finding(error("invalid_value", "Invalid value.", f'"source.key" {why}.'), ("source", "key", index))
        seen.add(column)


def check_template(spec: JobSpec) -> Iterator[Finding]:
    """Exactly one of template: and body:, in a form that the endpoint takes."""
    if (spec.template is None) == (spec.body is None):
        said, path = _template_choice(spec)
        diagnostic = error("template_choice", "One template is needed.", f"The job {said}; write one of them.")
        yield Finding(diagnostic, path, at_key=True, depends=(("template",), ("body",)))
    elif spec.template is not None:
        yield from _template_form(spec, spec.template, ("template",))
    for index, rule in enumerate(spec.retry.rules):
        if rule.template is not None:
            yield from _template_form(spec, rule.template, ("retry", "rules", index, "template"))


def _template_choice(spec: JobSpec) -> tuple[str, Path]:
    """Why there is not one template, and where that shows."""
    if spec.template is not None:
        return "has both template: and body:", ("body",)
    written = [name for name in ("template", "body") if name in spec.model_fields_set]
    if written:
        return f"says nothing under {' or '.join(f'{name}:' for name in written)}", (written[0],)
    return "has neither template: nor body:", ()


def _template_form(spec: JobSpec, template: Template, path: Path) -> Iterator[Finding]:
    if isinstance(template, tuple) and not ENDPOINTS[spec.endpoint].has_messages:
        detail = f"{spec.endpoint} takes one text, not a list of messages. Write it as one template."
        yield Finding(error("template_form", "The template does not fit.", detail), path, depends=(("endpoint",),))
    elif not isinstance(template, FileText) and not (template.strip() if isinstance(template, str) else template):
        yield Finding(error("template_form", "The template does not fit.", "It is empty."), path)
    if isinstance(template, tuple):
        for index, message in enumerate(template):
            if message.content == ():
                detail = "A message has at least one content part."
                found = error("template_form", "The template does not fit.", detail)
                yield Finding(found, (*path, index, "content"))


def check_body(spec: JobSpec) -> Iterator[Finding]:
    """A body: holds what its endpoint cannot do without."""
    needed = _NEEDED[spec.endpoint]
    if spec.body is not None and not any(name in spec.body or name in spec.params for name in needed):
        detail = f'{spec.endpoint} needs "{needed[0]}" in its body.'
        found = error("body_incomplete", "The body is incomplete.", detail)
        yield Finding(found, ("body",), at_key=True, depends=(("endpoint",), ("params",)))


def check_conflicts(spec: JobSpec) -> Iterator[Finding]:
    """Nothing of the request body is written in two places."""
    taken = _written_elsewhere(spec)
    for section, values in (("params", spec.params), ("body", spec.body or {})):
        for name in values:
            if name == "model" and values[name] == spec.model:
                continue
            if (where := taken.get(name)) is not None:
                detail = f'"{name}" is written as {where} of the job, not here.'
                found = error("param_conflict", "The parameter has another place.", detail)
                yield Finding(found, (section, name), at_key=True, depends=(("model",), ("endpoint",), ("template",)))
    for name in (spec.body or {}).keys() & spec.params.keys():
        detail = f'"{name}" stands in body: already.'
        found = error("param_conflict", "The parameter has another place.", detail)
        yield Finding(found, ("params", name), at_key=True)


def _written_elsewhere(spec: JobSpec) -> dict[str, str]:
    taken = {"model": "model:", "tools": "tools:", "tool_choice": "tool_choice:"}
    if spec.template is not None:
        taken[ENDPOINTS[spec.endpoint].input] = "template:"
    if spec.schema_ is not None and spec.endpoint == "/v1/chat/completions":
        taken["response_format"] = "schema:"
    text = spec.params.get("text")
    if spec.schema_ is not None and spec.endpoint == "/v1/responses" and isinstance(text, dict) and "format" in text:
        taken["text"] = "schema:, which makes text.format,"
    return taken


def check_answer_form(spec: JobSpec) -> Iterator[Finding]:
    """schema: or tools:, where the endpoint has them."""
    takes = ENDPOINTS[spec.endpoint]
    hint = "Only /v1/chat/completions and /v1/responses have it."
    if spec.schema_ is not None and not takes.has_schema:
        detail = f"{spec.endpoint} has no structured output. {hint}"
        found = error("schema_endpoint", "No schema on this endpoint.", detail)
        yield Finding(found, ("schema",), at_key=True, depends=(("endpoint",),))
    if spec.tools is not None and not takes.has_tools:
        detail = f"{spec.endpoint} calls no tools. {hint}"
        found = error("tools_endpoint", "No tools on this endpoint.", detail)
        yield Finding(found, ("tools",), at_key=True, depends=(("endpoint",),))
    if spec.schema_ is not None and spec.tools is not None:
        detail = "The answer is either a text that fits the schema or the arguments of a tool; remove one of the two."
        yield Finding(
            error("schema_and_tools", "Schema and tools exclude each other.", detail), ("tools",), at_key=True
        )
    if spec.tool_choice is not None and spec.tools is None:
        detail = "tool_choice: chooses among tools:, and there are none."
        found = error("tool_form", "The tool does not fit.", detail)
        yield Finding(found, ("tool_choice",), at_key=True, depends=(("tools",),))
    elif (why := _choice_problem(spec)) is not None:
        found = error("tool_form", "The tool does not fit.", why)
        yield Finding(found, ("tool_choice",), depends=(("tools",),))


def _choice_problem(spec: JobSpec) -> str | None:
    """What a tool_choice names must be among the tools. Of other mappings the service knows more than we do."""
    choice, names = spec.tool_choice, [function_of(tool)[0].get("name") for tool in spec.tools or ()]
    if isinstance(choice, str) and choice not in _CHOICES:
        hint = " Write {type: function, function: {name: …}} for one function." if choice in names else ""
        return f'"{choice}" is none of {", ".join(_CHOICES)}.{did_you_mean(choice, _CHOICES)}{hint}'
    if not isinstance(choice, Mapping) or choice.get("type", "function") != "function":
        return None
    name = function_of(choice)[0].get("name")
    if name in names:
        return None
    known = [str(known) for known in names]
    return f'tool_choice: names "{name}", and tools: has {", ".join(known)}.{did_you_mean(str(name), known)}'


def check_tools(spec: JobSpec) -> Iterator[Finding]:
    """Each tool is a function with a name of its own and a mapping of parameters."""
    if spec.tools == ():
        yield Finding(error("tool_form", "The tool does not fit.", "The list is empty."), ("tools",))
    seen: set[str] = set()
    for index, tool in enumerate(spec.tools or ()):
        function, at = function_of(tool)
        if (why := _tool_problem(tool, function, seen)) is not None:
            yield Finding(error("tool_form", "The tool does not fit.", why), ("tools", index, *at))
        if isinstance(function.get("name"), str):
            seen.add(str(function["name"]))


def function_of(tool: Mapping[str, Any]) -> tuple[Mapping[str, Any], Path]:
    """The function of a tool and its path in it: nested as chat writes it, or flat as responses does."""
    inner = tool.get("function")
    return (inner, ("function",)) if isinstance(inner, Mapping) else (tool, ())


def _tool_problem(tool: Mapping[str, Any], function: Mapping[str, Any], seen: set[str]) -> str | None:
    if tool.get("type", "function") != "function":
        return f'Only functions work in a batch, not "{tool.get("type")}".'
    name = function.get("name")
    if not isinstance(name, str) or not _TOOL_NAME.match(name):
        return "A function needs a name of at most 64 letters, digits, _ and -."
    if name in seen:
        return f'Two functions are named "{name}".'
    if not isinstance(function.get("parameters", {}), Mapping):
        return "parameters must be a JSON Schema."
    return None


def check_batch(spec: JobSpec) -> Iterator[Finding]:
    """Metadata, window and expiry as the Batch API takes them."""
    batch = spec.batch
    for key, value in batch.metadata.items():
        path: Path = ("batch", "metadata", key)
        if key.startswith(_RESERVED):
            detail = f'Keys that begin with "{_RESERVED}" find our own batches again; choose another.'
            yield Finding(error("reserved_metadata", "The metadata key is reserved.", detail), path, at_key=True)
        elif not key or len(key) > _KEY_CHARACTERS or len(value) > _VALUE_CHARACTERS:
            detail = f"A key has 1 to {_KEY_CHARACTERS} characters, a value at most {_VALUE_CHARACTERS}."
            yield Finding(error("metadata_limit", "The metadata is too long.", detail), path, at_key=True)
    if not _WINDOW.match(batch.completion_window):
        detail = f'"{batch.completion_window}" is no window; write whole hours or days, such as 24h.'
        found = error("completion_window", "Not a completion window.", detail, fixes=("24h",))
        yield Finding(found, ("batch", "completion_window"))
    expiry = batch.output_expires_after
    if expiry is not None and not _EXPIRY[0] <= expiry <= _EXPIRY[1]:
        found = error("output_expiry", "Not an expiry.", "Output files can be kept for 1h to 30d.")
        yield Finding(found, ("batch", "output_expires_after"))


def check_retry(spec: JobSpec) -> Iterator[Finding]:
    """Rules that can do something."""
    backoff = spec.retry.backoff
    if backoff.initial > backoff.max:
        found = error("invalid_value", "Invalid value.", '"retry.backoff.initial" is longer than "max".')
        yield Finding(found, ("retry", "backoff", "initial"), depends=(("retry", "backoff", "max"),))
    covered: set[Outcome] = set()
    for index, rule in enumerate(spec.retry.rules):
        path: Path = ("retry", "rules", index)
        if (why := _rule_problem(rule)) is not None:
            yield Finding(error("rule_conflict", "The rule contradicts itself.", why), path)
        if set(rule.when) <= covered:
            detail = "Rules above it take every outcome that it names: the first match wins."
            yield Finding(warning("unreachable_rule", "The rule is never used.", detail), path)
        covered |= set(rule.when)


def _rule_problem(rule: Rule) -> str | None:
    changes = [name for name in ("cap", "set", "model", "template") if getattr(rule, name) is not None]
    if rule.do != "retry" and changes:
        return f'"{changes[0]}" changes a retry, and this rule says {rule.do}.'
    if Outcome.SUCCEEDED in rule.when:
        return '"succeeded" is no failure: an answered row is never asked again.'
    if rule.cap is not None and float(rule.cap[1:]) <= 1:
        return f"cap: {rule.cap} does not enlarge the cap."
    return None


def check_json(spec: JobSpec) -> Iterator[Finding]:
    """What goes into a request must have a JSON form."""
    parts: list[tuple[Path, Any]] = [(("params",), spec.params), (("body",), spec.body), (("tools",), spec.tools)]
    parts += [(("tool_choice",), spec.tool_choice), (("schema",), spec.schema_)]
    parts += [(("retry", "rules", index, "set"), rule.set) for index, rule in enumerate(spec.retry.rules)]
    if isinstance(spec.template, tuple):
        parts += [(("template", i, "content"), _parts(message)) for i, message in enumerate(spec.template)]
    for start, tree in parts:
        for path, value in _numbers(tree, start):
            detail = f"{value} has no JSON form that every service reads; use a finite number below 2^63."
            yield Finding(error("not_json", "Not a JSON value.", detail), path)


def _parts(message: Message) -> Any:
    return message.content if isinstance(message.content, tuple) else None


def _numbers(tree: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _numbers(value, (*path, key))
    elif isinstance(tree, (list, tuple)):
        for index, value in enumerate(tree):
            yield from _numbers(value, (*path, index))
    elif isinstance(tree, float) and not math.isfinite(tree):
        yield path, json.dumps(tree)
    elif isinstance(tree, int) and not -_INT64 <= tree < _INT64:
        yield path, "The number"


STRUCTURE: Final[tuple[Check, ...]] = (check_supported, check_query, check_key, check_template, check_body)
CONTENT: Final[tuple[Check, ...]] = (
    check_conflicts,
    check_answer_form,
    check_tools,
    check_batch,
    check_retry,
    check_json,
    check_params,
    check_model,
)
