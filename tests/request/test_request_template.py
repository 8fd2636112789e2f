"""Templates: NULLs, what they name, what is fixed, and how they fail."""

from __future__ import annotations

from typing import Any

import jinja2
import jinja2.meta
import pytest
from hypothesis import given
from hypothesis import strategies as st
from request_cases import TEMPLATES
from request_parts import make_job, prompt_of

from batchops.diagnostics import BatchopsError
from batchops.request.endpoints import Slot
from batchops.request.sandbox import Environment
from batchops.request.template import CompiledRequest, compile_request
from batchops.request.text import RowFailed, compile_text


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ n is none }} {{ n == none }} {{ 'a' if n else 'b' }} {{ n is defined }}", "True True b True"),
        ("{{ n | default('d') }}|{{ n | d }}", "d|"),
        ("{{ n | tojson }}", "null"),
        ("{{ [n, 1] | tojson }}", "[null,1]"),
        ("{% if n is not none %}{{ n }}{% endif %}", ""),
        ("{{ n in ['a', none] }} {{ n in ['a'] }}", "True False"),
    ],
)
@pytest.mark.parametrize("nulls", ["error", "empty", "text"])
def test_null_that_is_only_tested_is_fine_under_every_policy(template: str, text: str, nulls: str) -> None:
    assert prompt_of(template, {"n": None}, nulls=nulls) == text


@pytest.mark.parametrize(
    ("template", "empty", "text"),
    [
        ("<{{ n }}>", "<>", "<None>"),
        ("{{ n | upper }}", "", "NONE"),
        ("{{ 'a' ~ n }}", "a", "aNone"),
        ("{{ n | trim }}", "", "None"),
        ("{{ n | replace('o', '0') }}", "", "N0ne"),
        ("{{ n | truncate(2, true, '', 0) }}", "", "No"),
        ("{{ [n, 'x'] | join(',') }}", ",x", "None,x"),
        ("{{ n | length }}", "0", "4"),
        ("{{ s.k }}", "", "None"),
        ("{{ s.k ~ s.l[0] }}", "", "NoneNone"),
        ("{{ '%s' | format(n) }}", "", "None"),
        ("{% for c in n %}{{ c }}.{% endfor %}", "", "N.o.n.e."),
    ],
)
def test_null_that_is_printed_follows_the_policy(template: str, empty: str, text: str) -> None:
    row = {"n": None, "s": {"k": None, "l": [None]}}
    assert prompt_of(template, row, nulls="empty") == empty
    assert prompt_of(template, row, nulls="text") == text
    with pytest.raises(RowFailed) as failed:
        prompt_of(template, row)
    assert failed.value.code == "null_in_template"


def test_null_error_names_the_column_and_the_line() -> None:
    with pytest.raises(RowFailed, match='column "title" is NULL') as failed:
        prompt_of("a\nb\n{{ title | upper }}\n", {"title": None})
    assert failed.value.line == 3


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ nope }}", "'nope' is undefined"),
        ("{{ t.nope }}", "'str object' has no attribute 'nope'"),
        ("{{ d[t] }}", "a mapping has no attribute '…'"),
        ("{{ t | int('x') + 1 }}", 'can only concatenate str (not "int") to str'),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ t | fromjson }}", "a value does not fit"),
        ("{{ 10.0 ** 999 }}", "a number is out of range"),
        ("{{ [1] | map('string') }}", "a generator has no text"),
        ("{{ t.upper }}", "a builtin_function_or_method has no text"),
        ("{{ t.__class__ }}", "access to attribute '__class__' of 'str' object is unsafe."),
        ("{{ '\\ud800' }}", "its text is not Unicode (half of a surrogate pair)"),
    ],
)
def test_failure_says_why_and_shows_nothing_of_the_row(template: str, reason: str) -> None:
    with pytest.raises(RowFailed) as failed:
        prompt_of(template, {"t": "secret", "d": {"a": 1}})
    assert (failed.value.code, failed.value.reason) == ("template_render_failed", reason)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{% if true %}\n  a\n  {% endif %}\nb\n", "  a\nb"),
        ("a\r\nb\n\n", "a\nb\n"),
        ("{# note #}a{#- b -#} c", "ac"),
        ("{{ t | tojson }}", '"<b>&\'\\u001b\u2028"'),
        ("{{ t }}", "<b>&'\x1b\u2028"),
        (
            "{% for x in [1, 2, 3] %}{{ loop.index }}/{{ loop.length }}{{ ',' if not loop.last }}{% endfor %}",
            "1/3,2/3,3/3",
        ),
        ("{% set ns = namespace(n=0) %}{% for x in [1, 2] %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}", "3"),
        ("{% macro m(x) %}[{{ x }}]{% endmacro %}{{ m(1) ~ m('a') }}", "[1][a]"),
        ("{{ 'x: %s, %5.2f' % (t[1], 2) }}|{{ '{:>4}|{}'.format(1, 20000000) }}", "x: b,  2.00|   1|20000000"),
        ("{{ 'a-b'.split('-') | map('upper') | list }}", '["A","B"]'),
        ("{{ 'a' | indent(2, first=true) }}|{{ ['a'] | map('indent', first=true) | list }}", '  a|["    a"]'),
        ("{% filter indent(width=1, first=true) %}a{% endfilter %}", " a"),
        ("{{ '%(first)s %(last)s' | format(first='a', last='b') }}", "a b"),
        ("{{ {'a': [1, (2, 3)]} }}", '{"a":[1,[2,3]]}'),
    ],
)
def test_jinja_runs_as_documented(template: str, text: str) -> None:
    assert prompt_of(template, {"t": "<b>&'\x1b\u2028"}) == text


@pytest.mark.parametrize(
    ("template", "columns", "optional"),
    [
        ("{{ b }} {{ a.b | upper }} {{ range(3) | list }}", {"a", "b"}, set()),
        ("{% for x in xs %}{{ x }}{{ loop.index }}{% endfor %}{% set y = z %}{{ y }}", {"xs", "z"}, set()),
        ("{% if a is defined %}{{ a }}{% endif %}", {"a"}, {"a"}),
        ("{{ a | default('') }} {{ b | d(c) }} {{ b }}", {"a", "b", "c"}, {"a"}),
        ("no template", set(), set()),
        ("{{ 'x' }}", set(), set()),
    ],
)
def test_template_knows_the_columns_that_it_names(template: str, columns: set[str], optional: set[str]) -> None:
    request = compile_request(make_job(template))
    assert set(request.columns) == columns
    assert {name for text in request.all_texts for name in text.optional} == optional


@given(template=TEMPLATES)
def test_what_is_compiled_at_its_first_use_names_the_columns_that_jinja_asks_for(template: str) -> None:
    environment = Environment("error")
    text = compile_text(environment, Slot(template, ()))
    asked = jinja2.meta.find_undeclared_variables(environment.parse(template)) - set(environment.globals)
    assert text.columns == asked
    assert text.constant is not None or text.template


@pytest.mark.parametrize(
    ("template", "is_sure"),
    [
        ("{% if a is defined and b[0].c > 1 %}{{ a | upper }}{% elif b %}{{ 'x' if b else 2.5 }}{% endif %}", True),
        ("{% if a %}" * 18 + "{% endif %}" * 18, True),
        ("{% if a %}" * 19 + "{% endif %}" * 19, False),
        ("{% if a %}" + "{% elif a %}" * 20 + "{% endif %}", False),
        ("{{ self }}", False),
        ("{{ a | f }}", False),
        ("{{ a if a else a | f }}", False),
        ("{{ a if a else a is f }}", False),
        (f"{{{{ a }}}}{{{{ {2**64} }}}}", False),
        ("{{ a | default('x', boolean=true) }}", False),
        ("{{ [a] }}", False),
        ("{{ a + 1 }}", False),
        ("{{ a.b() }}", False),
        ("{% set b = a %}{{ b }}", False),
        ("{% for b in a %}{{ b }}{% endfor %}", False),
    ],
)
def test_what_is_sure_to_compile_is_compiled_at_its_first_use(template: str, *, is_sure: bool) -> None:
    try:
        text = compile_text(Environment("error"), Slot(template, ()))
    except jinja2.TemplateSyntaxError:
        assert not is_sure
    else:
        assert ("template" in vars(text)) is not is_sure
        assert text.template


@pytest.mark.parametrize(
    ("template", "detail"),
    [
        ("{{ a | uper }}", "No filter named 'uper'. Did you mean \"upper\"?"),
        ("{{ a is nonee }}", "No test named 'nonee'. Did you mean \"none\"?"),
        ("{{ a", "Unexpected end of template, expected 'end of print statement'."),
        ("{% for x in a %}", "Unexpected end of template"),
        ("{% include 'x' %}", '"include" is not available in a template.'),
        ("{% import 'x' as y %}", '"import" is not available in a template.'),
        ("{% extends 'x' %}", '"extends" is not available in a template.'),
        ("{% block b %}{% endblock %}", '"block" is not available in a template.'),
        ("{% autoescape true %}{% endautoescape %}", '"autoescape" is not available in a template.'),
        ("{% for x in a recursive %}{% endfor %}", "A recursive loop is not available in a template."),
        ("{{ [1] | random }}", "No filter named 'random'."),
    ],
)
def test_what_is_no_template_is_told_at_once(template: str, detail: str) -> None:
    with pytest.raises(BatchopsError) as refused:
        compile_request(make_job([{"role": "user", "content": "ok"}, {"role": "user", "content": template}]))
    (found,) = refused.value.diagnostics
    assert found.code == "template_syntax"
    assert detail in found.detail


@pytest.mark.parametrize(
    "template", ["{{ 1 if 0.1.a else 2 }}{{ t }}", "{{ t if false[-2:] else t }}", "{{ 1 // 0 }}{{ t }}"]
)
def test_an_expression_without_a_column_is_evaluated_for_a_row_and_not_before(template: str) -> None:
    request = compile_request(make_job(template))
    assert request.columns == ("t",)
    with pytest.raises(RowFailed):
        request.body({"t": "x"})


@pytest.mark.filterwarnings("error")
def test_code_that_jinja_writes_warns_nobody() -> None:
    compile_request(make_job("{{ t if true[::2] is defined }}"))


def test_every_broken_template_of_a_job_is_told() -> None:
    with pytest.raises(BatchopsError) as refused:
        compile_request(make_job([{"role": "user", "content": "{{"}, {"role": "user", "content": "{{ a | x }}"}]))
    assert len(refused.value.diagnostics) == 2


def _request(**fields: Any) -> CompiledRequest:
    schema = fields.pop("schema", None)
    return compile_request(make_job(**{"template": "{{ id }}", **fields}, schema=schema))


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"template": "{{ id }}!"}, "prompt"),
        ({"template": [{"role": "system", "content": "{{ id }}"}]}, "prompt"),
        ({"nulls": "empty"}, "prompt"),
        ({"model": "n"}, "model"),
        ({"params": {"seed": 1}}, "params"),
        ({"schema": {"type": "object"}}, "schema"),
        ({"tools": [{"type": "function"}]}, "schema"),
        ({"tool_choice": "auto"}, "schema"),
    ],
)
def test_edit_changes_the_render_id_and_the_part_that_it_belongs_to(fields: dict[str, Any], part: str) -> None:
    before, after = _request(), _request(**fields)
    assert before.render_id != after.render_id
    assert {name for name in before.parts if before.parts[name] != after.parts[name]} == {part}


@pytest.mark.parametrize(
    "fields", [{"name": "other"}, {"description": "x"}, {"retry": {"max_attempts": 9}}, {"sensitive": ["id"]}]
)
def test_metadata_changes_no_render_id(fields: dict[str, Any]) -> None:
    assert _request(**fields).render_id == _request().render_id
    assert _request(**fields).parts == _request().parts


def test_order_of_params_and_of_schema_properties_counts() -> None:
    assert _request(params={"a": 1, "b": 2}).render_id != _request(params={"b": 2, "a": 1}).render_id
    one: dict[str, Any] = {"properties": {"a": {}, "b": {}}}
    other: dict[str, Any] = {"properties": {"b": {}, "a": {}}}
    assert _request(schema=one).render_id != _request(schema=other).render_id


def test_constant_text_and_a_template_of_the_same_letters_are_different_ids() -> None:
    assert _request(template="{{ id }}").render_id != _request(template="{{ '{{ id }}' }}").render_id


@pytest.mark.parametrize(
    ("amendment", "body"),
    [
        ({"cap": {"max_completion_tokens": 800}}, {"temperature": 1, "max_completion_tokens": 800}),
        ({"set": {"temperature": 0, "seed": 3}}, {"temperature": 0, "max_completion_tokens": 400, "seed": 3}),
        ({"model": "big"}, {"model": "big", "temperature": 1, "max_completion_tokens": 400}),
        ({"template": "New {{ id }}"}, {"messages": [{"role": "user", "content": "New 7"}]}),
        (
            {"template": [{"role": "system", "content": "S"}, {"role": "user", "content": "{{ id }}"}]},
            {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "7"}]},
        ),
        ({}, {}),
    ],
)
def test_amendment_changes_the_body_as_a_retry_wants_it(amendment: dict[str, Any], body: dict[str, Any]) -> None:
    request = _request(params={"temperature": 1, "max_completion_tokens": 400})
    plain = request.body({"id": 7})
    amended = request.amended(amendment)
    assert amended.body({"id": 7}) == {**plain, **body}
    assert list(amended.body({"id": 7}))[:4] == ["model", "messages", "temperature", "max_completion_tokens"]
    assert amended.amended(amendment).canonical({"id": 7}) == amended.canonical({"id": 7})


def test_template_of_an_amendment_takes_the_place_of_a_body() -> None:
    request = _request(template=None, body={"messages": [{"role": "user", "content": "{{ id }}"}]})
    assert request.amended({"template": "x"}).body({"id": 7})["messages"] == [{"role": "user", "content": "x"}]


@given(st.text(st.sampled_from("a b}%#-\\\n\r\x0b\x85\u2028é")))
def test_text_without_markup_is_what_jinja2_makes_of_it(text: str) -> None:
    assert prompt_of(text, {}) == jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(text).render()
