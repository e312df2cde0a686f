#!/usr/bin/env bash
# Wall time and peak resident memory (VmHWM) of the largest process of a run.
# Use: benchmarks/support/peak_memory.sh saelect run CONFIG ...
set -euo pipefail
started=$(date +%s)
"$@" &
main=$!
peak=0
while kill -0 "$main" 2>/dev/null; do
  for pid in $main $(pgrep -P "$main" || true); do
    now=$(awk '/^VmHWM/ {print $2}' "/proc/$pid/status" 2>/dev/null || true)
    if [ "${now:-0}" -gt "$peak" ]; then peak=$now; fi
  done
  sleep 0.5
done
code=0
wait "$main" || code=$?
echo "peak resident memory of the largest process: $((peak / 1024)) MiB; wall time: $(($(date +%s) - started)) s"
exit "$code"
