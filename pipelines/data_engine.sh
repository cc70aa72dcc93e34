#!/usr/bin/env bash
# One turn of the data engine: people verify the riskiest masks of each class, the adapter learns from what they verified, the undecided rest gets new masks.
#   pipelines/data_engine.sh give WORKSPACE [COUNT]    before people work: masks, then COUNT of them go out (300 by default)
#   pipelines/data_engine.sh learn WORKSPACE           when they have worked: answers in, adapter trained, new masks for the rest
# `risbench review serve -w WORKSPACE` runs meanwhile; annotators were added with `risbench review annotators add`.
set -euo pipefail

if (($# < 2)); then
    echo "usage: data_engine.sh give WORKSPACE [COUNT], or data_engine.sh learn WORKSPACE" >&2
    exit 2
fi
turn="$1"
workspace="$2"

case "$turn" in
give)
    # Box to mask for everything undecided; after the first turn the workspace's adapter does it.
    risbench refine-masks -w "$workspace" ${GPU:-}
    # Of each class its share of the masks that nobody has yet, the riskiest first; prints the hours they will take.
    risbench review push -w "$workspace" --count "${3:-300}" --yes
    ;;
learn)
    # What people did, what it comes to, and who should pause.
    risbench review pull -w "$workspace"
    risbench review consensus -w "$workspace"
    risbench review status -w "$workspace"
    # The adapter learns from verified masks; it is used only if it beats its base on scenes kept aside.
    risbench train-adapter -w "$workspace" --steps "${STEPS:-800}" ${GPU:-}
    # New masks for the undecided rest. `give` then sends more of those out, and withdraws none that was answered.
    risbench refine-masks -w "$workspace" ${GPU:-}
    ;;
*)
    echo "data_engine.sh: first word must be give or learn, not $turn" >&2
    exit 2
    ;;
esac
