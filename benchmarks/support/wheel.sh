#!/usr/bin/env bash
# The wheel works by itself: built here, installed into an empty environment elsewhere, demo run there.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
elsewhere=$(mktemp -d)
trap 'rm -rf "$elsewhere"' EXIT
.venv/bin/pip wheel --quiet --no-deps --wheel-dir "$elsewhere/dist" .
"${PYTHON:-python3}" -m venv "$elsewhere/venv"
"$elsewhere/venv/bin/pip" install --quiet --constraint "$root/constraints.lock" "$elsewhere"/dist/*.whl
cd "$elsewhere"
venv/bin/saelect demo
test -s workspace/exports/demo*/train.jsonl || test -n "$(ls workspace/exports)"
venv/bin/saelect ls
