"""Which shape a job's embeddings have: one vector an answer, a list of vectors, or, where they are neither, text."""

from __future__ import annotations

from batchops.results.answers import Answers, answer_relation
from batchops.results.columns import VECTOR, VECTORS
from batchops.results.damage import damage_told

EMBEDDINGS = "/v1/embeddings"
_SAMPLED = 1000


class OtherShape(Exception):
    """An answer has no value of the type that the first answers have."""


def shapes(first: str | None) -> tuple[str | None, ...]:
    """The types to try, `first` first: each holds all that those before it hold, None (text) everything."""
    return {VECTOR: (VECTOR, VECTORS, None), VECTORS: (VECTORS, None)}.get(first or "", (None,))


def vector_type(answers: Answers) -> str | None:
    """VECTOR, VECTORS where any of the first answers is a list of vectors, or None for other endpoints."""
    if answers.job.endpoint != EMBEDDINGS:
        return None
    rows = f"SELECT submission_id, line FROM {answers.standing} WHERE job_id = {answers.job.job_id} AND state = 2"
    found_in = f"{answer_relation(answers.paths)} SEMI JOIN ({rows}) USING (submission_id, line)"
    sample = f"SELECT answer FROM {found_in} LIMIT {_SAMPLED}"
    with damage_told(answers.con, answers.paths):
        found = answers.con.execute(f"SELECT coalesce(bool_or(answer LIKE '[[%'), false) FROM ({sample})").fetchone()
    return VECTORS if found is not None and found[0] else VECTOR
