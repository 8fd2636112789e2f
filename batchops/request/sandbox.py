"""The Jinja2 environment that templates run in: sandboxed, deterministic, and unable to exhaust the machine.

Only named filters, methods and globals exist. Nothing reads a clock, a random source, a file or another template.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import cache
from typing import Any, Final

import orjson
from jinja2 import StrictUndefined, Undefined, filters, pass_context, pass_environment
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace

from batchops.request.budget import (
    Budget,
    TemplateTooLarge,
    check_plus,
    check_power,
    check_times,
    limit,
    limit_elements,
    size_of,
)
from batchops.request.values import Null, canonical_json, decimal_text, is_null, key_text, null_maker, seen

EACH: Final = "_each"
JOINED: Final = "_joined"
MADE: Final = "_made"
"""Filters that `template` puts into parsed templates: a loop's values, the parts of a `~`, a list or mapping made."""


class NoText(TypeError):
    """A template prints something that has no text, such as a generator."""


# --- what would make much out of little, measured before it is done


def _check_format(template: str, values: Iterable[Any]) -> None:
    if re.search(r":[^{}]*\{", template):
        raise TemplateTooLarge("it formats with a width that is computed")
    _limit_fields(template, re.findall(r"\{[^{}]*", template), values)


def _check_percent(template: str, values: Any) -> None:
    if re.search(r"%[^%a-zA-Z]*\*", template):
        raise TemplateTooLarge("it formats with a width that is computed")
    given = values.values() if isinstance(values, Mapping) else values if isinstance(values, tuple) else (values,)
    _limit_fields(template, re.findall(r"%[^%a-zA-Z]*", template), given)


def _limit_fields(template: str, fields: list[str], values: Iterable[Any]) -> None:
    widths = [int(digits[:9]) for field in fields for digits in re.findall(r"\d+", field)]
    limit(len(template) + len(fields) * (max(widths, default=0) + max(map(size_of, values), default=0)))


def _check_replace(text: Any, old: Any, new: Any, count: Any = None) -> None:
    found = str(text).count(str(old))
    limit(len(text) + min(found, count if isinstance(count, int) and count >= 0 else found) * len(str(new)))


def _check_width(text: Any, width: Any = 80, *_: Any) -> None:
    limit(int(width))


def _check_indent(text: str, width: Any = 4, *_: Any, **__: Any) -> None:
    limit(len(text) + (text.count("\n") + 1) * (len(width) if isinstance(width, str) else int(width)))


def _check_elements(values: Any, count: int, *_: Any, **__: Any) -> None:
    limit_elements(count)


def _check_wordwrap(text: str, width: int = 79, break_long_words: bool = True, wrapstring: Any = None, *_: Any) -> None:
    if wrapstring is not None:
        limit(len(text) + (len(text) // max(int(width), 1) + text.count("\n") + 1) * len(wrapstring))


def _check_precision(value: Any, precision: int = 0, *_: Any, **__: Any) -> None:
    if abs(precision) > 400:
        raise TemplateTooLarge("it rounds to hundreds of digits")


def _check_sum(values: Any, attribute: Any = None, start: Any = 0) -> None:
    if not isinstance(start, (int, float, Decimal)):
        raise TypeError("sum adds numbers")


def _check_tags(text: str) -> None:
    # Each tag copies what is left of the text.
    if len(text) * text.count("<") > 2_000_000_000:
        raise TemplateTooLarge("it strips too many tags from too long a text")


def _check_method_join(separator: str, parts: Iterable[Any]) -> None:
    if not isinstance(parts, (list, tuple, Mapping, str)):
        raise TypeError("join a list: add | list")
    limit(sum(len(str(part)) for part in parts) + len(separator) * len(parts))


_CHECKED_OPERATORS: Final[dict[str, Callable[[Any, Any], None]]] = {
    "*": check_times,
    "**": check_power,
    "+": check_plus,
}
_CHECKED_METHODS: Final[dict[str, Callable[..., None]]] = {
    "center": _check_width,
    "ljust": _check_width,
    "rjust": _check_width,
    "zfill": _check_width,
    "replace": _check_replace,
    "join": _check_method_join,
}
_CHECKED_FILTERS: Final[dict[str, Callable[..., None]]] = {
    "center": _check_width,
    "indent": _check_indent,
    "replace": _check_replace,
    "batch": _check_elements,
    "slice": _check_elements,
    "format": lambda text, *args, **kwargs: _check_percent(text, kwargs or args),
    "wordwrap": _check_wordwrap,
    "round": _check_precision,
    "sum": _check_sum,
    "striptags": _check_tags,
}

# --- what there is


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


_TEXT_FILTERS: Final = _names(
    "capitalize center e escape forceescape format indent lower replace safe striptags title trim truncate upper "
    "urlencode wordcount wordwrap"
)
_FILTERS: Final = _TEXT_FILTERS | _names(
    "abs batch count dictsort filesizeformat first float groupby int items last length list map max min reject "
    "rejectattr reverse round select selectattr slice sort sum unique"
)
_METHODS: Final[dict[type, frozenset[str]]] = {
    str: _names(
        "capitalize casefold center count endswith find format index isalnum isalpha isdecimal isdigit islower "
        "isnumeric isspace istitle isupper join ljust lower lstrip partition removeprefix removesuffix replace rfind "
        "rindex rjust rpartition rsplit rstrip split splitlines startswith strip swapcase title upper zfill"
    ),
    dict: _names("get items keys values"),
    list: _names("count index"),
    tuple: _names("count grouper index list"),
    Null: frozenset(),
}
_PRINTED: Final = frozenset({str, int, float, bool})


@cache
def _methods_of(kind: type) -> frozenset[str] | None:
    """The only attributes that values of a type have; None where Jinja2's own rules say."""
    for known, methods in _METHODS.items():
        if issubclass(kind, known):
            return methods
    return _NO_METHODS if issubclass(kind, (int, float, Decimal, bytes)) else None


_NO_METHODS: Final[frozenset[str]] = frozenset()


class Environment(ImmutableSandboxedEnvironment):
    """One environment for each compiled request: `budget` belongs to the rendering in progress."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, nulls: str) -> None:
        super().__init__(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, optimized=False)
        self.budget = Budget()
        self.null = null_maker(nulls)
        self.finalize = self._printed
        self.globals = {"range": self._range, "dict": dict, "namespace": Namespace, "joiner": Joiner, "cycler": Cycler}
        self.filters = {**_BOUNDED, **self._own_filters()}
        self.tests = {**self.tests, "none": is_null}
        self.concat = self.budget.joined  # type: ignore[method-assign]  # pays for what "".join would make in one go

    # --- text of values

    @pass_context  # keeps Jinja2 from evaluating constants while it compiles
    def _printed(self, context: Context, value: Any) -> Any:
        return value if type(value) in _PRINTED else self.text(value)

    def text(self, value: Any) -> Any:
        """What `{{ value }}` prints; lists and mappings print as JSON."""
        if type(value) in _PRINTED:
            return value
        if value is None:
            return self.null(None)
        if isinstance(value, (list, dict, tuple)):
            self.budget.made(value)
            return canonical_json(value).decode()
        if isinstance(value, Decimal):
            return decimal_text(value)
        if is_null(value) or isinstance(value, (str, Undefined)):
            return value
        raise NoText(f"a {type(value).__name__} has no text")

    def text_of(self, value: Any) -> str:
        """The text of any value, as `{{ value }}` and `~` write it."""
        return value if type(value) is str else str(self.text(value))

    def _joined(self, parts: tuple[Any, ...]) -> str:
        return self.budget.joined(self.text_of(part) for part in parts)

    # --- what the sandbox lets through

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Only the methods of _METHODS, and what loops and the like offer."""
        methods = _methods_of(type(obj))  # type: ignore[arg-type]  # mypy takes object.__hash__ for the class's own
        return attr in methods if methods is not None else super().is_safe_attribute(obj, attr, value)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """A call, measured before and paid after."""
        check = _CHECKED_METHODS.get(getattr(__obj, "__name__", ""))
        if check is not None and isinstance(getattr(__obj, "__self__", None), str):
            check(__obj.__self__, *args)
        return __self.budget.made(super().call(__context, __obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Any:
        """`"…".format`: fields are measured first."""
        formatted = super().wrap_str_format(value)
        if formatted is None:
            return None

        def bounded(*args: Any, **kwargs: Any) -> str:
            _check_format(value.__self__, (*args, *kwargs.values()))
            return str(formatted(*args, **kwargs))

        return bounded

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """`*`, `**`, `+` and `%`, measured before and paid after."""
        if operator == "%" and isinstance(left, str):
            _check_percent(left, right)
        elif (check := _CHECKED_OPERATORS.get(operator)) is not None:
            check(left, right)
        return self.budget.made(self.binop_table[operator](left, right))

    def _range(self, *args: int) -> range:
        made = range(*args)
        limit_elements((made.stop - made.start) // made.step)
        return made

    # --- filters

    def _own_filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "tojson": self._tojson,
            "fromjson": self._fromjson,
            "default": _default,
            "d": _default,
            "join": self._join,
            "string": self.text_of,
            EACH: self.budget.each,
            JOINED: self._joined,
            MADE: self.budget.made,
        }

    def _tojson(self, value: Any, indent: int | None = None) -> str:
        self.budget.made(value)
        if isinstance(value, Undefined):
            str(value)
        if indent is None:
            return canonical_json(value).decode()
        if not 0 <= indent <= 16:
            raise ValueError("an indent is 0 to 16")
        return self.budget.joined(_indented(value, " " * indent, "\n"))

    def _fromjson(self, value: Any) -> Any:
        return self.budget.made(seen(orjson.loads(self.text_of(value)), self.null))

    def _join(self, value: Iterable[Any], d: Any = "", attribute: str | int | None = None) -> str:
        if attribute is not None:
            value = map(filters.make_attrgetter(self, attribute), value)
        parts = [self.text_of(part) for part in self.budget.each(value)]
        separator = self.text_of(d)
        limit(sum(map(len, parts)) + len(separator) * len(parts))
        return str(self.budget.made(separator.join(parts)))


def _bounded(name: str) -> Callable[..., Any]:
    """A filter of Jinja2, measured before and paid after. It is handed the environment, or a context of it, first."""
    function: Callable[..., Any] = filters.FILTERS[name]
    check = _CHECKED_FILTERS.get(name)
    is_textual = name in _TEXT_FILTERS
    takes = getattr(function, "jinja_pass_arg", None)

    def bounded(first: Any, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        environment = first if isinstance(first, Environment) else first.environment
        if is_textual:
            value = environment.text_of(value)
        if check is not None:
            check(value, *args, **kwargs)
        handed = () if takes is None else (first,)
        return environment.budget.made(function(*handed, value, *args, **kwargs))

    if takes is None:
        return pass_environment(bounded)
    bounded.jinja_pass_arg = takes  # type: ignore[attr-defined]  # Jinja2 looks for it
    return bounded


_BOUNDED: Final = {name: _bounded(name) for name in _FILTERS}


def _default(value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    """`default`: also for NULL."""
    return default_value if isinstance(value, Undefined) or is_null(value) or (boolean and not value) else value


def _indented(value: Any, indent: str, line: str) -> Iterable[str]:
    """Canonical JSON spread over lines, as `json.dumps(indent=…)` lays it out."""
    if is_null(value) or not value or not isinstance(value, (list, tuple, Mapping)):
        yield canonical_json(value).decode()
        return
    is_mapping = isinstance(value, Mapping)
    yield "{" if is_mapping else "["
    for number, part in enumerate(value):
        yield ("," if number else "") + line + indent
        if is_mapping:
            yield canonical_json(key_text(part)).decode() + ": "
        yield from _indented(value[part] if is_mapping else part, indent, line + indent)
    yield line + ("}" if is_mapping else "]")
