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
show batchops plan

say "3. Apply: upload, submit, wait, fetch, judge. Answers are simulated."
show batchops apply --auto-approve --wait --timeout 5m

say "4. Read the answers back."
show batchops status
show batchops query "
  SELECT key, answer.topic, answer.sure, answer.search_words
  FROM results.\"function-topics\" ORDER BY key LIMIT 8"

say "5. Plan again: every row is answered, so there is nothing to do and nothing to pay."
show batchops plan --detailed-exitcode
