#!/usr/bin/env bash
# kept.sh NAME COMMAND ...: keep what a benchmark prints as results/NAME.txt, where it ends well and prints something (without its data it
# prints nothing); a result of before stands until then.
set -euo pipefail
name="$1"
shift
new="results/$name.new"
trap 'rm -f "$new"' EXIT
"$@" | tee "$new"
if [[ -s "$new" ]]; then
    mv "$new" "results/$name.txt"
fi
