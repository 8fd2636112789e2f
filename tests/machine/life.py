"""A project's life, and the seven laws it lives under: what a random walk may do to it, and what must then hold.

The truth is the service's: which requests it executed, and which answers could be downloaded. Against it stand the
project's state and what the command line says.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from crew import Ended
from echoing import asked
from mishaps import rules
from submission_model import MOVES
from workshop import Ran
from yard import KILLED, RETRY, Yard

from batchops.store.integrity import find_damage
from batchops.store.store import StateReader

SETTINGS = '[poll]\ninitial = "20ms"\nmax = "50ms"\n[submit]\nsettle_grace = "200ms"\n'
SCHEMA = {
    "title": "echo",
    "type": "object",
    "properties": {"said": {"type": "string"}},
    "required": ["said"],
    "additionalProperties": False,
}
PAID = ("submit", "resubmit", "retry")
FINISHED = {0, 6}
UNFINISHED = {1, 9, 11, KILLED}
GIVEN_UP = {
    "rate_limited", "server_error", "timed_out", "missing", "truncated", "invalid_json", "schema_mismatch", "refused",
    "content_filtered", "bad_request", "not_found", "held",
}  # fmt: skip
_EVENTS = {
    "intended": "Intend",
    "creating": "Creating",
    "created": "Created",
    "revoking": "Revoking",
    "fetched": "Fetched",
}


@dataclass
class Reached:
    """What random lives have come to, over all of them."""

    commands: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    killed_at: Counter[str] = field(default_factory=Counter)
    mishaps: Counter[str] = field(default_factory=Counter)
    edits: Counter[str] = field(default_factory=Counter)
    lives: int = 0


@dataclass
class Life(Yard):
    """One project from its first row on. Edits change files; `apply` and its kin run the real command line."""

    reached: Reached = field(kw_only=True)
    name: str = "chat"
    moved_from: str | None = None
    prompt: str = "Repeat"
    spec: dict[str, Any] = field(default_factory=dict)
    words: dict[int, str] = field(default_factory=dict)
    limit: int | None = None
    armed: list[str] = field(default_factory=list)
    stalls: bool = False
    _files: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def begin(self, words: list[str]) -> None:
        self.reached.lives += 1
        self.words = dict(enumerate(words))
        self.write({"batchops.toml": SETTINGS})
        self.service.faults()
        self.save()

    # What happens to the files

    def save(self, *, order: Random | None = None) -> None:
        """Write the spec and the rows, in another order if a random one is given."""
        rows = list(self.words.items())
        if order is not None:
            order.shuffle(rows)
        table = io.StringIO()
        csv.writer(table).writerows([("id", "word"), *rows])
        spec = {
            "name": self.name,
            "source": {
                "query": "SELECT id, word FROM read_csv('data/rows.csv', columns = {id: 'INTEGER', word: 'VARCHAR'})",
                "key": "id",
            },
            "model": "gpt-5-mini",
            "template": f"{self.prompt} {{{{ word }}}}",
            "params": {"max_completion_tokens": 64},
            "schema": SCHEMA,
            "retry": RETRY,
            **({"moved_from": self.moved_from} if self.moved_from else {}),
            **self.spec,
        }
        self.write({"data/rows.csv": table.getvalue(), "jobs/job.yaml": json.dumps(spec, indent=2)})

    def texts(self) -> dict[int, str]:
        """What each row asks."""
        return {key: f"{self.prompt} {word}" for key, word in self.words.items()}

    # What is done

    def arm(self, names: list[str]) -> None:
        """Let these mishaps befall the next command. The clock lets stalled batches go."""
        self.armed = names
        self.service.faults(*rules(names))
        self.stalls |= "batch: stalls" in names

    def disarm(self) -> None:
        """Let nothing more go wrong, and count what did."""
        fired = self.service.fired()
        self.reached.mishaps.update({name: fired[name] for name in self.armed if fired[name]})
        self.armed = [name for name in self.armed if not fired[name]]
        self.service.faults()

    def jump(self, seconds: float) -> None:
        self.reached.edits[f"clock jumped {seconds:,} s"] += 1
        self.service.advance(seconds)
        self.stalls &= seconds < 1000

    @property
    def has_state(self) -> bool:
        return (self.root / "state" / "batchops.duckdb").exists()

    def let_go(self) -> None:
        """Let nothing wait any more: not for the clock, not for its turn, not for a person."""
        self.jump(2000)
        self.let_due()
        self.note("retry", self.start("retry", self.name).wait())

    def words_of_apply(self, *, wait: bool = True) -> list[str]:
        timeout = "300ms" if self.stalls else "20s"
        waiting = ["--wait", "--timeout", timeout] if wait else []
        return ["apply", "--auto-approve", "--json", *waiting, *self._limited()]

    def _limited(self) -> list[str]:
        return ["--limit", str(self.limit)] if self.limit is not None else []

    def note(self, what: str, ended: Ended, *, step: str = "") -> int:
        """Keep what a command came to, and see that it ended in a way that is allowed."""
        self.reached.commands[f"{what}, {'killed' if ended.code == KILLED else f'exit {ended.code}'}"] += 1
        self.reached.steps.update(ended.steps)
        if ended.code == KILLED and step:
            self.reached.killed_at[step] += 1
        self._checked(Ran(ended.code, ended.out, ended.err), None)
        assert ended.code in FINISHED | UNFINISHED, f"exit {ended.code}\n{ended.out}\n{ended.err}"
        return ended.code

    def apply_once(self, *, wait: bool = True) -> int:
        """Apply; returns the exit code. What was armed and did not befall stays in `armed`."""
        code = self.note("apply", self.start(*self.words_of_apply(wait=wait)).wait())
        assert code != KILLED
        self.disarm()
        if code in FINISHED and wait:
            self.hold_finished()
        return code

    def die_at_a_step(self, step: str, nth: int) -> None:
        command = self.start(*self.words_of_apply(), step=f"{step}:{nth}")
        self.note("apply to die at a step", command.wait(), step=step)

    def die_at_a_moment(self, seconds: float) -> None:
        command = self.start(*self.words_of_apply())
        command.kill_after(seconds)
        self.note("apply to die at a moment", command.wait())

    def apply_twice_at_once(self) -> None:
        racing = [self.start(*self.words_of_apply()) for _ in range(2)]
        codes = [self.note("apply beside another", command.wait()) for command in racing]
        assert codes.count(11) < 2, "each kept the other out"

    # What must hold

    def hold_always(self) -> None:
        """After any command, however it ended: at most once, and a state in order."""
        self.hold_at_most_once()
        reader = StateReader(self.root / "state" / "batchops.duckdb")
        assert find_damage(reader) == ()
        self._hold_phases(reader)
        self._hold_asked_once()

    def _hold_phases(self, reader: StateReader) -> None:
        """Every submission has gone a way that the model of the protocol knows."""
        if not reader.exists:
            return
        phases: dict[int, str] = {}
        for event in reader.rows(
            "SELECT kind, detail->>'submission_id' AS id, detail->>'phase' AS phase, detail->>'status' AS status"
            " FROM state.events WHERE detail->>'submission_id' IS NOT NULL ORDER BY serial"
        ):
            before, number = phases.get(event["id"], ""), event["id"]
            if event["kind"] == "observed":
                assert before in {"created", "ended"}
                continue
            name = f"Withdrawn({event['phase']})" if event["kind"] == "withdrawn" else _EVENTS[event["kind"]]
            allowed, after = MOVES[name]
            assert before in allowed | ({"created"} if name == "Fetched" else set()), f"{name} after {before!r}"
            phases[number] = after

    def _hold_asked_once(self) -> None:
        """No request is executed again in a later batch once its answer could be had, nor in two batches at once."""
        settled: dict[str, str] = {}
        executed = self._executed_by_batch()
        for batch in reversed(self.batches()):
            for digest in executed.get(batch["id"], ()):
                assert digest not in settled, f"{digest} again in {batch['id']}, though {settled[digest]}"
            if batch["completed_at"] or batch["expired_at"] or batch["cancelled_at"] or batch["failed_at"]:
                settled |= dict.fromkeys(self._good(batch), f"answered in {batch['id']}")
            else:
                settled |= dict.fromkeys(executed.get(batch["id"], ()), f"under way in {batch['id']}")

    def _executed_by_batch(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for row in self.service.ledger()["executions"]:
            found.setdefault(row["batch_id"], set()).add(row["custom_id"].partition("-")[0])
        return found

    def _good(self, batch: dict[str, Any]) -> dict[str, str]:
        """Digest → text of each answer in the files of a batch that is what was asked for."""
        found = {}
        for line in self._lines(batch, "output_file_id", "error_file_id"):
            response = line["response"] or {}
            choices = response.get("body", {}).get("choices") if response.get("status_code") == 200 else None
            if choices and choices[0]["finish_reason"] == "stop" and (said := _said(choices[0]["message"])) is not None:
                found[line["custom_id"].partition("-")[0]] = said
        return found

    def _lines(self, batch: dict[str, Any], *names: str) -> Iterator[dict[str, Any]]:
        for file_id in filter(None, (batch[name] for name in names)):
            if file_id not in self._files:
                self._files[file_id] = self.service.lines(file_id)
            yield from self._files[file_id]

    def answered(self) -> set[str]:
        """The texts of the requests whose answers are in state."""
        reader = StateReader(self.root / "state" / "batchops.duckdb")
        rows = reader.rows(
            "SELECT DISTINCT replace(digest::VARCHAR, '-', '') AS digest FROM state.requests WHERE state = 2"
        )
        texts = self._texts_by_digest()
        return {texts[row["digest"]] for row in rows}

    def _texts_by_digest(self) -> dict[str, str]:
        return {
            line["custom_id"].partition("-")[0]: asked(line["body"])
            for batch in self.batches()
            if batch["output_file_id"] or batch["error_file_id"]
            for line in self._lines(batch, "input_file_id")
        }

    def hold_plan(self, *, code: int | None = None) -> Counter[str]:
        """Every row is in one class, and none whose answer is in state is to be paid; returns the classes."""
        plan = self.plan("--detailed-exitcode", *self._limited(), code=code)
        rows = Counter(plan["summary"]["rows"])
        wanted = len(self.words) if self.limit is None else min(self.limit, len(self.words))
        assert sum(rows.values()) - rows["forget"] == wanted, rows
        answered = self.answered()
        new = sum(text not in answered for text in self.texts().values())
        assert sum(rows[action] for action in PAID) <= new, f"{rows} though only {new} rows are without an answer"
        return rows

    def hold_finished(self) -> None:
        """After an apply that ended well: nothing is left to do, and nothing that was paid is lost."""
        rows = self.hold_plan(code=0)
        assert not rows["in_flight"], rows
        answered = self.answered()
        for batch in self.batches():
            lost = {text for text in self._good(batch).values() if text not in answered}
            assert not lost, f"answers of {batch['id']} are not in state: {lost}"

    def hold_answers(self) -> None:
        """Each row has the answer to what it asks, or was given up for a reason of its own."""
        found = {row["key"]["id"]: row for row in self.results(self.name)}
        for key, text in self.texts().items():
            row = found.pop(key)
            if row["status"] == "succeeded":
                assert row["answer"] == {"said": text}
            else:
                assert row["status"] in GIVEN_UP, row
        assert not found, f"rows that left the source: {sorted(found)}"

    def end(self) -> None:
        """Let all go well from now on: the project converges, and every law holds."""
        self.disarm()
        self.limit = None
        if not self.has_state:
            self.apply_once()
        for _ in range(8):
            self.let_go()
            if self.apply_once() in FINISHED:
                break
        else:
            raise AssertionError("the project does not converge")
        self.hold_always()
        self.hold_answers()


def _said(message: dict[str, Any]) -> str | None:
    """The answer, if it is of the schema."""
    try:
        said = json.loads(message["content"] or "")
    except ValueError:
        return None
    is_echo = isinstance(said, dict) and set(said) == {"said"} and isinstance(said["said"], str)
    return said["said"] if is_echo and not message["refusal"] else None
