-- The state file, version 1. Append-mostly; no primary keys and no secondary indexes: they cost 91 MB per million
-- rows, and DuckDB has had bugs in them. Uniqueness is kept by the commits in store.py and checked by `doctor`.

-- One row. `serial` goes up by one with each commit; `lineage` never changes.
CREATE TABLE meta (
    lineage UUID, serial UBIGINT, schema_version USMALLINT, digest_version UTINYINT,
    project VARCHAR, created_at TIMESTAMPTZ
);

-- One row, or none: who applies. Every commit checks `fence`.
CREATE TABLE lease (
    fence UBIGINT, lease_id UUID, holder VARCHAR, host VARCHAR, boot_id VARCHAR, pid UINTEGER, run_url VARCHAR,
    beat UBIGINT, ttl_s UINTEGER, taken_at TIMESTAMPTZ
);

-- The spec that was applied last, by environment and address.
--   parts: {"prompt","model","params","schema"} hashes, for the reasons of a change
--   spec:  {"key": [columns], "key_types": [types], "template", "endpoint", "model", "params", "schema", ...}
--   held:  why the job submits nothing, or NULL
CREATE TABLE jobs (
    job_id UINTEGER, environment VARCHAR, address VARCHAR, provider VARCHAR, is_simulated BOOLEAN, render_id UUID,
    parts JSON, spec JSON, protected BOOLEAN, held VARCHAR, removed_at TIMESTAMPTZ
);

-- Which request each row of a job stands on now. removed_at: since when the source no longer has it, or NULL.
CREATE TABLE rows (
    job_id UINTEGER, key VARCHAR, fingerprint UHUGEINT, digest UUID, round UTINYINT, removed_at TIMESTAMPTZ
);

-- The ledger, shared by all jobs and environments: one row for each digest and round.
--   state: 0 pending, 1 in flight, 2 answered, 3 waiting for a retry, 4 given up, 5 held
--   attempts: tries that count; free_attempts: expired, cancelled, never executed, token limit (10 at most)
--   outcome: ordinal of batchops.spec.job.Outcome, NULL before the first; submission_id, line: the latest try
--   amendment: JSON of what the next try changes in the body (cap, set, model, template), or NULL
CREATE TABLE requests (
    digest UUID, round UTINYINT, state UTINYINT, attempts UTINYINT, free_attempts UTINYINT, outcome UTINYINT,
    due_at TIMESTAMPTZ, submission_id UINTEGER, line UINTEGER, amendment VARCHAR
);

-- Handing over one shard. phase: intended, creating, created, ended, fetched, revoking, absent, abandoned
--   remote: the batch object as last seen; est_tokens: estimated prompt tokens
--   expect: {"schema","tools","params","body"} that its answers are judged by, whatever the spec says by then
CREATE TABLE submissions (
    submission_id UINTEGER, token UUID, job_id UINTEGER, provider VARCHAR, endpoint VARCHAR, model VARCHAR,
    phase VARCHAR, fence UBIGINT, shard_sha256 BLOB, shard_bytes UBIGINT, n UINTEGER, est_tokens UBIGINT,
    file_id VARCHAR, file_created_at TIMESTAMPTZ, batch_id VARCHAR, remote JSON, intent_at TIMESTAMPTZ,
    sent_at TIMESTAMPTZ, ended_at TIMESTAMPTZ, expect JSON
);

-- The manifest of a submission: line (0-based) → request. body_digest: of the body sent, where a retry changed it.
-- custom_id: only of lines that somebody else wrote; ours is <digest>-<round>-<attempt>.
CREATE TABLE attempts (
    submission_id UINTEGER, line UINTEGER, digest UUID, round UTINYINT, attempt UTINYINT, body_digest UUID,
    custom_id VARCHAR
);

-- Each try judged. cost_nano_usd is NULL where no price is known. answer_file NULL: no line came back.
CREATE TABLE outcomes (
    submission_id UINTEGER, line UINTEGER, outcome UTINYINT, http USMALLINT, code VARCHAR, finish VARCHAR,
    input_tokens UINTEGER, cached_tokens UINTEGER, output_tokens UINTEGER, reasoning_tokens UINTEGER,
    cost_nano_usd UBIGINT, answer_file UINTEGER
);

-- Immutable Parquet files beside the state file, path relative to its folder, with the columns
--   submission_id UINTEGER, line UINTEGER, digest UUID, round USMALLINT (older files: UTINYINT), attempt UTINYINT,
--   outcome UTINYINT, answer VARCHAR (JSON text, NULL without one), message VARCHAR (the error's), model VARCHAR,
--   raw VARCHAR (the line)
CREATE TABLE answer_files (
    file_no UINTEGER, path VARCHAR, sha256 BLOB, bytes UBIGINT, n UINTEGER, dropped_at TIMESTAMPTZ
);

-- What happened, for people.
CREATE TABLE events (
    serial UBIGINT, happened_at TIMESTAMPTZ, fence UBIGINT, kind VARCHAR, subject VARCHAR, detail JSON
);
