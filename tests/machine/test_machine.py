"""Random lives of a project: edits × faults × kills × clock jumps × second processes, and the seven laws after each.

Everything is real: the command line as processes that die by SIGKILL, DuckDB files, the service over HTTP. What chance
did not bring in a run, a last life goes through on purpose; a kind of mishap that never befell fails the test.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import ClassVar

import pytest
from crash import steps
from crew import Crew
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from life import Life, Reached
from mishaps import MISHAPS
from service import Service, serving

pytest_plugins = ("yard_fixtures",)

KEYS = 500
STEPS = steps()
WORDS = ["ash", "birch", "cedar", "elm", "fir"]
PROMPTS = ["Repeat", "Say", "Echo"]
METADATA = [
    {"description": "Trees, echoed"},
    {"owner": "forest"},
    {"tags": ["wood"]},
    {"batch": {"metadata": {"team": "trees"}}},
    {"retry": {"max_attempts": 5, "backoff": {"initial": "10ms", "max": "10ms"}}},
]


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    names = [f"MACHINE_KEY_{number}" for number in range(KEYS)]
    words = [word for name in names for word in ("--key", f"env:{name}")]
    environ = {name: f"sk-{name}" for name in names}
    with serving(
        tmp_path_factory.mktemp("machine") / "data",
        "--answers", "echoing:answer", *words,
        cwd=Path(__file__).parent, environ=environ,
    ) as found:  # fmt: skip
        yield found


NewLife = Callable[[], Life]

_numbers = itertools.count()


@pytest.fixture
def new_life(echo: Service, crew: Crew, reached: Reached) -> NewLife:
    """Begins a life in a folder, and with a name and a key, of its own: all of a run share one service."""

    def begin() -> Life:
        number = next(_numbers)
        service = replace(echo, key=f"sk-MACHINE_KEY_{number}")
        root = Path(tempfile.mkdtemp(prefix="life-")) / f"life-{number}"
        return Life(root, crew=crew, service=service, reached=reached)

    return begin


@pytest.fixture
def reached() -> Reached:
    return Reached()


def together(names: list[str]) -> list[str]:
    """Mishaps that can befall one apply: only one that befalls a whole batch."""
    batch = [name for name in names if name.startswith("batch:")]
    return [name for name in dict.fromkeys(names) if name not in batch[1:]]


class Lives(RuleBasedStateMachine):
    """The walk. Each rule edits files, or runs commands and then looks at the laws."""

    new_life: ClassVar[NewLife]

    def __init__(self) -> None:
        super().__init__()
        self.life: Life = type(self).new_life()

    @initialize(words=st.lists(st.sampled_from(WORDS), min_size=3, max_size=6))
    def begin(self, words: list[str]) -> None:
        self.life.begin(words)

    # Edits

    @rule(pick=st.integers(0, 99), word=st.sampled_from(WORDS))
    def edit_row(self, pick: int, word: str) -> None:
        if self.life.words:
            self.life.words[sorted(self.life.words)[pick % len(self.life.words)]] = word
        self._edited("row changed")

    @rule(words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3))
    def add_rows(self, words: list[str]) -> None:
        first = max(self.life.words, default=0) + 1
        self.life.words |= dict(enumerate(words, first))
        self._edited("rows added")

    @precondition(lambda self: len(self.life.words) > 1)
    @rule(pick=st.integers(0, 99))
    def remove_row(self, pick: int) -> None:
        del self.life.words[sorted(self.life.words)[pick % len(self.life.words)]]
        self._edited("row removed")

    @rule(prompt=st.sampled_from(PROMPTS))
    def edit_prompt(self, prompt: str) -> None:
        """To another prompt or back to an earlier one; what was answered is never to be paid again: see hold_plan."""
        self.life.prompt = prompt
        self._edited("prompt changed")
        self.life.hold_plan()

    @rule(seed=st.integers(0, 99))
    def shuffle_rows(self, seed: int) -> None:
        before = self.life.hold_plan()
        self.life.save(order=Random(seed))
        self.life.reached.edits["rows in another order"] += 1
        assert self.life.hold_plan() == before

    @rule(edit=st.sampled_from(METADATA))
    def edit_metadata(self, edit: dict[str, object]) -> None:
        before = self.life.hold_plan()
        self.life.spec |= edit
        self._edited("metadata changed")
        assert self.life.hold_plan() == before

    @rule(name=st.sampled_from(["chat", "talk", "speech"]))
    def rename(self, name: str) -> None:
        if name != self.life.name:
            self.life.moved_from, self.life.name = self.life.name, name
        self._edited("job renamed")
        self.life.hold_plan()

    @rule(limit=st.sampled_from([None, 1, 3]))
    def change_limit(self, limit: int | None) -> None:
        self.life.limit = limit
        self._edited("limit changed")

    def _edited(self, what: str) -> None:
        self.life.reached.edits[what] += 1
        self.life.save()

    # Commands

    @rule(names=st.lists(st.sampled_from(sorted(MISHAPS)), max_size=4))
    def apply(self, names: list[str]) -> None:
        """Apply while these mishaps befall."""
        self.life.arm(together(names))
        self._do(lambda life: life.apply_once())

    @rule()
    def apply_without_waiting(self) -> None:
        self._do(lambda life: life.apply_once(wait=False))

    @rule(
        step=st.sampled_from(STEPS), nth=st.integers(1, 2), names=st.lists(st.sampled_from(sorted(MISHAPS)), max_size=2)
    )
    def die_at_a_step(self, step: str, nth: int, names: list[str]) -> None:
        self.life.arm(together(names))
        self._do(lambda life: life.die_at_a_step(step, nth))

    @rule(seconds=st.floats(0, 1.5))
    def die_at_a_moment(self, seconds: float) -> None:
        self._do(lambda life: life.die_at_a_moment(seconds))

    @rule()
    def apply_twice_at_once(self) -> None:
        self._do(lambda life: life.apply_twice_at_once())

    @rule(seconds=st.sampled_from([60, 2000, 90_000]))
    def jump(self, seconds: int) -> None:
        """The service's clock jumps: a day and an hour let everything under way expire."""
        self.life.jump(seconds)

    @precondition(lambda self: self.life.has_state)
    @rule()
    def let_due(self) -> None:
        self.life.let_due()

    @rule()
    def retry(self) -> None:
        """Another round for what was given up."""
        self.life.note("retry", self.life.start("retry", self.life.name).wait())

    def _do(self, act: Callable[[Life], object]) -> None:
        act(self.life)
        self.life.disarm()
        self.life.hold_always()

    def teardown(self) -> None:
        if self.life.words:
            self.life.end()
        self.life.dismiss()


def make_up_for(life: Life, reached: Reached) -> None:
    """A life in which all that befalls which chance has not brought, several mishaps in each apply."""
    life.begin(WORDS)
    life.die_at_a_step("after_create", 1)
    life.die_at_a_moment(0.02)
    life.apply_twice_at_once()
    life.jump(90_000)
    for number in range(len(MISHAPS)):
        left = together([name for name in MISHAPS if not reached.mishaps[name]])
        if not left:
            break
        life.words |= {key: f"oak {key}" for key in range(100 * number, 100 * number + 8)}
        life.save()
        life.arm(left[:12])
        life.apply_once()
        life.hold_always()
        life.let_go()
    life.end()
    life.dismiss()


def tell(reached: Reached, record_property: Callable[[str, object], None]) -> None:
    for what, counter in vars(reached).items():
        if isinstance(counter, Counter):
            told = ", ".join(f"{name} ×{count}" for name, count in sorted(counter.items()))
            record_property("reached", f"machine, {reached.lives} lives, {what}: {told}")


def live(examples: int, rules: int, new_life: NewLife) -> None:
    lives = type("Lives", (Lives,), {"new_life": staticmethod(new_life)})
    run_state_machine_as_test(
        lives,
        settings=settings(
            max_examples=examples,
            stateful_step_count=rules,
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


def have_lived(
    examples: int, rules: int, new_life: NewLife, reached: Reached, record_property: Callable[[str, object], None]
) -> None:
    live(examples, rules, new_life)
    make_up_for(new_life(), reached)
    tell(reached, record_property)
    assert set(reached.mishaps) == set(MISHAPS), "a mishap never befell"
    assert {"apply to die at a step, killed", "apply to die at a moment, killed"} <= set(reached.commands)
    assert reached.commands["apply beside another, exit 11"]


def test_the_laws_hold_through_random_lives(
    new_life: NewLife, reached: Reached, record_property: Callable[[str, object], None]
) -> None:
    have_lived(2, 8, new_life, reached, record_property)


@pytest.mark.full
def test_the_laws_hold_through_many_long_lives(
    new_life: NewLife, reached: Reached, record_property: Callable[[str, object], None]
) -> None:
    have_lived(int(os.environ.get("LIVES", "40")), 20, new_life, reached, record_property)
