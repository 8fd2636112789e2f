"""Write the documentation strings of the installed Python's standard library to data/stdlib.jsonl, one object a line.

Modules in Python are parsed, never imported; those in C are imported, as there is no other way to read them.
Keys are `name` (unique), `module`, `kind`, `signature` and `text`. The texts are Python's own, under the PSF licence.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import Any

NOT_A_LIBRARY = {"site-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo"}
KINDS = {ast.ClassDef: "class", ast.FunctionDef: "function", ast.AsyncFunctionDef: "coroutine function"}
Entry = dict[str, str]


def entry(name: str, module: str, kind: str, signature: str, text: str) -> Entry:
    return {"name": name, "module": module, "kind": kind, "signature": signature, "text": text}


def from_source(folder: Path) -> Iterator[Entry]:
    """Every documented module, class and function of the Python files under `folder`."""
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        if NOT_A_LIBRARY.isdisjoint(parts) and all(part.isidentifier() for part in parts):
            module = ".".join(part for part in parts if part != "__init__")
            yield from _documented(ast.parse(path.read_bytes()), module, module)


def _documented(node: ast.AST, name: str, module: str) -> Iterator[Entry]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        if text := ast.get_docstring(node):
            yield entry(name, module, KINDS.get(type(node), "module"), _signature(node), text)
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from _documented(child, f"{name}.{child.name}", module)


def _signature(node: ast.AST) -> str:
    return f"({ast.unparse(node.args)})" if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else ""


def from_compiled() -> Iterator[Entry]:
    """Every documented class, method and function of the modules that are written in C."""
    for name in sorted(filter(_is_compiled, sys.stdlib_module_names)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a module on its way out says so when it is imported
            try:
                module = importlib.import_module(name)
            except ImportError:  # a system library that it needs is not installed
                continue
        for member, value in sorted(vars(module).items()):
            yield from _members(member, value, module)


def _is_compiled(name: str) -> bool:
    spec = importlib.util.find_spec(name) if name != "__main__" else None
    origin = (spec.origin if spec else None) or ""
    return origin == "built-in" or origin.endswith(tuple(EXTENSION_SUFFIXES))


def _members(name: str, value: Any, module: ModuleType) -> Iterator[Entry]:
    place = f"{module.__name__}.{name}"
    if inspect.isbuiltin(value):
        yield from _compiled(place, "function", value, module)
    elif inspect.isclass(value) and value.__module__ == module.__name__:
        yield from _compiled(place, "class", value, module)
        for member in sorted(vars(value)):
            thing = getattr(value, member, None)
            if inspect.isroutine(thing):
                yield from _compiled(f"{place}.{member}", "method", thing, module)
            elif inspect.isdatadescriptor(thing):
                yield from _compiled(f"{place}.{member}", "attribute", thing, module)


def _compiled(name: str, kind: str, value: Any, module: ModuleType) -> Iterator[Entry]:
    if isinstance(text := getattr(value, "__doc__", None), str) and text.strip():
        signature = getattr(value, "__text_signature__", None) or ""
        yield entry(name, module.__name__, kind, signature, inspect.cleandoc(text))


def main() -> None:
    target = Path(__file__).parent / "data" / "stdlib.jsonl"
    target.parent.mkdir(exist_ok=True)
    by_name: dict[str, Entry] = {}
    for found in (*from_source(Path(sysconfig.get_path("stdlib"))), *from_compiled()):
        by_name.setdefault(found["name"], found)  # a property's setter has its getter's name: the first one counts
    lines = [json.dumps(by_name[name], ensure_ascii=False) for name in sorted(by_name)]
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} documentation strings of Python {sys.version.split()[0]} in {target}")


if __name__ == "__main__":
    main()
