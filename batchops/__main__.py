"""`python -m batchops`, and the console script."""

from __future__ import annotations

import gc
import sys

GARBAGE_THRESHOLD = 10_000
"""Objects made before Python looks for cycles. By default it is 700 (Python 3.11), and looking through all that is
imported takes a twentieth of `validate` and `plan` (measured, 2026-11)."""


def main() -> None:
    """Run the command line. `--version` alone is answered at once: scripts and prompts ask it often."""
    if sys.argv[1:] == ["--version"]:
        _tell_version()
        return
    gc.set_threshold(GARBAGE_THRESHOLD)
    from batchops.cli.main import end, run  # start-up cost is paid by the verb that needs it

    end(run())


def _tell_version() -> None:
    from batchops import __version__

    try:
        print(f"batchops {__version__}", flush=True)  # noqa: T201  click would cost more than everything else here
    except OSError as problem:
        from batchops.cli.main import unwritten  # nor is what tells of a full disk needed before there is one

        raise SystemExit(unwritten(problem)) from None


if __name__ == "__main__":
    main()
