"""A model of handing over one request exactly once: every state that two clients, a service and bad luck can reach.

What is modelled is what batchops/engine/submit.py and settle.py do, one move for each effect and each commit, with the
names of batchops/store/changes.py: Intend, Creating, Created, Revoking, Withdrawn, Observed, Fetched. Between any two
moves a client may be paused for ever, die, or lose its lease; a create may land whenever it likes after it was sent;
its reply may be lost; a new batch may be missing from listings for a while. What the safety rests on is in `Assumed`,
and each of its parts can be taken away to see what breaks.

The model has no counters, so its states are finite: nothing bounds how often clients die or replies are lost. Only
`SLOTS` submissions are alive at once; one that nothing can happen to any more makes room. Reading the state and
committing on what was read is one move: in between nobody else commits without moving the fence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

SLOTS = 2
CLIENTS = "AB"
NOBODY = -1

MOVES: dict[str, tuple[frozenset[str], str]] = {
    "Intend": (frozenset({""}), "intended"),
    "Creating": (frozenset({"intended"}), "creating"),
    "Created": (frozenset({"creating", "revoking"}), "created"),
    "Revoking": (frozenset({"creating"}), "revoking"),
    "Withdrawn(abandoned)": (frozenset({"intended", "creating", "revoking"}), "abandoned"),
    "Withdrawn(absent)": (frozenset({"intended", "creating", "revoking"}), "absent"),
    "Observed(ended)": (frozenset({"created", "ended"}), "ended"),
    "Fetched": (frozenset({"ended"}), "fetched"),
}
"""Commit → the phases it moves a submission from, and the phase it moves it to."""

OVER = frozenset({"abandoned", "absent", "fetched"})


@dataclass(frozen=True)
class Assumed:
    """How clients settle, and what is believed of the service. The defaults are the code and its documentation."""

    grace: int = 1
    """Ticks over which a settling client looks, by its own clock."""
    lag: int = 1
    """Ticks after which a batch is in the listings at the latest: no more than the grace."""
    revokes: bool = True
    """The input file is deleted before a batch is believed absent."""
    looks_before: bool = True
    """Looks over the grace come before the delete."""
    looks_after: bool = True
    """Looks over the grace come after the delete; else one look at once."""
    commits_check: bool = True
    """Every commit checks that the lease is still ours, and that the submission is in the phase it expects."""
    creates_come_late: bool = True
    """A create whose sender has given up may still land; else it landed at once or never will."""
    delete_revokes: bool = True
    """A batch whose input file is gone fails in validation, unpaid."""
    delete_spares_running: bool = True
    """Deleting the input file does not disturb a batch that has passed validation."""
    lease_is_kept: bool = False
    """Nobody takes the lease from a client that is alive."""


class Submission(NamedTuple):
    """What state and service have of one submission; an empty phase is a free slot."""

    phase: str = ""
    file: str = ""
    """'' not uploaded · there · deleted"""
    is_sent: bool = False
    """A create is on its way."""
    batch: str = ""
    """'' none · validating · running (paid) · ended (paid, its answer can be downloaded) · failed"""
    hidden: int = 0
    """Ticks until listings show the batch."""


class Client(NamedTuple):
    """One process: the move it makes next (`dead` when it is not running), on which submission, its settling clock."""

    next: str = "dead"
    slot: int = NOBODY
    ticks: int = 0


class World(NamedTuple):
    request: str = "pending"
    holder: int = NOBODY
    """Whose fence the state has."""
    clients: tuple[Client, Client] = (Client(), Client())
    submissions: tuple[Submission, ...] = (Submission(),) * SLOTS
    paid: int = 0
    """How often the request was executed."""


Step = tuple[str, World]


def steps(world: World, assumed: Assumed) -> Iterator[Step]:
    """Everything that can happen next, each with a sentence that tells it. A sentence with `*` is a fault."""
    for me in range(len(CLIENTS)):
        for sentence, after in _client_steps(world, me, assumed):
            yield f"{CLIENTS[me]} {sentence}", _tidy(after)
    for slot in range(SLOTS):
        for sentence, after in _service_steps(world, slot, assumed):
            yield sentence, _tidy(after)
    if any(s.hidden for s in world.submissions) or any(0 <= c.ticks < assumed.grace for c in _looking(world)):
        yield "time passes", _ticked(world, assumed)


# The client: batchops/engine/{converge,submit,settle,fetch}.py


def _client_steps(world: World, me: int, assumed: Assumed) -> Iterator[Step]:
    client = world.clients[me]
    if client.next == "dead":
        if world.holder == NOBODY:
            yield "starts and takes the lease", _go(world._replace(holder=me), me, "begin")
        elif not assumed.lease_is_kept:
            yield "* starts and takes the lease from the other", _go(world._replace(holder=me), me, "begin")
        return
    yield "* dies", _go(world, me, "dead")
    yield from _NEXT[client.next](world, me, client, assumed)


def _begin(world: World, me: int, client: Client, assumed: Assumed) -> Iterator[Step]:
    """Read the state: settle what is open, fetch what has ended, submit what is pending."""
    for slot, found in enumerate(world.submissions):
        mine = client._replace(slot=slot)
        match found.phase:
            case "intended":
                yield from _abandon(world, me, mine, assumed)
            case "creating":
                yield f"finds #{slot} creating, and settles it", _go(world, me, _first(assumed), slot)
            case "revoking":
                yield f"finds #{slot} revoking, and goes on", _go(world, me, "delete", slot)
            case "created" | "ended" if found.batch in {"ended", "failed"}:
                yield _commit(world, world, me, mine, "Observed(ended)", "fetch", assumed)
    if world.request == "pending" and Submission() in world.submissions:
        mine = client._replace(slot=world.submissions.index(Submission()))
        yield _commit(world, world._replace(request="in_flight"), me, mine, "Intend", "upload", assumed)


def _first(assumed: Assumed) -> str:
    return "look" if assumed.looks_before else "revoke"


def _upload(world: World, me: int, client: Client, assumed: Assumed) -> Iterator[Step]:
    """A lost reply is looked up by name and size: to the model that is the same."""
    found = world.submissions[client.slot]
    there = "there" if found.phase == "intended" and not found.file else found.file  # else a stray nobody knows
    uploaded = _submission(world, client.slot, found._replace(file=there))
    yield f"uploads the file of #{client.slot}", _go(uploaded, me, "creating", client.slot)
    yield f"* is refused the upload of #{client.slot}", _go(world, me, "abandon", client.slot)


def _creating(world: World, me: int, client: Client, assumed: Assumed) -> Iterator[Step]:
    yield _commit(world, world, me, client, "Creating", "create", assumed)


def _create(world: World, me: int, client: Client, assumed: Assumed) -> Iterator[Step]:
    """The one POST that costs money, sent once."""
    slot, found = client.slot, world.submissions[client.slot]
    if assumed.creates_come_late:
        sent = _submission(world, slot, found._replace(is_sent=True))
        yield f"sends the create of #{slot}", _go(sent, me, "reply", slot)
        return
    for hidden in range(assumed.lag + 1):
        landed = _submission(world, slot, found._replace(batch="validating", hidden=hidden))
        yield f"sends the create of #{slot}, which lands{_unlisted(hidden)}", _go(landed, me, "reply", slot)
    yield f"* sends the create of #{slot}, which is lost", _go(world, me, "reply", slot)


def _reply(world: World, me: int, client: Client, assumed: Assumed) -> Iterator[Step]:
    slot, found = client.slot, world.submissions[client.slot]
    if found.batch:
        yield f"is told the batch of #{slot}", _go(world, me, "created", slot)
    elif found.is_sent:
        refused = _submission(world, slot, found._replace(is_sent=False))
        yield f"* is refused the create of #{slot} for good", _go(refused, me, "abandon", slot)
    yield f"* gets no reply to the create of #{slot}, and settles it", _go(world, me, _first(assumed), slot)


def _created(world: World, me: int, client: Client, assumed: Assumed) -> Iterator[Step]:
    yield _commit(world, world, me, client, "Created", "begin", assumed)


def _abandon(world: World, me: int, client: Client, assumed: Assumed) -> Iterator[Step]:
    freed = world._replace(request="pending")
    yield _commit(world, freed, me, client, "Withdrawn(abandoned)", "begin", assumed)


def _look(world: World, me: int, client: Client, assumed: Assumed) -> Iterator[Step]:
    """Several looks over the grace, which starts anew after a crash; only the last one can say no."""
    if _is_listed(world.submissions[client.slot]):
        yield f"finds the batch of #{client.slot} in the listing", _go(world, me, "created", client.slot)
    elif client.ticks >= assumed.grace:
        after = "revoke" if assumed.revokes else "absent"
        yield f"has not found a batch of #{client.slot} over the whole grace", _go(world, me, after, client.slot)


def _revoke(world: World, me: int, client: Client, assumed: Assumed) -> Iterator[Step]:
    yield _commit(world, world, me, client, "Revoking", "delete", assumed)


def _delete(world: World, me: int, client: Client, assumed: Assumed) -> Iterator[Step]:
    found = world.submissions[client.slot]
    gone = found._replace(file="deleted")
    if gone.batch == "running" and not assumed.delete_spares_running:
        gone = gone._replace(batch="failed")
    deleted = _submission(world, client.slot, gone)
    yield f"deletes the input file of #{client.slot}", _go(deleted, me, "look_again", client.slot)


def _look_again(world: World, me: int, client: Client, assumed: Assumed) -> Iterator[Step]:
    """What landed just before the delete may be listed only now."""
    if _is_listed(world.submissions[client.slot]):
        yield f"finds the batch of #{client.slot} after the delete", _go(world, me, "created", client.slot)
    elif client.ticks >= assumed.grace or not assumed.looks_after:
        yield f"does not find a batch of #{client.slot} after the delete", _go(world, me, "absent", client.slot)


def _absent(world: World, me: int, client: Client, assumed: Assumed) -> Iterator[Step]:
    freed = world._replace(request="pending")
    yield _commit(world, freed, me, client, "Withdrawn(absent)", "begin", assumed)


def _fetch(world: World, me: int, client: Client, assumed: Assumed) -> Iterator[Step]:
    """Download and judge: the answer is on record, or the request is to be asked again."""
    request = "answered" if world.submissions[client.slot].batch == "ended" else "pending"
    yield _commit(world, world._replace(request=request), me, client, "Fetched", "begin", assumed)


_NEXT: dict[str, Callable[[World, int, Client, Assumed], Iterator[Step]]] = {
    "begin": _begin,
    "upload": _upload,
    "creating": _creating,
    "create": _create,
    "reply": _reply,
    "created": _created,
    "abandon": _abandon,
    "look": _look,
    "revoke": _revoke,
    "delete": _delete,
    "look_again": _look_again,
    "absent": _absent,
    "fetch": _fetch,
}


class Conflict(Exception):
    """The holder of the lease met a phase that its commit does not expect: the protocol contradicts itself."""


def _commit(world: World, after: World, me: int, client: Client, change: str, follows: str, assumed: Assumed) -> Step:
    """One transaction: the fence is checked, then the phase; all or nothing."""
    before, phase = MOVES[change]
    found = world.submissions[client.slot]
    if assumed.commits_check:
        if world.holder != me:
            return f"finds the lease taken at {change}, and stops", _go(world, me, "dead")
        if found.phase not in before:
            raise Conflict(f"{change} of #{client.slot} in phase {found.phase!r}")
    moved = _submission(after, client.slot, found._replace(phase=phase))
    return f"commits {change} of #{client.slot}", _go(moved, me, follows, client.slot)


# The service


def _service_steps(world: World, slot: int, assumed: Assumed) -> Iterator[Step]:
    found = world.submissions[slot]
    if found.is_sent:
        for hidden in range(assumed.lag + 1):
            landed = found._replace(is_sent=False, batch="validating", hidden=hidden)
            yield f"the create of #{slot} lands{_unlisted(hidden)}", _submission(world, slot, landed)
    if found.batch == "validating":
        if found.file == "there" or not assumed.delete_revokes:
            after = "ended" if assumed.delete_spares_running else "running"  # then nothing happens in between
            executed = _submission(world, slot, found._replace(batch=after))
            yield f"the service executes #{slot}: PAID", executed._replace(paid=world.paid + 1)
        else:
            failed = found._replace(batch="failed")
            yield f"the batch of #{slot} finds no file and fails, unpaid", _submission(world, slot, failed)
    elif found.batch == "running":
        yield f"the batch of #{slot} ends", _submission(world, slot, found._replace(batch="ended"))


def _unlisted(hidden: int) -> str:
    return f", not to be listed for {hidden} ticks" if hidden else ""


def _is_listed(found: Submission) -> bool:
    return found.batch != "" and not found.hidden


def _looking(world: World) -> list[Client]:
    return [client for client in world.clients if client.next in {"look", "look_again"}]


def _ticked(world: World, assumed: Assumed) -> World:
    clients = [
        c._replace(ticks=min(c.ticks + 1, assumed.grace)) if c.next in {"look", "look_again"} else c
        for c in world.clients
    ]
    submissions = tuple(s._replace(hidden=s.hidden - 1) if s.hidden else s for s in world.submissions)
    return _tidy(world._replace(clients=(clients[0], clients[1]), submissions=submissions))


# Small moves


def _go(world: World, me: int, follows: str, slot: int = NOBODY) -> World:
    clients = list(world.clients)
    clients[me] = Client(follows, NOBODY if follows in {"begin", "dead"} else slot)
    is_over = follows == "dead" and world.holder == me
    return world._replace(clients=(clients[0], clients[1]), holder=NOBODY if is_over else world.holder)


def _submission(world: World, slot: int, found: Submission) -> World:
    return world._replace(submissions=(*world.submissions[:slot], found, *world.submissions[slot + 1 :]))


def _tidy(world: World) -> World:
    """Free the slots of submissions that nothing can happen to any more."""
    busy = {client.slot for client in world.clients}
    for slot, found in enumerate(world.submissions):
        if found.phase in OVER and slot not in busy and not found.is_sent and found.batch in {"", "ended", "failed"}:
            world = _submission(world, slot, Submission())
    return world


def is_paid_twice(world: World) -> bool:
    return world.paid > 1


def is_lost(world: World) -> bool:
    """State has given up on a paid answer: it will be asked again."""
    return any(s.batch in {"running", "ended"} and s.phase in {"absent", "abandoned"} for s in world.submissions)
