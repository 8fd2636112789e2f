"""What a plan will cost, how many batches it takes, and in how many waves.

Tokens are estimates; money is at batch prices.
Nothing is made up: a model without a known price, or an answer without a cap, leaves its bound unknown (None).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import duckdb

from batchops.plan.model import Estimate
from batchops.plan.prices import Price

TOKENS_OF_A_SHORT_ANSWER = 16
LINE_OVERHEAD_BYTES = 130
"""custom_id, method, url and braces around a body."""


@dataclass(frozen=True, slots=True)
class ShardLimits:
    """What fits one input file."""

    max_requests: int
    max_bytes: int
    max_inputs: int
    max_tokens: int | None = None
    """The enqueued-token limit of the model: a larger shard could never be admitted."""


@dataclass(frozen=True, slots=True)
class Load:
    """Distinct requests to be paid, summed."""

    requests: int
    input_tokens: int
    body_bytes: int
    inputs: int


_SUMS = "count(*), sum(input_tokens), sum(body_bytes), sum(inputs)"


def loads_of(
    con: duckdb.DuckDBPyConnection, changes: str, *, due_at: datetime | None, besides: str | None = None
) -> tuple[Load, Load]:
    """Sum the paid requests in a changes relation, and those of them that are due by then; equal requests count once.

    `besides` is a relation of requests (digest, round) that are asked in any case.
    """
    others = f"ANTI JOIN {besides} USING (digest, round)" if besides else ""
    paid = (
        f"SELECT *, coalesce(due_at <= $due_at, true) AS is_due"
        f" FROM (FROM {changes} WHERE action IN ('submit', 'resubmit', 'retry')) {others}"
    )
    load, due, kinds = _summed(con, f"SELECT *, hash(digest, round) AS kind FROM ({paid})", due_at)
    if kinds < load.requests:  # some are equal, or have one hash: only then each is told from all others
        once = f"""SELECT any_value(input_tokens) AS input_tokens, any_value(body_bytes) AS body_bytes,
                          any_value(inputs) AS inputs, bool_or(is_due) AS is_due, 0 AS kind
                   FROM ({paid}) GROUP BY digest, round"""
        load, due, _ = _summed(con, once, due_at)
    return load, due


def _summed(con: duckdb.DuckDBPyConnection, paid: str, due_at: datetime | None) -> tuple[Load, Load, int]:
    """Sums of all and of the due, and how many kinds there are."""
    row = con.execute(
        f"SELECT {_SUMS}, {_SUMS.replace(')', ') FILTER (is_due)')}, count(DISTINCT kind) FROM ({paid})",
        {"due_at": due_at},
    ).fetchone()
    assert row is not None
    numbers = [int(value or 0) for value in row]
    return Load(*numbers[:4]), Load(*numbers[4:8]), numbers[8]


def count_shards(load: Load, limits: ShardLimits) -> int:
    """How many input files the load takes, when files are filled evenly."""
    if load.requests == 0:
        return 0
    size = load.body_bytes + load.requests * LINE_OVERHEAD_BYTES
    needs = [
        -(-load.requests // limits.max_requests),
        -(-size // limits.max_bytes),
        -(-load.inputs // limits.max_inputs),
    ]
    if limits.max_tokens:
        needs.append(-(-load.input_tokens // limits.max_tokens))
    return max(needs)


def count_waves(load: Load, limits: ShardLimits) -> int:
    """How often the model's enqueued-token limit must be filled before all is asked."""
    if not limits.max_tokens or load.requests == 0:
        return 1
    return max(1, -(-load.input_tokens // limits.max_tokens))


def estimate(
    load: Load, price: Price | None, *, cap: int | None, typical_output_tokens: float | None, has_output: bool
) -> Estimate:
    """Price a load. `cap` is the output cap of one answer; `typical_output_tokens` the mean of earlier answers."""
    if load.requests == 0:
        return Estimate()
    if price is None:
        return Estimate(None, None, load.input_tokens)
    paid_input = load.input_tokens * price.input / 1e6
    if not has_output:
        return Estimate(paid_input, paid_input, load.input_tokens)
    short = typical_output_tokens if typical_output_tokens is not None else TOKENS_OF_A_SHORT_ANSWER
    short = min(short, cap) if cap else short
    low = paid_input + load.requests * short * price.output / 1e6
    high = paid_input + load.requests * cap * price.output / 1e6 if cap else None
    return Estimate(low, high, load.input_tokens)


def total(estimates: list[Estimate]) -> Estimate:
    """The sum; unknown where any part is."""
    lows = [e.low_usd for e in estimates]
    highs = [e.high_usd for e in estimates]
    return Estimate(
        None if None in lows else sum(v for v in lows if v is not None),
        None if None in highs else sum(v for v in highs if v is not None),
        sum(e.input_tokens for e in estimates),
    )
