-- Classify the rows of one job that are open: desired against recorded. `decide` in decide.py states the same rules
-- for one row, and a property test holds the two together. Rows that `find_open` set apart as settled are unchanged, or
-- in flight.
--
-- Reads   rendered_N (every open row, with its digest where it is unmatched), desired_N (key), and the
--         attached state.
-- Writes  changes_N: one row for each open row, and one for each row to forget. `row`, `body_digest` and `body_hash`
--         are those of digests_N: what is sent is found, and proved to be what was planned, without another join.
-- {…}     N; kind, of the table; job_id (-1: not recorded); salted: the ledger's digest from body_digest and key; the
--         flags keep, forget, held; and change_reason, the part of the spec that moved.
CREATE OR REPLACE {kind} changes_{n} AS
WITH desired AS {materialized} (
    SELECT *, CASE WHEN body_digest IS NULL THEN recorded_digest ELSE {salted} END AS digest FROM rendered_{n}
),
ledger AS (
    SELECT digest, max(round) FILTER (state = 2) AS answered_round, max(round) AS latest_round,
           arg_max(state, round) AS latest_state
    FROM state.requests WHERE digest IN (SELECT digest FROM desired) GROUP BY digest
),
known AS (
    SELECT d.* REPLACE (
               -- still to be asked for the first time, or in the round that was opened for it: nothing to pay again
               d.is_replaced AND NOT coalesce(
                   l.latest_state = 0 AND coalesce(d.standing_state, 0) = 0
                   AND (l.answered_round IS NULL
                        OR d.digest = d.recorded_digest AND d.recorded_round = l.latest_round), false) AS is_replaced),
           l.answered_round, l.latest_round, l.latest_state,
           is_recorded AND d.digest = d.recorded_digest AS is_standing,
           -- the top bit of a fingerprint (request/render.py): made up then and real now, or the other way round
           (d.fingerprint >> 127) <> (d.recorded_fingerprint >> 127) AS simulation_changed
    FROM desired d
    LEFT JOIN ledger l ON l.digest = d.digest
),
judged AS (
    SELECT *, CASE
        WHEN is_replaced AND latest_round IS NULL AND coalesce(standing_state, 0) = 0 THEN 'submit'
        -- as `retry` gives it another round: no answer is thrown away
        WHEN is_replaced AND is_standing AND standing_state = 5 AND recorded_round = latest_round THEN 'retry'
        WHEN is_replaced THEN 'resubmit'
        WHEN is_standing AND standing_state = 2 THEN 'unchanged'
        WHEN is_standing AND answered_round > recorded_round THEN 'reuse'
        WHEN is_standing AND standing_state = 1 THEN 'in_flight'
        WHEN is_standing AND standing_state = 3 THEN 'retry'
        WHEN is_standing AND standing_state = 4 THEN 'failed'
        WHEN is_standing AND standing_state = 5 THEN 'held'
        WHEN is_standing AND recorded_round > 0 THEN 'retry'
        WHEN is_standing THEN 'submit'
        WHEN {keep} AND standing_state = 2 AND NOT simulation_changed THEN 'unchanged'
        WHEN answered_round IS NOT NULL THEN 'reuse'
        WHEN latest_state = 1 THEN 'in_flight'
        WHEN latest_state = 3 THEN 'retry'
        WHEN standing_state > 0 THEN 'resubmit'
        ELSE 'submit'
    END AS action FROM known
),
placed AS (
    SELECT *, CASE
        WHEN is_replaced THEN coalesce(latest_round + 1, 0)
        WHEN action = 'reuse' THEN answered_round
        WHEN is_standing OR action = 'unchanged' THEN recorded_round
        WHEN action IN ('in_flight', 'retry') OR latest_state = 0 THEN latest_round
        ELSE coalesce(latest_round + 1, 0)
    END::USMALLINT AS new_round FROM judged
)
SELECT p.key, p.fingerprint, p.digest, p.new_round AS round,
       (CASE WHEN {held} AND p.action IN ('submit', 'resubmit', 'retry') THEN 'held' ELSE p.action END)::VARCHAR AS action,
       CASE
           WHEN p.is_replaced THEN 'requested'
           WHEN p.action IN ('in_flight', 'unchanged') THEN 'in_flight'
           WHEN p.action = 'reuse' THEN 'answered'
           WHEN p.action = 'retry' AND p.is_standing AND p.standing_state = 0 THEN 'requested'
           WHEN p.action IN ('retry', 'failed', 'held') THEN
               CASE WHEN coalesce(q.outcome, p.standing_outcome) IN (4, 5) THEN 'batch_expired' ELSE 'row_failed' END
           WHEN {job_id} < 0 THEN 'new_job'
           WHEN p.action = 'submit' THEN 'new_row'
           WHEN p.simulation_changed THEN 'provider_changed'
           ELSE {change_reason}
       END AS reason,
       NOT p.is_recorded OR (NOT p.is_standing AND p.action <> 'unchanged')
           OR p.new_round <> p.recorded_round
           OR (p.is_standing AND p.fingerprint <> p.recorded_fingerprint) AS moves,
       p.body_bytes, p.input_tokens, p.inputs, q.due_at, coalesce(q.attempts, 0) AS attempts,
       coalesce(q.free_attempts, 0) AS free_attempts, q.amendment, p.row, p.body_digest, p.body_hash
FROM placed p
LEFT JOIN state.requests q ON q.digest = p.digest AND q.round = p.new_round
UNION ALL
SELECT r.key, r.fingerprint, r.digest, r.round, 'forget', 'row_removed', true, 0, 0, 0, NULL, 0, 0, NULL, NULL, NULL, NULL
FROM state.rows r
WHERE {forget} AND r.job_id = {job_id} AND NOT EXISTS (FROM desired_{n} d WHERE d.key = r.key)
