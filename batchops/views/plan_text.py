"""A plan → text for a terminal: what happens first, then why, then the verdict with money."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from batchops.plan.model import JobPlan, Plan, Sample
from batchops.terminal import Style, cells, fit, pad, paint, visible
from batchops.views.diagnostics import render_text
from batchops.views.plan_table import (
    DANGEROUS,
    Entry,
    cost_range,
    counted,
    entries,
    legend,
    notes,
    reading_order,
    summary,
)
from batchops.views.sample_text import sample_lines, sample_title

_DIFF_LINES = 40
_SAMPLE_LINES = 16
_MIN_WIDTH = 60
_STYLES = {"+": Style.GREEN, "~": Style.YELLOW, "r": Style.YELLOW, ".": Style.RED, "x": Style.RED, "<=": Style.CYAN,
           "=": Style.BLUE, "?": Style.YELLOW}  # fmt: skip


def render_plan(plan: Plan, *, color: bool, width: int, verbose: int = 0) -> str:
    """The whole plan as text, without a newline at its end.

    Addresses and costs are never cut, whatever `width`. `verbose` shows whole diffs, whole samples and quiet jobs.
    """
    shown = entries(plan)
    blocks = [
        _table(shown, color=color, width=max(width, _MIN_WIDTH)),
        f"Symbols: {legend(shown)}" if shown else "",
        *(_job(job, color=color, width=max(width, _MIN_WIDTH), verbose=verbose) for job in reading_order(plan.jobs)),
        _quiet(plan) if verbose else "",
        _drift(plan.drift),
        "\n".join(_policy(policy) for policy in plan.policies),
        render_text(plan.diagnostics, color=color),
        "\n".join(notes(plan)),
        paint(summary(plan), Style.BOLD, color=color),
    ]
    return "\n\n".join(block for block in blocks if block)


def _table(shown: list[Entry], *, color: bool, width: int) -> str:
    """Columns: symbol, address, amount, reason, cost."""
    costs = ["" if entry.cost is None else cost_range(entry.cost) for entry in shown]
    addresses = max((cells(entry.address) for entry in shown), default=0)
    amounts = max((cells(entry.amount) for entry in shown), default=0)
    prices = max(map(cells, costs), default=0)
    reasons = min(
        max((cells(entry.reason) for entry in shown), default=0), max(20, width - addresses - amounts - prices - 12)
    )
    lines = []
    for entry, cost in zip(shown, costs, strict=True):
        symbol = paint(pad(entry.symbol, 2), _STYLES[entry.symbol], color=color)
        address = pad(entry.address, addresses)
        if entry.step in DANGEROUS:
            address = paint(address, Style.BOLD, color=color)
        amount, reason = pad(entry.amount, amounts, right=True), pad(fit(entry.reason, reasons), reasons)
        lines.append(f"  {symbol} {address}  {amount}  {reason}  {pad(cost, prices, right=True)}".rstrip())
    return "\n".join(lines)


def _job(job: JobPlan, *, color: bool, width: int, verbose: int) -> str:
    """The job's prompt diff and samples; empty for a job that has neither."""
    if not job.diff and not job.samples:
        return ""
    lines = [f"{paint(job.address, Style.BOLD, color=color)} ({job.model} at {job.provider})"]
    if job.diff:
        diff = _cut(visible(job.diff.rstrip("\n")).split("\n"), None if verbose else _DIFF_LINES)
        lines += (f"  {_diff_colored(line, color=color)}" for line in diff)
    for sample in job.samples:
        lines.append(f"  sample {sample_title(sample)}")
        lines += _sample(sample, color=color, width=width - 4, verbose=verbose)
    return "\n".join(line.rstrip() for line in lines)


def _sample(sample: Sample, *, color: bool, width: int, verbose: int) -> Iterator[str]:
    body = sample_lines(sample)
    shown = body if verbose else _cut([fit(line, width) for line in body], _SAMPLE_LINES)
    is_diff = sample.before is not None
    for line in shown:
        yield f"    {_diff_colored(line, color=color) if is_diff else line}"


def _cut(lines: list[str], most: int | None) -> list[str]:
    """The head of a long text, and how much is not shown."""
    if most is None or len(lines) <= most + 1:
        return lines
    return [*lines[:most], f"… {counted(len(lines) - most, 'more line')}; -v shows all"]


def _diff_colored(line: str, *, color: bool) -> str:
    marks = {"+": Style.GREEN, "-": Style.RED, "@": Style.CYAN}
    style = marks.get(line[:1])
    return paint(line, style, color=color) if style else line


def _quiet(plan: Plan) -> str:
    """The jobs that nothing happens to, for those who want to see that they were looked at."""
    busy = {entry.address for entry in entries(plan)}
    return "\n".join(f"     {job.address}: {job.sync}, {job.health}" for job in plan.jobs if job.address not in busy)


def _drift(drift: tuple[Mapping[str, Any], ...]) -> str:
    if not drift:
        return ""
    head = f"Drift: {counted(len(drift), 'batch')} {'is' if len(drift) == 1 else 'are'} not as recorded."
    return "\n".join([head, *(f"  {' '.join(_facts(found))}" for found in drift)])


def _policy(policy: Mapping[str, Any]) -> str:
    return f"Policy: {' '.join(_facts(policy))}"


def _facts(found: Mapping[str, Any]) -> Iterator[str]:
    """`address=labels batch_id=batch_1 status=expired`: whatever the plan knows, in its order."""
    for name, value in found.items():
        yield f"{name}={visible(str(value))}"
