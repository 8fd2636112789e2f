"""Which shape a job's embeddings have: one vector an answer, or a list of vectors."""

from __future__ import annotations

from batchops.results.answers import Answers
from batchops.results.columns import VECTOR, VECTORS

_SAMPLED = 1000


def vector_type(answers: Answers) -> str | None:
    """VECTOR, VECTORS where any of the first answers is a list of vectors, or None for other endpoints."""
    if answers.job.endpoint != "/v1/embeddings":
        return None
    sample = f"SELECT answer FROM ({answers.source()}) WHERE answer IS NOT NULL LIMIT {_SAMPLED}"
    found = answers.con.execute(f"SELECT coalesce(bool_or(answer LIKE '[[%'), false) FROM ({sample})").fetchone()
    return VECTORS if found is not None and found[0] else VECTOR
