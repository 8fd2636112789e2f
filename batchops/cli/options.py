"""Flags that every verb shares, and the `Invocation` they make: where the project is, what was asked for, how to print.

Shared flags are taken before the verb and after it (`batchops -C demo plan`, `batchops plan -C demo`).
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

if TYPE_CHECKING:
    from batchops.settings import LoadedSettings

F = TypeVar("F", bound=Callable[..., Any])


class ReaderGone(Exception):
    """Nobody reads any more what a command that acts has to say; it stopped as if interrupted."""


@dataclass(frozen=True)
class Invocation:
    """What the shared flags said. `root` and `loaded` are found on first use, so `--help` pays for neither."""

    directory: Path = field(default_factory=Path.cwd)
    env: str | None = None
    json: bool = False
    no_color: bool = False
    verbose: int = 0
    select: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @functools.cached_property
    def root(self) -> Path:
        """The project root, where the process is from now on: every path anywhere is relative to it."""
        from batchops.settings import find_root  # pydantic is paid for by the verbs that need it

        root = find_root(self.directory)
        os.chdir(root)
        return root

    @functools.cached_property
    def loaded(self) -> LoadedSettings:
        """Settings with where each came from; BatchopsError when one is wrong."""
        from batchops.settings import load_settings

        return load_settings(self.root, environ=os.environ, env=self.env)

    @property
    def environment(self) -> str:
        """The slice of state that this command works on."""
        return self.loaded.environment

    def colors(self, stream: Any) -> bool:
        """Whether to colour what goes to `stream`: only a terminal, never with NO_COLOR or --no-color."""
        return not self.no_color and not os.environ.get("NO_COLOR") and bool(stream.isatty())

    def width(self) -> int:
        """How many columns a line may take."""
        return shutil.get_terminal_size((100, 24)).columns

    def out(self, text: str, *, file: TextIO | None = None) -> None:
        """Print the answer of the verb. An OSError says where that went, so that no other file is thought full."""
        try:
            click.echo(text, file=file or sys.stdout, color=True)
        except OSError as problem:
            problem.filename = (file or sys.stdout).name
            raise

    def note(self, text: str) -> None:
        """Print progress or advice: to stderr, where it disturbs no pipe."""
        click.echo(text, file=sys.stderr, color=True)


def duration(ctx: click.Context, parameter: click.Parameter, value: str | None) -> timedelta | None:
    """The callback of an option that takes `100ms 2s 5m 24h`, as everywhere else."""
    if value is None:
        return None
    from batchops.units import parse_duration

    try:
        return parse_duration(value)
    except ValueError as problem:
        raise click.BadParameter(f"{problem}.", ctx, parameter) from problem


_SHARED = (
    click.option("-C", "directory", type=click.Path(exists=True, file_okay=False, path_type=Path), default=None,
                 help="Start in this folder."),
    click.option("--env", default=None, metavar="NAME", help="The environment: a separate slice of state."),
    click.option("--no-color", is_flag=True, help="Plain text (also NO_COLOR)."),
    click.option("-v", "--verbose", count=True, help="Say more; twice for everything."),
)  # fmt: skip
_JSON = click.option("--json", "as_json", is_flag=True, help="JSON alone on stdout, errors too.")
_SELECT = click.option(
    "--select", multiple=True, metavar="SEL", help="Only these jobs: name, glob, tag:x, path:…, state:modified."
)
_EXCLUDE = click.option("--exclude", multiple=True, metavar="SEL", help="All but these jobs.")
_SHARED_NAMES = ("directory", "env", "no_color", "verbose", "as_json", "select", "exclude")


def _merge(ctx: click.Context, given: dict[str, Any]) -> Invocation:
    """What was said after the verb over what was said before it."""
    before = ctx.find_object(Invocation) or Invocation()
    directory = given.get("directory")
    return replace(
        before,
        directory=directory.absolute() if directory else before.directory,
        env=given.get("env") or before.env,
        json=bool(given.get("as_json")) or before.json,
        no_color=bool(given.get("no_color")) or before.no_color,
        verbose=given.get("verbose") or before.verbose,
        select=given.get("select") or before.select,
        exclude=given.get("exclude") or before.exclude,
    )


def shared_options(*, json: bool = False, select: bool = False) -> Callable[[F], F]:
    """Give a verb the shared flags; its function gets an `Invocation` first. `json`/`select` add those flags."""

    def decorate(function: F) -> F:
        @click.pass_context
        @functools.wraps(function)
        def wrapper(ctx: click.Context, /, *args: Any, **kwargs: Any) -> Any:
            given = {name: kwargs.pop(name) for name in _SHARED_NAMES if name in kwargs}
            ctx.obj = _merge(ctx, given)
            if ctx.obj.json and not json:  # it stood before the verb
                raise click.NoSuchOption("--json", ctx=ctx)
            return function(ctx.obj, *args, **kwargs)

        command: Any = wrapper
        for option in reversed((*_SHARED, *([_JSON] if json else []), *([_SELECT, _EXCLUDE] if select else []))):
            command = option(command)
        return command  # type: ignore[no-any-return]  # click decorators keep the callable

    return decorate
