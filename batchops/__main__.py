"""`python -m batchops`, and the console script."""

from __future__ import annotations


def main() -> None:
    from batchops.cli.main import run  # noqa: PLC0415  start-up cost is paid by the verb that needs it

    raise SystemExit(run())


if __name__ == "__main__":
    main()
