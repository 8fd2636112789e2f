#!/usr/bin/env bash
# What batchops does, shown on this repository's own jobs: the rows are DuckDB's catalogue of its functions (MIT licence),
# the answers are simulated by the embedded Batch API. `make demo` runs it; it needs no key and pays nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] && [ -z "${NO_COLOR:-}" ] || say() { printf '\n%s\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$@"; }

say "1. Check every spec, template, schema and query. No network."
show batchops validate

say "2. Plan: which rows would be asked, why, and at what price."
show batchops plan --samples 1

say "3. Apply: upload, submit, wait, fetch, judge. Answers are simulated."
show batchops apply --auto-approve --wait --timeout 5m

say "4. Read the answers back."
show batchops status
show batchops results function-topics --limit 8
show batchops query '
  SELECT topic, count(*) AS functions FROM results."function-topics" GROUP BY topic ORDER BY functions DESC'
show batchops query '
  SELECT job, status, n, input_tokens, output_tokens, round(cost_usd, 4) AS would_cost_usd FROM batches'

say "5. Plan again: every row is answered, so there is nothing to do and nothing to pay."
show batchops plan --detailed-exitcode
