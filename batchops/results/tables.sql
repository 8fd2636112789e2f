-- What `query` offers beside results."job": the state in words. One view a table; the tables themselves are in main.
CREATE SCHEMA shown;

CREATE VIEW shown.jobs AS
SELECT address AS job, environment, provider, is_simulated, spec ->> '$.endpoint' AS endpoint,
       spec ->> '$.model' AS model, protected, held, removed_at, spec
FROM main.jobs;

CREATE VIEW shown.rows AS
SELECT j.address AS job, r.key, replace(r.digest::VARCHAR, '-', '') AS digest, r.round,
       {states}[coalesce(q.state, 0) + 1] AS state, r.removed_at
FROM main.rows r
JOIN main.jobs j USING (job_id)
LEFT JOIN main.requests q ON q.digest = r.digest AND q.round = r.round;

-- The ledger: one line for each digest and round, with its latest try.
CREATE VIEW shown.requests AS
SELECT replace(q.digest::VARCHAR, '-', '') AS digest, q.round, {states}[q.state + 1] AS state,
       {outcomes}[q.outcome + 1] AS outcome, q.attempts, q.free_attempts, q.due_at, b.batch_id, q.line,
       o.http, o.code, o.finish AS finish_reason, o.input_tokens, o.output_tokens, o.cached_tokens,
       o.reasoning_tokens, o.cost_nano_usd / 1e9 AS cost_usd
FROM main.requests q
LEFT JOIN main.submissions b ON b.submission_id = q.submission_id
LEFT JOIN main.outcomes o ON o.submission_id = q.submission_id AND o.line = q.line;

-- Every try: what was sent in which batch, and how it ended (NULL: not yet).
CREATE VIEW shown.attempts AS
SELECT j.address AS job, b.batch_id, a.line, replace(a.digest::VARCHAR, '-', '') AS digest, a.round, a.attempt,
       {outcomes}[o.outcome + 1] AS outcome, o.http, o.code, o.finish AS finish_reason, o.input_tokens,
       o.output_tokens, o.cached_tokens, o.reasoning_tokens, o.cost_nano_usd / 1e9 AS cost_usd, b.sent_at
FROM main.attempts a
JOIN main.submissions b USING (submission_id)
JOIN main.jobs j USING (job_id)
LEFT JOIN main.outcomes o ON o.submission_id = a.submission_id AND o.line = a.line;

CREATE VIEW shown.batches AS
SELECT b.batch_id, j.address AS job, coalesce(lower(b.remote ->> '$.status'), b.phase) AS status, b.phase, b.provider,
       b.endpoint, b.model, b.n,
       TRY_CAST(b.remote ->> '$.request_counts.completed' AS UINTEGER) AS completed,
       TRY_CAST(b.remote ->> '$.request_counts.failed' AS UINTEGER) AS failed,
       s.input_tokens, s.output_tokens, s.cost_usd, b.sent_at AS created_at, b.ended_at, b.file_id, b.submission_id
FROM main.submissions b
JOIN main.jobs j USING (job_id)
LEFT JOIN (
    SELECT submission_id, sum(input_tokens)::UBIGINT AS input_tokens, sum(output_tokens)::UBIGINT AS output_tokens,
           sum(cost_nano_usd) / 1e9 AS cost_usd
    FROM (SELECT submission_id, input_tokens, output_tokens, cost_nano_usd FROM main.outcomes
          UNION ALL SELECT submission_id, input_tokens, output_tokens, cost_nano_usd FROM main.dropped)
    GROUP BY submission_id
) s USING (submission_id);

CREATE VIEW shown.events AS
SELECT serial, happened_at, kind, subject, detail FROM main.events;
