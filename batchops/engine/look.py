"""Look at what is open at the providers, without writing: the part of a refresh that `plan` does too."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from batchops.diagnostics import Diagnostic, warning
from batchops.engine.ledger import Submission, awaited_submissions
from batchops.engine.project import Project
from batchops.plan.model import BatchAction
from batchops.providers.provider import Denied, Missing, Provider, ProviderError, RemoteBatch, Unreachable

_POLLS: Final = 5
"""Batches that are asked for at a time: ten million rows are 200 of them, and every reply comes from afar.

Small services, such as those on Python's `http.server`, queue five connections: of eight at once one waits a second
until it is tried again (measured, 2026-11)."""


@dataclass(frozen=True)
class Sighting:
    """A submission and its batch as it is now; `problem` when the provider would not show it."""

    submission: Submission
    remote: RemoteBatch | None = None
    problem: ProviderError | None = None

    @property
    def action(self) -> BatchAction:
        """What apply would do about it."""
        if self.submission.phase == "ended" or (self.remote is not None and self.remote.status.is_terminal):
            return BatchAction.FETCH
        return BatchAction.IN_FLIGHT if self.submission.phase == "created" else BatchAction.SETTLE

    @property
    def is_gone(self) -> bool:
        """The provider denies that the batch exists for us: never an outcome, always a question for a person."""
        return isinstance(self.problem, (Denied, Missing))


def look(project: Project, addresses: Collection[str] | None = None, *, offline: bool = False) -> list[Sighting]:
    """Every open submission, its batch polled unless `offline`. Connects to a provider only when it has one open."""
    submissions = awaited_submissions(project, addresses)
    asked = [] if offline else [found for found in submissions if found.phase == "created"]
    polls = _Polls({name: project.provider(name) for name in {found.provider for found in asked}})
    with ThreadPoolExecutor(_POLLS, thread_name_prefix="batchops-look") as pool:
        seen = {sighting.submission.submission_id: sighting for sighting in pool.map(polls.poll, asked)}
    return [seen.get(found.submission_id, Sighting(found)) for found in submissions]


@dataclass(frozen=True)
class _Polls:
    """One look; a provider that cannot be reached is not asked for its other batches, each as patiently again."""

    providers: Mapping[str, Provider]
    unreachable: dict[str, Unreachable] = field(default_factory=dict)

    def poll(self, found: Submission) -> Sighting:
        assert found.batch_id is not None
        if found.provider in self.unreachable:
            return Sighting(found, problem=self.unreachable[found.provider])
        try:
            return Sighting(found, remote=self.providers[found.provider].retrieve(found.batch_id))
        except ProviderError as problem:
            if isinstance(problem, Unreachable):
                self.unreachable[found.provider] = problem
            return Sighting(found, problem=problem)


def problems_of(sightings: Collection[Sighting]) -> list[Diagnostic]:
    """What could not be seen, as warnings that say what to check.

    One for each batch that is denied to us, and one for each provider that could not be asked, whatever it has.
    """
    unasked: dict[str, list[Sighting]] = {}
    for sighting in sightings:
        if sighting.problem is not None and not sighting.is_gone:
            unasked.setdefault(sighting.submission.provider, []).append(sighting)
    gone = [_not_visible(s.submission, s.problem) for s in sightings if s.problem is not None and s.is_gone]
    return gone + [_not_asked(provider, found) for provider, found in unasked.items()]


class NotShown:
    """What the looks of one command could not see: told in the end, as a wait may meet it in every round.

    Of a batch that was seen later nothing is told, unless it was denied: that is a question for a person all the same.
    """

    def __init__(self) -> None:
        self._met: dict[tuple[int, bool], Sighting] = {}

    def note(self, sightings: Collection[Sighting]) -> None:
        """Take in one look."""
        for sighting in sightings:
            number = sighting.submission.submission_id
            if sighting.problem is not None:
                self._met.setdefault((number, sighting.is_gone), sighting)
            elif sighting.remote is not None:
                self._met.pop((number, False), None)

    def problems(self) -> list[Diagnostic]:
        return problems_of(self._met.values())


def _not_visible(found: Submission, problem: ProviderError) -> Diagnostic:
    return warning(
        "batch_not_visible",
        "The provider does not show a batch that state has.",
        f"{found.provider} answered {problem.status} for {found.batch_id}. Its rows stay in flight: this is never"
        " taken for an answer. Check that the API key belongs to the organisation and project that submitted it.",
        address=found.address,
    )


def _not_asked(provider: str, sightings: Sequence[Sighting]) -> Diagnostic:
    """Of one provider; of one job where all of the batches are its own."""
    first, addresses = sightings[0], {sighting.submission.address for sighting in sightings}
    assert first.problem is not None
    batches = first.submission.batch_id if len(sightings) == 1 else f"{len(sightings):,} batches"
    return warning(
        "provider_unreachable",
        "The provider could not be asked.",
        f"{provider} about {batches}: {first.problem.message} Shown as last seen.",
        address=addresses.pop() if len(addresses) == 1 else None,
    )
