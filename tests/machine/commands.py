"""The real CLI as real processes, many a second: each is forked from a server that has imported everything.

A command that is to die is killed with SIGKILL: by itself when it reaches a named step (batchops/engine/steps.py), or
from outside after some time. Nothing of batchops is replaced; the step hook is the one that the engine offers.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import uuid
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

PRELOADED = [
    "batchops.cli.apply",
    "batchops.cli.plan",
    "batchops.cli.query",
    "batchops.cli.results",
    "batchops.engine.operations",
    "batchops.engine.saved",
    "batchops.providers.openai",
    "batchops.views.plan_json",
    "batchops.views.progress",
]
PATIENCE_SECONDS = 120


@dataclass(frozen=True)
class Death:
    """When a command is killed: the `nth` time it reaches `step`, or after so many seconds."""

    step: str = ""
    nth: int = 1
    seconds: float | None = None


@dataclass(frozen=True)
class Done:
    """One command as it ended; `code` is -9 for one that was killed. `steps` says what it reached, how often."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str
    steps: Counter[str]

    @property
    def was_killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


class Command:
    """`batchops WORDS…` in a folder, begun at once."""

    def __init__(self, *words: str, root: Path, environ: Mapping[str, str], death: Death | None = None) -> None:
        self.words = words
        self._death = death or Death()
        self._said = root / ".said" / uuid.uuid4().hex
        self._said.mkdir(parents=True)
        self._process: ForkServerProcess = _context().Process(
            target=_run, args=(words, root, dict(environ), self._said, self._death), daemon=True
        )
        self._process.start()

    def done(self) -> Done:
        """Wait for the end, or bring it about."""
        self._process.join(PATIENCE_SECONDS if self._death.seconds is None else self._death.seconds)
        if self._process.is_alive():
            assert self._death.seconds is not None, f"{self.words} does not end"
            self._process.kill()
            self._process.join(PATIENCE_SECONDS)
        code = self._process.exitcode
        self._process.close()
        assert code is not None
        out, err, steps = ((self._said / name).read_text() for name in ("out", "err", "steps"))
        return Done(self.words, code, out, err, Counter(steps.split()))


def _run(words: tuple[str, ...], root: Path, environ: dict[str, str], said: Path, death: Death) -> None:
    """In the child: become that command."""
    _redirect(said)
    os.chdir(root)
    os.environ.update(environ)
    warnings.simplefilter("error", ResourceWarning)

    from batchops.cli.main import run  # noqa: PLC0415  the parent does not need it
    from batchops.engine import steps  # noqa: PLC0415

    trace = os.open(said / "steps", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    left = death.nth

    def reached(step: str) -> None:
        nonlocal left
        os.write(trace, f"{step}\n".encode())
        if step == death.step:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    steps.install(reached)
    sys.exit(run(words))


def _redirect(said: Path) -> None:
    for number, path in enumerate((Path(os.devnull), said / "out", said / "err")):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    (said / "steps").touch()
