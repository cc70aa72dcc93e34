#!/usr/bin/env bash
# The whole factory on a world that risbench draws itself: no data, no weights, no GPU. Two cores: about five minutes.
set -euo pipefail

workspace="${1:-demo-workspace}"

# Draws 24 scenes with known masks, writes them as a VRSBench folder with noisy boxes in all three forms, and runs
# ingest, refine-masks (the boxes themselves, then the built-in model), audit, export --split, stats and validate on it.
# The contact sheet is its last work; what follows gives the workspace newer masks, and then it has nothing more to do.
if [[ -e "$workspace/contact_sheet.png" ]]; then
    echo "$workspace: drawn, refined and released before; going on"
else
    risbench demo -w "$workspace"
fi

# A minute of learning from true masks, with boxes as wrong as this workspace's own are; then a round with the adapter.
risbench train-adapter -w "$workspace" --truth "$workspace/source/truth.json" --steps 60 --batch 16
risbench refine-masks -w "$workspace"
risbench audit -w "$workspace" --truth "$workspace/source/truth.json" --links "$workspace/source/links.json"

# What the records say in the figures of the paper's Section III.
risbench stats -w "$workspace"

# The adapter's masks in the same split, from the list that the first release froze.
risbench export -w "$workspace" --include-unreviewed --split "$workspace/4-export/release/split.csv" --name frozen

# CroBIM at its smallest, a minute of learning from this release, beside what anything must beat: what so few sentences can teach.
risbench benchmark -w "$workspace" --config tiny --set recipe.steps=200 --set recipe.looks=2 --seeds 1 --models empty,centre,largest,crobim,box-oracle

echo
echo "Two hundred steps on two dozen scenes teach CroBIM next to nothing: this shows that every part runs. What it learns in longer: docs/benchmark.md"
echo "Look at $workspace/contact_sheet.png, $workspace/adapters/*/before_after.png, $workspace/worst.png, $workspace/5-benchmark/benchmark/crobim-seed0/release-test-peer.png and $workspace/4-export/release/"
