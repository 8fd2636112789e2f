"""What an apply or a wait did, in a sentence or two: the answer that stays on stdout."""

from __future__ import annotations

from collections.abc import Mapping

from batchops.plan.model import Action, BatchAction
from batchops.views.plan_table import counted

Summary = Mapping[str, Mapping[str, int]]

_DONE = {
    Action.SUBMIT: "submitted",
    Action.RESUBMIT: "resubmitted",
    Action.RETRY: "retried",
    Action.REUSE: "reused",
    Action.FORGET: "forgotten",
}
_DONE_TO_BATCHES = {
    BatchAction.CREATE: "created",
    BatchAction.FETCH: "fetched",
    BatchAction.SETTLE: "settled",
    BatchAction.CANCEL: "cancelled",
}


def render_outcome(summary: Summary, *, has_failed: bool = False) -> str:
    """`Done: 1,200 submitted; 1 batch created.`, then what is left: in flight, given up, held.

    `has_failed`: something did not work, so that nothing done does not mean that nothing was to be done.
    """
    rows, batches = summary["rows"], summary["batches"]
    did = ", ".join(f"{rows[action]:,} {verb}" for action, verb in _DONE.items() if rows.get(action))
    moved = ", ".join(
        f"{counted(batches[action], 'batch')} {verb}"
        for action, verb in _DONE_TO_BATCHES.items()
        if batches.get(action)
    )
    head = "; ".join(part for part in (did, moved) if part)
    return "\n".join(
        [f"Done: {head}." if head else "Nothing was done." if has_failed else "Nothing to do.", *_left(rows, batches)]
    )


def _left(rows: Mapping[str, int], batches: Mapping[str, int]) -> list[str]:
    said = []
    if flying := batches.get(BatchAction.IN_FLIGHT):
        said.append(f"In flight: {counted(flying, 'batch')}. To wait for them: batchops apply --wait")
    if failed := rows.get(Action.FAILED):
        said.append(f"Given up: {counted(failed, 'row')}. To see why: batchops status")
    if held := rows.get(Action.HELD):
        said.append(f"Held: {counted(held, 'row')}. To see why: batchops status")
    if answered := rows.get(Action.UNCHANGED):
        said.append(f"Answered: {counted(answered, 'row')}.")
    return said
