"""Jobs whose batch the provider does not show: held while that lasts, whatever key or project is to blame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from batchops.engine.look import Sighting
from batchops.engine.recorded import read_recorded
from batchops.engine.run import Run
from batchops.store.job_changes import HoldJobs

_UNSEEN: Final = "the provider does not show batch "


def hold_unseen(run: Run, sightings: Sequence[Sighting]) -> None:
    """Hold the jobs of batches that are denied to us; let go those that were held for it and are seen again.

    401, 403 and 404 about a batch on record are no answer: most often the key is of another project, and whatever was
    submitted with it would be paid there. Not all batches of another job, or environment, are looked at: its own
    commands hold it, and let it go.
    """
    own = [sighting for sighting in sightings if sighting.submission.is_own]
    held = {job.address: job.held for job in read_recorded(run.project)}
    gone = {s.submission.address: s.submission.batch_id for s in own if s.is_gone}
    for address, batch_id in gone.items():
        if address in held and held[address] is None:
            _commit(run, (address,), f"{_UNSEEN}{batch_id}")
    seen = {s.submission.address for s in own if s.remote is not None} - gone.keys()
    again = tuple(address for address in seen if _is_unseen(held.get(address)))
    if again:
        _commit(run, again, None)


def _is_unseen(held: str | None) -> bool:
    return held is not None and held.startswith(_UNSEEN)


def _commit(run: Run, addresses: Iterable[str], because: str | None) -> None:
    run.store.commit(HoldJobs(run.project.environment, tuple(addresses), because))
