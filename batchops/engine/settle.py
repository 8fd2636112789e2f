"""Settle: decide the fate of a submission whose outcome nobody recorded.

The input file is the fencing token at the provider. A create whose reply was lost may still land; so we look for its
batch several times over a grace, then delete the input file, look over a grace again, and only then call the batch
absent: a create that lands after the delete finds no file and fails in validation, unpaid; one that landed just before
it is in the list by the end of the second grace. Safe while a created batch shows up in the provider's list sooner than
the grace; tests/protocol searches every interleaving.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from batchops.diagnostics import BatchopsError, Diagnostic, error
from batchops.engine.ledger import Submission
from batchops.engine.run import Run
from batchops.engine.steps import reached
from batchops.providers.provider import Provider, ProviderError, RemoteBatch
from batchops.store.changes import Created, Revoking, Withdrawn

LOOK_BACK_SECONDS = 300
"""Batches are listed back to this long before their input file was created, by the provider's own clock."""

LOOKS = 4


def settle(run: Run, open_ones: Sequence[Submission]) -> int:
    """Settle every submission that needs it; returns how many were. Problems go to `run.problems`, one each."""
    settled = 0
    for found in open_ones:
        if run.is_stopping:
            break
        if found.phase not in {"intended", "creating", "revoking"}:
            continue
        try:
            settled += settle_one(run, found)
        except ProviderError as problem:
            run.tell(unasked(found, problem))
        except BatchopsError as problem:
            run.tell(*problem.diagnostics)
    return settled


def settle_one(run: Run, found: Submission) -> bool:
    """True when the fate is decided and recorded. Raises ProviderError when the provider cannot be asked."""
    if found.phase == "intended":
        # Without a file id on record the create was never sent: nothing can land.
        reached("before_abandon")
        run.store.commit(Withdrawn(found.submission_id, "abandoned", reason="the create was never sent"))
        reached("after_abandon")
        return True
    provider = run.project.provider(found.provider)
    if found.phase == "creating":
        batch = _look_over_grace(run, provider, found)
        if batch is None:
            if run.is_stopping:
                return False
            _require_revocable(provider, found)
            reached("before_revoking")
            run.store.commit(Revoking(found.submission_id))
            reached("after_revoking")
    else:
        batch = None
    if batch is None:
        assert found.file_id is not None
        provider.delete_file(found.file_id)
        reached("after_delete")
        # A create that landed just before the delete is paid, and may be listed only now.
        batch = _look_over_grace(run, provider, found)
        if batch is None and run.is_stopping:
            return False
    reached("before_settle")
    if batch is not None:
        run.store.commit(Created(found.submission_id, batch.id, batch.raw, found.address, adopted=True))
    else:
        run.store.commit(Withdrawn(found.submission_id, "absent", reason="no batch was found, and its file is deleted"))
    reached("after_settle")
    return True


def _look_over_grace(run: Run, provider: Provider, found: Submission) -> RemoteBatch | None:
    """Look at once and then evenly over the whole grace, which starts anew after a crash, on our monotonic clock."""
    grace = run.project.settings.submit.settle_grace.total_seconds()
    began = time.monotonic()
    for step in range(LOOKS):
        if (batch := find_batch(provider, found)) is not None:
            return batch
        due = began + grace * (step + 1) / LOOKS
        if run.pause(max(0.0, due - time.monotonic())):
            return None
    return find_batch(provider, found)


def find_batch(provider: Provider, found: Submission) -> RemoteBatch | None:
    """The batch of a submission, by our metadata where that is kept, or by its input file, which is used only once."""
    since = None if found.file_created_at is None else int(found.file_created_at.timestamp()) - LOOK_BACK_SECONDS
    for batch in provider.list_batches(since=since):
        is_ours = provider.profile.supports_metadata and batch.metadata.get("batchops_submission") == str(found.token)
        if is_ours or batch.input_file_id == found.file_id:
            return batch
    return None


def _require_revocable(provider: Provider, found: Submission) -> None:
    if not provider.profile.delete_revokes:
        raise BatchopsError(
            _unsettled(
                found,
                f"{provider.name} may still create the batch: deleting its input file is not known to prevent that.",
            )
        )


def unasked(found: Submission, problem: ProviderError) -> Diagnostic:
    """The provider could not be asked what became of a submission."""
    return _unsettled(found, f"{found.provider} could not be asked: {problem.message}")


def _unsettled(found: Submission, why: str) -> Diagnostic:
    return error(
        "unsettled_submission",
        "It is not known whether a batch was created.",
        f"{why} Nothing of submission {found.token} is asked again until that is clear, so that no row is paid twice."
        " Look for the input file at the provider, then say what you found:",
        address=found.address,
        fixes=[
            f"batchops import {found.address} BATCH_ID",
            f"batchops state repair --absent {found.token}",
        ],
    )
