"""Whether the parameters of a request fit its endpoint and model, so that no batch comes back full of refusals.

The facts are those of the API reference and of answers seen in 2026-08: a parameter that does not fit is refused line
by line, after the whole file was accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from batchops.diagnostics import Diagnostic, error, nearest, warning
from batchops.spec.document import Path
from batchops.spec.job import Endpoint, JobSpec
from batchops.spec.models import endpoints_of, is_known_chat, is_reasoning, why_not_batchable
from batchops.spec.parameters import ELSEWHERE, OF_SERVICES, PARAMETERS


@dataclass(frozen=True)
class Finding:
    """A diagnostic and the path of the spec it is about; `at_key` points at the key instead of the value.

    `depends` are further paths whose values it was drawn from.
    """

    diagnostic: Diagnostic
    path: Path
    at_key: bool = False
    depends: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Takes:
    """What an endpoint takes: its input key, its output caps (the best first), and what else it can do."""

    input: str
    caps: tuple[str, ...] = ()
    has_messages: bool = False
    has_schema: bool = False
    has_tools: bool = False


ENDPOINTS: Final[Mapping[Endpoint, Takes]] = {
    "/v1/chat/completions": Takes("messages", ("max_completion_tokens", "max_tokens"), True, True, True),
    "/v1/responses": Takes("input", ("max_output_tokens",), True, True, True),
    "/v1/embeddings": Takes("input"),
    "/v1/moderations": Takes("input"),
    "/v1/completions": Takes("prompt", ("max_tokens",)),
}
CAPS: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_MIN_OUTPUT_TOKENS: Final = 16
_SLIP_LIKENESS: Final = 0.85
"""So like is a slip. `min_tokens` and `top_k`, which some services have, are 0.8 like `max_tokens` and `top_p`."""
_SAMPLING: Final = {"temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0, "logprobs": False}
_MOVED: Final[Mapping[Endpoint, Mapping[str, str]]] = {
    "/v1/responses": {
        "reasoning_effort": "reasoning: {effort: …}",
        "verbosity": "text: {verbosity: …}",
        "response_format": "text: {format: …}",
        "n": "one answer a row",
    },
    "/v1/chat/completions": {"reasoning": "reasoning_effort:", "text": "verbosity: or response_format:"},
}


@dataclass(frozen=True)
class Given:
    """Parameters as one request would send them, and where each is written."""

    model: str
    endpoint: Endpoint
    values: Mapping[str, Any]
    paths: Mapping[str, Path]

    def findings(self, diagnostic: Diagnostic, name: str) -> Finding:
        return Finding(diagnostic, self.paths[name], at_key=True, depends=(("model",), ("endpoint",)))


def check_params(spec: JobSpec) -> Iterator[Finding]:
    """Everything about params, body and the `set` of retry rules that the endpoint or the model would refuse."""
    given = _given(spec)
    for check in _CHECKS:
        yield from check(given)
    for index, rule in enumerate(spec.retry.rules):
        yield from _check_rule(given, index, rule.set or {}, rule.model)


def _given(spec: JobSpec) -> Given:
    body = {name: value for name, value in (spec.body or {}).items() if name not in spec.params}
    paths: dict[str, Path] = {name: ("body", name) for name in body}
    paths |= {name: ("params", name) for name in spec.params}
    return Given(spec.model, spec.endpoint, {**body, **spec.params}, paths)


def _check_rule(given: Given, index: int, extra: Mapping[str, Any], model: str | None) -> Iterator[Finding]:
    """What a rule would add: only findings that the job without the rule does not have."""
    here: Path = ("retry", "rules", index)
    paths: dict[str, Path] = dict.fromkeys(given.paths, (*here, "model"))
    paths |= {name: (*here, "set", name) for name in extra}
    dropped = {cap for cap in CAPS if cap not in extra and any(other in extra for other in CAPS)}
    values = {name: value for name, value in {**given.values, **extra}.items() if name not in dropped}
    ruled = Given(model or given.model, given.endpoint, values, paths)
    touched = set(paths) if model else set(extra)
    for check in _CHECKS:
        known = {finding.diagnostic.detail for finding in check(given)}
        for finding in check(ruled):
            if any(finding.path == paths[name] for name in touched) and finding.diagnostic.detail not in known:
                yield finding


def _stream(given: Given) -> Iterator[Finding]:
    if given.values.get("stream", False) is not False:
        detail = "Answers of a batch arrive as a file: the Batch API refuses stream. Remove it."
        yield given.findings(error("stream_param", "Streaming is not possible.", detail), "stream")


def _caps(given: Given) -> Iterator[Finding]:
    written = [name for name in CAPS if name in given.values]
    accepted = _accepted_caps(given)
    for name in written:
        if name not in accepted:
            yield given.findings(_wrong_cap(given, name, accepted), name)
        else:
            yield from _cap_value(given, name)
    if len(written) > 1 and all(name in accepted for name in written):
        detail = f"{' and '.join(written)} say the same; keep {accepted[0]}."
        yield given.findings(error("token_cap", "The token cap does not fit.", detail), written[-1])


def _accepted_caps(given: Given) -> tuple[str, ...]:
    caps = ENDPOINTS[given.endpoint].caps
    if given.endpoint == "/v1/chat/completions" and is_reasoning(given.model):
        return caps[:1]
    return caps


def _wrong_cap(given: Given, name: str, accepted: tuple[str, ...]) -> Diagnostic:
    if not accepted:
        detail = f"{given.endpoint} writes no text and takes no {name}. Remove it."
    elif name in ENDPOINTS[given.endpoint].caps:
        detail = f"{given.model} refuses {name}; use {accepted[0]}, which counts its reasoning too."
    else:
        detail = f"{given.endpoint} takes no {name}; use {accepted[0]}."
    return error("token_cap", "The token cap does not fit.", detail, fixes=accepted[:1])


def _cap_value(given: Given, name: str) -> Iterator[Finding]:
    value = given.values[name]
    least = _MIN_OUTPUT_TOKENS if name == "max_output_tokens" else 1
    if isinstance(value, str) and given.paths[name][0] == "body":
        return  # rendered with the row
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        detail = f"{name} must be a whole number of at least {least}."
        yield given.findings(error("token_cap", "The token cap does not fit.", detail), name)


def _sampling(given: Given) -> Iterator[Finding]:
    if not is_reasoning(given.model):
        if "reasoning_effort" in given.values and is_known_chat(given.model):
            detail = f"{given.model} does not reason and is likely to refuse reasoning_effort."
            yield given.findings(warning("reasoning_param", "The model may refuse this.", detail), "reasoning_effort")
        return
    for name, neutral in _SAMPLING.items():
        if given.values.get(name, neutral) != neutral:
            detail = f"{given.model} reasons, and reasoning models refuse {name}: every row may come back as an error."
            yield given.findings(warning("reasoning_param", "The model may refuse this.", detail), name)


def _moved(given: Given) -> Iterator[Finding]:
    for name, instead in _MOVED.get(given.endpoint, {}).items():
        if name in given.values:
            detail = f"{given.endpoint} knows no {name}; write {instead}."
            yield given.findings(warning("param_endpoint", "Not a parameter of this endpoint.", detail), name)


def _slips(given: Given) -> Iterator[Finding]:
    known, of_any = PARAMETERS[given.endpoint], ELSEWHERE.union(OF_SERVICES, *PARAMETERS.values())
    for name in given.values:
        if name not in of_any and (meant := nearest(name, known, likeness=_SLIP_LIKENESS)):
            accepted = _accepted_caps(given)
            meant = accepted[0] if meant in CAPS and meant not in accepted else meant
            detail = (
                f'{given.endpoint} knows no "{name}". Did you mean "{meant}"? It is sent as it is written: a service'
                " may refuse every row, or pass it over."
            )
            yield given.findings(warning("param_unknown", "Not a known parameter.", detail, fixes=(meant,)), name)


_CHECKS: Final[tuple[Callable[[Given], Iterator[Finding]], ...]] = (_stream, _caps, _sampling, _moved, _slips)


def check_model(spec: JobSpec) -> Iterator[Finding]:
    """Warn about models that the Batch API, or the endpoint, does not take."""
    if (kind := why_not_batchable(spec.model)) is not None:
        detail = f'"{spec.model}" is one of the {kind}, which the Batch API does not take.'
        yield Finding(warning("model_not_batchable", "The model cannot be asked in a batch.", detail), ("model",))
        return
    known = endpoints_of(spec.model)
    if known is not None and spec.endpoint not in known:
        detail = f'"{spec.model}" answers {" and ".join(known)}, not {spec.endpoint}.'
        found = warning("model_endpoint", "The model does not answer this endpoint.", detail, fixes=known)
        path: Path = ("endpoint",) if "endpoint" in spec.model_fields_set else ("model",)
        yield Finding(found, path, depends=(("model",), ("endpoint",)))
