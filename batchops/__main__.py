"""`python -m batchops`, and the console script."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. `--version` alone is answered at once: scripts and prompts ask it often."""
    if sys.argv[1:] == ["--version"]:
        from batchops import __version__

        print(f"batchops {__version__}")  # noqa: T201  click would cost more than everything else here
        return
    from batchops.cli.main import run  # start-up cost is paid by the verb that needs it

    raise SystemExit(run())


if __name__ == "__main__":
    main()
