"""One template, compiled: what it names, and its text for a row. Compiling never evaluates its expressions."""

from __future__ import annotations

import re
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from types import CodeType, TracebackType
from typing import Any, Final, cast

from jinja2 import Template, TemplateSyntaxError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.idtracking import VAR_LOAD_RESOLVE
from jinja2.runtime import Context
from jinja2.visitor import NodeTransformer

from batchops.request.budget import TemplateTooLarge, limit
from batchops.request.endpoints import Slot
from batchops.request.sandbox import EACH, JOINED, MADE, Environment
from batchops.request.values import NullPrinted

_FILENAME: Final = "<template>"
_LINE_END: Final = re.compile(r"\r\n|\r|\n")


class RowFailed(Exception):
    """A row could not be rendered. `reason` shows nothing of the row's text."""

    def __init__(self, code: str, reason: str, slot: Slot, line: int) -> None:
        super().__init__(reason)
        self.code, self.reason, self.slot, self.line = code, reason, slot, line

    def __reduce__(self) -> tuple[type[RowFailed], tuple[str, str, Slot, int]]:
        return RowFailed, (self.code, self.reason, self.slot, self.line)  # from one process to another

    @property
    def is_costly(self) -> bool:
        """Whether more such rows would only burn time."""
        return self.code == "template_too_large"


@dataclass(frozen=True, eq=False)
class Text:
    """One compiled template. `constant` is its text where nothing in it depends on the row."""

    slot: Slot
    constant: str | None
    columns: frozenset[str]
    optional: frozenset[str]
    """Names that may be missing: the template asks `is defined`, or gives a default."""
    environment: Environment
    join: Callable[[Iterator[str]], str] = "".join

    @cached_property
    def tree(self) -> nodes.Template:
        """The template as Jinja2 parses it."""
        return self.environment.parse(self.slot.text)

    @cached_property
    def template(self) -> Template:
        """What renders it. Jinja2 writes Python for it, which not every command needs: SQL renders most templates."""
        return _compiled(self.environment, self.tree)[0]

    def find(self, name: str) -> tuple[int, int]:
        """Line and column (1-based) where a column is named first; column 1 where that cannot be told."""
        line = min((node.lineno for node in self.tree.find_all(nodes.Name) if node.name == name), default=1)
        lines = _LINE_END.split(self.slot.text)
        found = re.search(rf"\{{[{{%].*?\b({re.escape(name)})\b", lines[line - 1]) if line <= len(lines) else None
        return line, found.start(1) + 1 if found else 1

    def render(self, names: dict[str, Any]) -> str:
        """The text for a row; RowFailed where it has none. `names` are its values and the environment's globals."""
        if self.constant is not None:
            return self.constant
        try:
            text = self.join(self.template.root_render_func(Context(self.environment, names, None, {})))
            limit(len(text))
        except Exception as problem:
            line = self.template.get_corresponding_lineno(_template_line(problem.__traceback__))
            raise self._failed(problem, line) from None
        return text

    def _failed(self, problem: Exception, line: int) -> RowFailed:
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


_TYPE_NAMES: Final = frozenset({"str", "int", "float", "bool", "list", "dict", "tuple", "NoneType"})
_OUR_NAMES: Final = {
    "batchops.request.values.": "",
    "ForbiddenNull": "NULL",
    "NullText": "NULL",
    "Exact": "Decimal",
    "'Array object'": "a list",
    "'Object object'": "a mapping",
    "'NULL object'": "NULL",
}


def _reason(problem: Exception, template: str) -> str:
    """The message without what it quotes of the row: words of the template and of Python's types stay."""
    if isinstance(problem, ArithmeticError) and not isinstance(problem, ZeroDivisionError):
        return "a number is out of range"
    if isinstance(problem, (KeyError, IndexError)):
        return "a list or mapping has no such element"
    message = str(problem)
    for ours, theirs in _OUR_NAMES.items():
        message = message.replace(ours, theirs)

    def shown(quote: re.Match[str]) -> str:
        inner = quote[1].removesuffix(" object")
        return quote[0] if inner in _TYPE_NAMES or inner in template else "'…'"

    masked = re.sub(r"(?<!\w)'([^']*)'", shown, message)  # not the one of "can't"
    if isinstance(problem, ValueError) and masked == message:
        return "a value does not fit"
    return masked[:300] or type(problem).__name__


# --- compiling


_REFUSED: Final[dict[type[nodes.Node], str]] = {
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "import",
    nodes.Extends: "extends",
    nodes.Block: "block",
    nodes.ScopedEvalContextModifier: "autoescape",
}


class _Guarded(NodeTransformer):
    """Puts the budget's filters into a parsed template, and refuses what reaches beyond it."""

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        if type(node) in _REFUSED:
            raise TemplateSyntaxError(f'"{_REFUSED[type(node)]}" is not available in a template', node.lineno)
        return super().generic_visit(node, *args, **kwargs)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        if node.recursive:
            raise TemplateSyntaxError("A recursive loop is not available in a template", node.lineno)
        self.generic_visit(node)
        node.iter = _filtered(EACH, cast(nodes.Expr, node.iter))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(JOINED, nodes.Tuple(node.nodes, "load", lineno=node.lineno))

    def _visit_made(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        if getattr(node, "ctx", "load") != "load" or all(isinstance(part, nodes.Const) for part in _parts(node)):
            return node
        return _filtered(MADE, node)

    visit_List = visit_Dict = visit_Tuple = _visit_made


def _parts(node: nodes.Node) -> Iterator[nodes.Node]:
    for part in node.iter_child_nodes():
        yield from (part.key, part.value) if isinstance(part, nodes.Pair) else (part,)


def _filtered(name: str, node: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


_UNBOUNDED: Final = (nodes.For, nodes.Macro, nodes.CallBlock, nodes.Call)
"""Without one of these a template prints each of its parts once, so that its length needs no watching."""


class _Generator(CodeGenerator):
    """Jinja2's own, which notes the names that rows must give, as `jinja2.meta.find_undeclared_variables` does."""

    def __init__(self, environment: Environment) -> None:
        self.written = StringIO()
        self.names: set[str] = set()
        super().__init__(environment, None, _FILENAME, self.written, optimized=environment.optimized)

    def enter_frame(self, frame: Frame) -> None:
        super().enter_frame(frame)
        self.names.update(name for action, name in frame.symbols.loads.values() if action == VAR_LOAD_RESOLVE and name)


def compile_text(environment: Environment, slot: Slot) -> Text:
    """The template of a slot; jinja2.TemplateSyntaxError where it cannot be one."""
    if "{" not in slot.text:
        return _constant_text(environment, slot, _as_lexed(slot.text))
    tree = environment.parse(slot.text)
    if (constant := _constant(tree)) is not None:
        return _constant_text(environment, slot, constant)
    within, depth = _within(tree)
    optional = _optional(within)
    is_unbounded = any(isinstance(node, _UNBOUNDED) for node in within)
    made: dict[str, Any]
    if depth <= _SURE_DEPTH and all(_is_sure(environment, node) for node in within):
        names, made = {node.name for node in within if isinstance(node, nodes.Name)}, {"tree": tree}
    else:
        template, names = _compiled(environment, tree)
        made = {"template": template}
    columns = frozenset(names) - set(environment.globals)
    join = environment.budget.joined if is_unbounded else "".join
    text = Text(slot, None, columns, optional & columns, environment, join)
    vars(text).update(made)  # what is at hand need not be made at its first use
    return text


def _constant_text(environment: Environment, slot: Slot, constant: str) -> Text:
    return Text(slot, constant, frozenset(), frozenset(), environment)


def _within(tree: nodes.Template) -> tuple[list[nodes.Node], int]:
    """Every node of a tree, level by level, and how many levels there are."""
    within: list[nodes.Node] = []
    level: list[nodes.Node] = [tree]
    depth = 0
    while level:
        within += level
        level = [child for node in level for child in node.iter_child_nodes()]
        depth += 1
    return within, depth


_SURE: Final[frozenset[type[nodes.Node]]] = frozenset(
    {nodes.Template, nodes.Output, nodes.TemplateData, nodes.CondExpr, nodes.Getattr, nodes.Getitem}
    | {nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not}
)
_SURE_DEPTH: Final = 20
"""Python takes 200 parentheses in each other and 100 blocks. A level of a template's tree opens one of either."""


def _is_sure(environment: Environment, node: nodes.Node) -> bool:
    """Whether Jinja2 and Python are sure to compile a node, so that a command that does not render need not try."""
    if isinstance(node, nodes.Name):
        return node.name != "self"  # the template itself, not a column
    if isinstance(node, nodes.Filter):
        return node.name in environment.filters
    if isinstance(node, nodes.Test):
        return node.name in environment.tests
    if isinstance(node, nodes.If):
        return len(node.elif_) < _SURE_DEPTH  # Python nests each in the one before
    if isinstance(node, nodes.Const):
        return not isinstance(node.value, int) or node.value.bit_length() <= 64  # Python writes no number of any length
    return type(node) in _SURE


def _as_lexed(text: str) -> str:
    """What Jinja2's lexer makes of a text without markup: one kind of line end, and none at the end."""
    return _LINE_END.sub("\n", text).removesuffix("\n")


def _compiled(environment: Environment, tree: nodes.Template) -> tuple[Template, set[str]]:
    """The template of a tree, which is guarded on the way and so changed, and the names that rows must give."""
    generator = _Generator(environment)
    generator.visit(_Guarded().visit(tree))
    return Template.from_code(environment, _code(generator), environment.globals), generator.names


def _code(generator: _Generator) -> CodeType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # of the code that Jinja2 writes
        return compile(generator.written.getvalue(), _FILENAME, "exec")


def _constant(tree: nodes.Template) -> str | None:
    parts: list[str] = []
    for output in tree.body:
        if not isinstance(output, nodes.Output):
            return None
        for part in output.nodes:
            if not isinstance(part, nodes.TemplateData):
                return None
            parts.append(part.data)
    return "".join(parts)


def _optional(within: list[nodes.Node]) -> frozenset[str]:
    """Names asked for with `is defined`, or used with a default wherever they are used."""
    asked: set[str] = set()
    given: Counter[str] = Counter()
    loads: Counter[str] = Counter()
    for node in within:
        if isinstance(node, nodes.Name):
            loads[node.name] += node.ctx == "load"
        elif isinstance(node, (nodes.Test, nodes.Filter)) and isinstance(node.node, nodes.Name):
            if node.name in {"defined", "undefined"}:
                asked.add(node.node.name)
            elif node.name in {"default", "d"}:
                given[node.node.name] += 1
    return frozenset(asked | {name for name, times in given.items() if times == loads[name]})
