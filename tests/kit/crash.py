"""Run `batchops` and die by SIGKILL at a named step: `python tests/kit/crash.py STEP[:N] -- plan --json`.

N says at which time the step is reached; without it, the first. `STEP!` stops there instead, until SIGCONT, like a
machine that sleeps. `steps()` finds every name there is.
"""

from __future__ import annotations

import ast
import os
import signal
import sys
import threading
from pathlib import Path

ENGINE = Path(__file__).parents[2] / "batchops" / "engine"


def steps() -> list[str]:
    """The names of all steps of the engine, found where they are reached."""
    found: dict[str, None] = {}
    for path in sorted(ENGINE.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "reached":
                name = node.args[0]
                assert isinstance(name, ast.Constant), "the name of a step is a literal"
                found[str(name.value)] = None
    return list(found)


def arm(spec: str, trace: Path | None = None) -> None:
    """Let this process kill itself at STEP[:N], or stop there; write each step it reaches to `trace`, if given."""
    from batchops.engine import steps as engine_steps  # noqa: PLC0415  `steps()` above needs no engine

    number = signal.SIGSTOP if spec.endswith("!") else signal.SIGKILL
    wanted, _, nth = spec.removesuffix("!").partition(":")
    lock = threading.Lock()
    left = int(nth or 1)
    written = None if trace is None else os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def hook(step: str) -> None:
        nonlocal left
        if written is not None:
            os.write(written, f"{step}\n".encode())
        if step != wanted:
            return
        with lock:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), number)

    engine_steps.install(hook)


def main() -> int:
    from batchops.cli.main import run  # noqa: PLC0415  only when run as a program

    spec, separator, *words = sys.argv[1:]
    assert separator == "--", __doc__
    arm(spec)
    sys.argv = ["batchops", *words]
    return run(words)


if __name__ == "__main__":
    sys.exit(main())
