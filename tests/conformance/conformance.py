"""`make conformance`: run every suite that is marked so, and write what was seen to docs/conformance.md.

The page is written only when everything held, from what the run reports; a difference of OGX that is not known fails.
"""

from __future__ import annotations

import datetime
import sys
from importlib.metadata import version

import pytest


class Verdicts:
    """A pytest plugin: by the name of the behaviour, what was seen of it over each server."""

    def __init__(self) -> None:
        self.seen: dict[str, dict[str, str]] = {"batchops": {}, "ogx": {}}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            for server, verdict in report.user_properties:
                if server in self.seen and isinstance(verdict, list):
                    name, says = verdict
                    self.seen[server][name] = says


def main(arguments: list[str]) -> int:
    verdicts = Verdicts()
    code = pytest.main(["-m", "conformance or ogx", "--dist", "loadfile", *arguments], plugins=[verdicts])
    if code != 0:
        print("\ndocs/conformance.md is left as it was.")
        return int(code)
    print(f"\n{_written(verdicts)}")
    return 0


def _written(verdicts: Verdicts) -> str:
    """The page, which now stands in the documentation."""
    from conformance_page import PAGE, render  # noqa: PLC0415  pytest must be the first to import what it rewrites
    from ogx_differences import VERSION  # noqa: PLC0415

    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    versions = {"batchops": version("batchops"), "OGX": VERSION, "the OpenAI SDK": version("openai")}
    page = render(verdicts.seen, date=today, versions=versions)
    PAGE.write_text(page, encoding="utf-8")
    return page


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
