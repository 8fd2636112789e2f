"""The search through every interleaving of the submission model, and the way to the first bad state as a story."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from submission_model import NOBODY, SLOTS, Assumed, World, is_paid_twice, steps


def same(world: World) -> World:
    """One of the worlds that differ only by the names of clients and slots."""
    order = sorted(range(SLOTS), key=lambda slot: world.submissions[slot])
    names = {NOBODY: NOBODY, **{slot: place for place, slot in enumerate(order)}}
    clients = [(c._replace(slot=names[c.slot]), world.holder == me) for me, c in enumerate(world.clients)]
    clients.sort()
    holder = next((me for me, (_, is_holder) in enumerate(clients) if is_holder), NOBODY)
    submissions = tuple(world.submissions[slot] for slot in order)
    return World(world.request, holder, (clients[0][0], clients[1][0]), submissions, world.paid)


@dataclass
class Search:
    """Every state that was reached, up to names, how it was first reached, and the first bad one."""

    reached: dict[World, tuple[World, str] | None] = field(default_factory=dict)
    into: dict[World, list[World]] = field(default_factory=dict)
    """State → the states before it, over steps in which nobody dies or is robbed."""
    bad: World | None = None
    steps: int = 0

    def told(self) -> str:
        """The shortest way to the bad state, a sentence a line; `*` marks a fault."""
        sentences: list[str] = []
        world = self.bad
        while world is not None and (came := self.reached[same(world)]) is not None:
            world, sentence = came
            sentences.append(sentence)
        return "\n".join(f"{number:3}. {sentence}" for number, sentence in enumerate(reversed(sentences), 1))


def search(assumed: Assumed, is_bad: Callable[[World], bool] = is_paid_twice) -> Search:
    """Breadth first through everything reachable, up to the first bad state. Raises Conflict."""
    found = Search(reached={same(World()): None})
    queue = deque([World()])
    while queue:
        world = queue.popleft()
        here = same(world)
        for sentence, after in steps(world, assumed):
            found.steps += 1
            there = same(after)
            if "dies" not in sentence and "from the other" not in sentence:
                found.into.setdefault(there, []).append(here)
            if there in found.reached:
                continue
            found.reached[there] = (world, sentence)
            if is_bad(after):
                found.bad = after
                return found
            queue.append(after)
    return found


def hopeless(found: Search) -> set[World]:
    """Reached states from which, if nobody dies any more, no way leads to "paid once and answered"."""
    queue = [world for world in found.reached if world.request == "answered" and world.paid == 1]
    hopeful = set(queue)
    while queue:
        for before in found.into.get(queue.pop(), ()):
            if before not in hopeful:
                hopeful.add(before)
                queue.append(before)
    return set(found.reached) - hopeful
