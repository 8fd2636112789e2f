"""Templates of a hostile repository end in a diagnostic, soon, and without filling the machine."""

from __future__ import annotations

import resource
from decimal import Decimal

import pytest
from request_parts import make_job, prompt_of

from batchops.diagnostics import BatchopsError
from batchops.request.budget import MAX_SECONDS, Budget, TemplateTooLarge
from batchops.request.template import compile_request
from batchops.request.text import RowFailed

DOUBLING = "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = X %}{% endfor %}{{ ns.x }}"

BOMBS = {
    "text times": "{{ 'a' * 10**10 }}",
    "times text": "{{ 10**10 * 'a' }}",
    "list times": "{{ [1] * 10**10 }}",
    "number times": "{% set ns = namespace(x=9) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "decimal power": "{{ d ** 999999999 }}",
    "long loop": "{% for i in range(10**9) %}x{% endfor %}",
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "silent loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "loop over a filter": "{{ range(99999) | map('center', 99999) | list | length }}",
    "printing in a loop": "{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}",
    "doubling by +": DOUBLING.replace("X", "ns.x + ns.x"),
    "doubling by ~": DOUBLING.replace("X", "ns.x ~ ns.x"),
    "doubling by a list": DOUBLING.replace("X", "[ns.x, ns.x]"),
    "doubling by a tuple": DOUBLING.replace("X", "(ns.x, ns.x)"),
    "doubling by a mapping": DOUBLING.replace("X", "{'a': ns.x, 'b': ns.x}"),
    "doubling by dict()": DOUBLING.replace("X", "dict(a=ns.x, b=ns.x)"),
    "doubling by join": DOUBLING.replace("X", "[ns.x, ns.x] | join"),
    "doubling by format": DOUBLING.replace("X", "'%s%s' % (ns.x, ns.x)"),
    "doubling by str.format": DOUBLING.replace("X", "'{0}{0}'.format(ns.x)"),
    "doubling by replace": DOUBLING.replace("X", "ns.x | replace('a', 'aa')"),
    "doubling by set block": DOUBLING.replace(
        "{% set ns.x = X %}", "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}"
    ),
    "width %": "{{ '%99999999999d' % 1 }}",
    "width % computed": "{{ '%*d' % (10**10, 1) }}",
    "width filter": "{{ '%99999999999d' | format(1) }}",
    "width format": "{{ '{:>99999999999}'.format(1) }}",
    "width format computed": "{{ '{:>{}}'.format(1, 10**10) }}",
    "many fields": "{{ ('{0}' * 99999).format('x' * 99999) }}",
    "center": "{{ 'a' | center(10**10) }}",
    "str.center": "{{ 'a'.center(10**10) }}",
    "ljust": "{{ 'a'.ljust(10**10) }}",
    "zfill": "{{ 'a'.zfill(10**10) }}",
    "indent": "{{ 'a' | indent(10**10, true) }}",
    "replace": "{{ ('a' * 99999) | replace('a', 'b' * 99999) }}",
    "replace nothing": "{{ ('a' * 99999) | replace('', 'b' * 99999) }}",
    "str.replace": "{{ ('a' * 99999).replace('a', 'b' * 99999) }}",
    "str.join": "{{ ('a' * 99999).join(['b'] * 99999) }}",
    "join": "{{ (['b'] * 99999) | join('a' * 99999) }}",
    "batch": "{{ [1] | batch(10**10, 'x') | list }}",
    "slice": "{{ [1] | slice(10**10) | list }}",
    "wordwrap": "{{ ('a' * 99999) | wordwrap(1, true, 'b' * 99999) }}",
    "round": "{{ 1 | round(-10**9) }}",
    "macro tree": "{% macro f(n) %}{{ f(n-1) if n }}{{ f(n-1) if n }}{% endmacro %}{{ f(60) }}",
    "macro for ever": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "tags": "{{ ('<a>' * 99999) | striptags }}",
}  # fmt: skip


@pytest.mark.parametrize("template", BOMBS.values(), ids=BOMBS.keys())
def test_bomb_ends_in_a_diagnostic(template: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RowFailed) as failed:
        prompt_of(template, {"d": Decimal("9.5")})
    assert failed.value.code == "template_too_large"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # KB


def test_bomb_in_a_constant_does_not_go_off_while_compiling() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    compile_request(make_job("{{ 'a' * 10**10 }}{{ 'a' | center(9**9) }}{{ 7 ** 7 ** 7 ** 7 }}"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB


@pytest.mark.parametrize(
    "template",
    [
        "{{" + "(" * 9000 + "1" + ")" * 9000 + "}}",
        "{{" + "-" * 90000 + "1}}",
        "{{ a" + " + a" * 240 + "}}",
        "{% if a %}" * 120 + "{% endif %}" * 120,
    ],
)
def test_expression_nested_beyond_reason_is_refused(template: str) -> None:
    with pytest.raises(BatchopsError) as refused:
        compile_request(make_job(template))
    assert refused.value.diagnostics[0].code in {"template_too_large", "template_syntax"}


@pytest.mark.parametrize("number", ["1" * 4301, f"0x{'f' * 4000}"], ids=["read", "written"])
def test_number_of_thousands_of_digits_is_refused(number: str) -> None:
    with pytest.raises(BatchopsError) as refused:
        compile_request(make_job(f"{{{{ t }}}}{{{{ {number} }}}}"))
    (found,) = refused.value.diagnostics
    assert found.code == "template_too_large"
    assert found.detail == "It holds a number of thousands of digits."


@pytest.mark.parametrize(
    "template",
    [
        "{{ t.to_bytes(10**10, 'big') }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ t.conjugate }}",
        "{{ 'a'.translate({97: 'b' * 99999}) }}",
        "{{ 'a\t'.expandtabs(10**10) }}",
        "{{ [1].append(2) }}",
        "{{ {}.update({1: 2}) }}",
        "{{ range.__init__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ lipsum(5) }}",
        "{{ self }}",
        "{{ range }}",
        "{{ namespace(a=1) }}",
    ],
)
def test_what_is_out_of_reach_fails(template: str) -> None:
    with pytest.raises(RowFailed) as failed:
        prompt_of(template, {"t": 5})
    assert failed.value.code == "template_render_failed"


def test_long_texts_of_honest_rows_pass() -> None:
    text = "word and word; " * 100_000
    assert prompt_of("{{ t | upper | replace('AND', '&') | truncate(1400000, true, '') }}", {"t": text}).startswith(
        "WORD &"
    )


def test_budget_is_whole_again_for_every_row() -> None:
    request = compile_request(make_job("{% for i in range(3000) %}{{ i }}{% endfor %}"))
    assert len({request.canonical({}) for _ in range(100)}) == 1


def test_rendering_that_takes_too_long_is_ended_by_the_clock() -> None:
    now = iter(range(0, 1000, 5))
    budget = Budget(clock=lambda: float(next(now)))
    with pytest.raises(TemplateTooLarge, match=f"{MAX_SECONDS:.0f} seconds"):
        list(budget.each(range(100_000)))
