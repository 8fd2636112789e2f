"""Rows that could not be rendered, gathered into diagnostics: one for each place and reason, with a few addresses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from batchops.diagnostics import BatchopsError, Diagnostic, error
from batchops.request.endpoints import Slot
from batchops.request.place import place_in
from batchops.request.text import RowFailed
from batchops.spec.job import Job

_EXAMPLES = 3


@dataclass
class _Group:
    slot: Slot
    count: int = 0
    keys: list[str] = field(default_factory=list)


class RowsFailed(BatchopsError):
    """Rows of one job could not be rendered; each diagnostic names its address."""


class Failures:
    """Failed rows of one job, grouped. A failure that costs too much to repeat ends the pass at once."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._groups: dict[tuple[str, int, str, str], _Group] = {}

    def add(self, key: str, problem: RowFailed) -> None:
        """Take note of a failed row; raises at once where more such rows would only burn time."""
        identity = (str(problem.slot.path), problem.line, problem.code, problem.reason)
        group = self._groups.setdefault(identity, _Group(problem.slot))
        group.count += 1
        if len(group.keys) < _EXAMPLES:
            group.keys.append(key)
        if problem.is_costly:
            self.raise_any()

    def raise_any(self) -> None:
        """RowsFailed with everything gathered, if anything was."""
        if self._groups:
            raise RowsFailed(*self._diagnostics())

    def _diagnostics(self) -> Iterator[Diagnostic]:
        for (_, line, code, reason), group in sorted(self._groups.items(), key=lambda item: item[0]):
            place = place_in(self._job, group.slot.path, line)
            detail = f"{_sentence(reason)}{place.words}. {self._rows(group)}{_ADVICE.get(code, '')}"
            yield place.put(_MAKERS[code](detail), self._job.address)

    def _rows(self, group: _Group) -> str:
        many = "1 row" if group.count == 1 else f"{group.count} rows"
        if set(self._job.spec.source.key) & set(self._job.spec.source.sensitive):
            return f"It fails on {many}."
        shown = ", ".join(f"{self._job.address}@{key[:80]}" for key in group.keys)
        more = f" and {group.count - len(group.keys)} more" if group.count > len(group.keys) else ""
        return f"It fails on {many}: {shown}{more}."


_ADVICE = {
    "null_in_template": ' Write {{ x | default("…") }}, filter such rows in the query, or set source.nulls to '
    '"empty" or "text".',
}
_MAKERS = {
    "null_in_template": lambda detail: error("null_in_template", "NULL in a template.", detail),
    "template_too_large": lambda detail: error("template_too_large", "Template too large.", detail),
    "template_render_failed": lambda detail: error("template_render_failed", "Template failed.", detail),
}


def _sentence(reason: str) -> str:
    return reason[:1].upper() + reason[1:].rstrip(".")
