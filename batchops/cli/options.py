"""Flags that every verb shares, and the `Invocation` they make: where the project is, what was asked for, how to print.

Shared flags are taken before the verb and after it (`batchops -C demo plan`, `batchops plan -C demo`).
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from batchops.settings import LoadedSettings

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Invocation:
    """What the shared flags said. `root` and `settings` are found on first use, so `--help` pays for neither."""

    directory: Path = field(default_factory=Path)
    env: str | None = None
    json: bool = False
    no_color: bool = False
    verbose: int = 0
    select: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @functools.cached_property
    def root(self) -> Path:
        """The project root: the nearest folder upwards with batchops.toml, [tool.batchops] or jobs/."""
        from batchops.settings import find_root  # noqa: PLC0415

        return find_root(self.directory)

    @functools.cached_property
    def loaded(self) -> LoadedSettings:
        """Settings with where each came from; BatchopsError when one is wrong."""
        from batchops.settings import load_settings  # noqa: PLC0415

        return load_settings(self.root, environ=os.environ, env=self.env)

    @property
    def environment(self) -> str:
        return self.env or "default"

    def colors(self, stream: Any) -> bool:
        """Whether to colour what goes to `stream`: only a terminal, never with NO_COLOR or --no-color."""
        return not self.no_color and not os.environ.get("NO_COLOR") and bool(stream.isatty())

    def out(self, text: str) -> None:
        """Print the answer of the verb."""
        click.echo(text, file=sys.stdout)

    def note(self, text: str) -> None:
        """Print progress or advice: to stderr, where it disturbs no pipe."""
        click.echo(text, file=sys.stderr)


def _shared(command: F) -> F:
    decorators = [
        click.option("-C", "directory", type=click.Path(path_type=Path), default=None, help="Start in this folder."),
        click.option("--env", default=None, metavar="NAME", help="The environment: a separate slice of state."),
        click.option("--no-color", is_flag=True, help="Plain text (also NO_COLOR)."),
        click.option("-v", "--verbose", count=True, help="Say more; twice for everything."),
    ]
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


def _merge(ctx: click.Context, given: dict[str, Any]) -> Invocation:
    before = ctx.find_object(Invocation) or Invocation()
    return replace(
        before,
        directory=given.get("directory") or before.directory,
        env=given.get("env") or before.env,
        json=bool(given.get("as_json")) or before.json,
        no_color=bool(given.get("no_color")) or before.no_color,
        verbose=given.get("verbose") or before.verbose,
        select=given.get("select") or before.select,
        exclude=given.get("exclude") or before.exclude,
    )


_JSON = click.option("--json", "as_json", is_flag=True, help="JSON alone on stdout, errors too.")
_SELECT = click.option(
    "--select", multiple=True, metavar="SEL", help="Only these jobs: name, glob, tag:x, path:…, state:modified."
)
_EXCLUDE = click.option("--exclude", multiple=True, metavar="SEL", help="All but these jobs.")
_SHARED_NAMES = ("directory", "env", "no_color", "verbose", "as_json", "select", "exclude")


def shared_options(*, json: bool = False, select: bool = False) -> Callable[[F], F]:
    """Give a verb the shared flags; its function gets an `Invocation` first. `json`/`select` add those flags."""

    def decorate(function: F) -> F:
        @click.pass_context
        @functools.wraps(function)
        def wrapper(ctx: click.Context, /, *args: Any, **kwargs: Any) -> Any:
            given = {name: kwargs.pop(name) for name in _SHARED_NAMES if name in kwargs}
            ctx.obj = _merge(ctx, given)
            return function(ctx.obj, *args, **kwargs)

        command: Any = _shared(wrapper)
        if json:
            command = _JSON(command)
        if select:
            command = _SELECT(_EXCLUDE(command))
        return command  # type: ignore[no-any-return]  # click decorators keep the callable

    return decorate
