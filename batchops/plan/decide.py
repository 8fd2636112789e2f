"""The rules of the diff for one row, on one page: what plan/diff.sql does for all rows at once, and its oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batchops.plan.model import Action

PENDING, IN_FLIGHT, ANSWERED, WAITING, GIVEN_UP, HELD = range(6)
_STANDING = {
    PENDING: Action.SUBMIT,
    IN_FLIGHT: Action.IN_FLIGHT,
    ANSWERED: Action.UNCHANGED,
    WAITING: Action.RETRY,
    GIVEN_UP: Action.FAILED,
    HELD: Action.HELD,
}


@dataclass(frozen=True)
class Desired:
    """A row as the spec implies it."""

    digest: str
    is_replaced: bool = False
    is_simulated: bool = False


@dataclass(frozen=True)
class Recorded:
    """A row as state says: the request it stands on."""

    digest: str
    round: int
    is_simulated: bool = False


@dataclass(frozen=True)
class JobFlags:
    keeps_answers: bool = False
    forgets_removed: bool = False
    is_held: bool = False


@dataclass(frozen=True)
class Decision:
    action: Action
    digest: str
    round: int


Ledger = Mapping[tuple[str, int], int]
"""(digest, round) → state of the request."""


def choose_digest(digests: Sequence[str], recorded: Recorded | None, ledger: Ledger) -> str:
    """Under which of its digests a row does best, the first being that of now, the others of another `reuse`.

    What is answered costs nothing, what is in flight is paid already, what waits for a retry was begun. A row stays
    where it stands as long as that is in flight, and wherever two are alike.
    """

    def place(nth: int) -> tuple[int, bool, int]:
        rounds = {round_: state for (digest, round_), state in ledger.items() if digest == digests[nth]}
        latest = rounds[max(rounds)] if rounds else PENDING
        is_standing = recorded is not None and recorded.digest == digests[nth]
        if ANSWERED in rounds.values() or (is_standing and latest == IN_FLIGHT):
            return 0, not is_standing, nth
        return {IN_FLIGHT: 1, WAITING: 2}.get(latest, 3), not is_standing, nth

    return digests[min(range(len(digests)), key=place)]


def decide(desired: Desired | None, recorded: Recorded | None, ledger: Ledger, flags: JobFlags) -> Decision | None:
    """What happens to one row; None for a removed row that stays on record."""
    if desired is None:
        assert recorded is not None
        return Decision(Action.FORGET, recorded.digest, recorded.round) if flags.forgets_removed else None
    decision = _decide_wanted(desired, recorded, ledger, flags)
    if flags.is_held and decision.action.is_paid:
        return Decision(Action.HELD, decision.digest, decision.round)
    return decision


def _decide_wanted(desired: Desired, recorded: Recorded | None, ledger: Ledger, flags: JobFlags) -> Decision:
    rounds = {round_: state for (digest, round_), state in ledger.items() if digest == desired.digest}
    latest = max(rounds, default=None)
    answered = max((r for r, state in rounds.items() if state == ANSWERED), default=None)
    fresh = 0 if latest is None else latest + 1
    standing = ledger.get((recorded.digest, recorded.round)) if recorded else None
    if desired.is_replaced and not _is_still_owed(desired.digest, recorded, ledger):
        if standing == HELD and recorded and (recorded.digest, recorded.round) == (desired.digest, latest):
            return Decision(Action.RETRY, desired.digest, fresh)  # as `retry` gives it: no answer is thrown away
        was_asked = latest is not None or standing not in {None, PENDING}
        return Decision(Action.RESUBMIT if was_asked else Action.SUBMIT, desired.digest, fresh)
    if recorded is not None and recorded.digest == desired.digest:
        return _decide_standing(recorded, rounds, answered)
    is_of_its_kind = recorded is not None and recorded.is_simulated == desired.is_simulated
    if recorded and flags.keeps_answers and standing == ANSWERED and is_of_its_kind:
        return Decision(Action.UNCHANGED, desired.digest, recorded.round)
    if answered is not None:
        return Decision(Action.REUSE, desired.digest, answered)
    if latest is not None and rounds[latest] in {IN_FLIGHT, WAITING}:
        return Decision(_STANDING[rounds[latest]], desired.digest, latest)
    action = Action.RESUBMIT if standing not in {None, PENDING} else Action.SUBMIT
    if latest is not None and rounds[latest] == PENDING:
        return Decision(action, desired.digest, latest)
    return Decision(action, desired.digest, fresh)


def _is_still_owed(digest: str, recorded: Recorded | None, ledger: Ledger) -> bool:
    """Whether the row is to be asked anyway, for the first time or in the round that was opened for it."""
    rounds = {round_: state for (asked, round_), state in ledger.items() if asked == digest}
    stands_on = (recorded.digest, recorded.round) if recorded else None
    if not rounds or rounds[max(rounds)] != PENDING or (stands_on and ledger.get(stands_on, PENDING) != PENDING):
        return False
    return ANSWERED not in rounds.values() or stands_on == (digest, max(rounds))


def _decide_standing(recorded: Recorded, rounds: Mapping[int, int], answered: int | None) -> Decision:
    state = rounds.get(recorded.round, PENDING)
    if state != ANSWERED and answered is not None and answered > recorded.round:
        return Decision(Action.REUSE, recorded.digest, answered)
    if state == PENDING and recorded.round > 0:  # somebody opened another round for it
        return Decision(Action.RETRY, recorded.digest, recorded.round)
    return Decision(_STANDING[state], recorded.digest, recorded.round)
