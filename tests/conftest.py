"""What every test runs under: no key of the developer's, two sizes of random testing, a count of each kind."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import hypothesis
import pytest
from crew import dismiss_shared_crew

KINDS = {
    "scenarios": "scenario",
    "scenario": "scenario",
    "e2e": "scenario",
    "golden": "golden",
    "cases": "diagnostic pair",
    "suite": "suite",
    "conformance": "suite",
    "examples": "example",
    "faults": "fault",
    "cli": "command line",
    "docs": "repository",
    "repository": "repository",
    "protocol": "model",
    "machine": "model",
}
"""A word in a folder's or file's name, and the kind its tests are. Hypothesis tests are `property`, the rest `unit`."""

pytest_plugins = ["request_bench", "spec_bench"]
"""Fixtures of one room, in a module of its own name: there is one conftest.py."""

hypothesis.settings.register_profile(
    "quick", max_examples=60, derandomize=True, deadline=None, database=None, print_blob=True
)
hypothesis.settings.register_profile("full", max_examples=1000, deadline=None, print_blob=True)
hypothesis.settings.load_profile("quick")

for _name in [name for name in os.environ if name.startswith(("OPENAI_", "AZURE_OPENAI_", "BATCHOPS_"))]:
    del os.environ[_name]  # a developer's key or endpoint must never reach a test

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell: children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

_ROOT = Path(__file__).parent
_counts: Counter[tuple[str, str]] = Counter()
_reached: list[str] = []
"""What tests said with `record_property("reached", …)`: states explored, kinds of faults met."""


def _kind(item: pytest.Item) -> str:
    if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
        return "property"
    path = item.path.relative_to(_ROOT) if item.path.is_relative_to(_ROOT) else Path(item.path.name)
    words = [word for part in path.with_suffix("").parts for word in part.split("_")]
    return next((KINDS[word] for word in words if word in KINDS), "unit")


def pytest_unconfigure() -> None:
    dismiss_shared_crew()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.user_properties.append(("kind", _kind(item)))  # travels with the report, from a worker too


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    decided = report.when == "call" or report.outcome != "passed"
    if decided and (kind := dict(report.user_properties).get("kind")):
        _counts[str(kind), report.outcome] += 1
    if report.when == "call":
        _reached.extend(str(text) for name, text in report.user_properties if name == "reached")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _counts:
        return
    profile = hypothesis.settings.get_current_profile_name()
    examples = hypothesis.settings.get_profile(profile).max_examples
    terminalreporter.section("cases of each kind")
    for kind in sorted({kind for kind, _ in _counts}):
        outcomes = [f"{_counts[kind, o]:5} {o}" for o in ("passed", "failed", "skipped") if _counts[kind, o]]
        remark = f"   (profile {profile}: up to {examples} random cases each)" if kind == "property" else ""
        terminalreporter.write_line(f"{kind:16}{', '.join(outcomes)}{remark}")
    if _reached:
        terminalreporter.section("what the searches reached")
        for text in _reached:
            terminalreporter.write_line(text)
