"""The named steps of a submission and a fetch, for a harness that kills or delays the process at each of them.

Nothing is installed in normal use: `reached` then does nothing.
"""

from __future__ import annotations

from collections.abc import Callable

_hook: Callable[[str], None] | None = None


def install(hook: Callable[[str], None] | None) -> None:
    """Call `hook` with the name of every step from now on; None takes it away."""
    global _hook  # noqa: PLW0603  one process, one harness
    _hook = hook


def reached(step: str) -> None:
    """Say that a step is reached: `before_…` and `after_…` each effect."""
    if _hook is not None:
        _hook(step)
