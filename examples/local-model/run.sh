#!/usr/bin/env bash
# A model on this machine, `batchops serve` in front of it, and a job that is applied through both. Starts what it needs
# on free ports of the loopback, and stops what it started. With MODEL_URL the model is somebody else's, such as
#     MODEL_URL=http://127.0.0.1:11434/v1 bash run.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
command -v batchops > /dev/null || { echo "batchops is not on your PATH: pip install batchops" >&2; exit 1; }

logs=$(mktemp -d)
started=""
stop() {
  for pid in $started; do kill "$pid" 2> /dev/null || true; done
  wait
  rm -rf "$logs"
}
trap stop EXIT

# start NAME COMMAND…: run it in the background until it says an address, which is left in $address.
start() {
  local name=$1
  shift
  "$@" 2> "$logs/$name" > /dev/null &
  started="$started $!"
  until address=$(grep -om1 'http://[^ ]*/v1' "$logs/$name"); do
    kill -0 "$!" 2> /dev/null || { cat "$logs/$name" >&2; exit 1; }
    sleep 0.1
  done
  head -1 "$logs/$name"
}
show() { printf '\n$ %s\n' "$*"; "$@"; }

if [ -z "${MODEL_URL:-}" ]; then
  if [ ! -e .venv/.installed ]; then
    "${PYTHON:-python3}" -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check --no-deps -r requirements.txt
    touch .venv/.installed
  fi
  start model .venv/bin/python model_server.py
  MODEL_URL=$address
fi
start serve batchops serve --port 0 --upstream "$MODEL_URL" --upstream-concurrency 2
export BATCHOPS_ENV=model BATCH_API=$address BATCH_API_KEY=any

show batchops plan --samples 1
show batchops apply --auto-approve --wait --timeout 30m
show batchops results function-categories --limit 6
printf '\n$ batchops query - < marks.sql\n'
batchops query - < marks.sql
