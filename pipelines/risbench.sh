#!/usr/bin/env bash
# The paper's recipe as far as it is built: VRSBench's boxes and sentences to split triplets.
#   pipelines/risbench.sh VRSBENCH_FOLDER [WORKSPACE]
# VRSBENCH_FOLDER holds VRSBench's own files as downloaded: Annotations_*.zip, Images_*.zip, VRSBench_train.json, VRSBench_EVAL_referring.json.
set -euo pipefail

if (($# < 1)); then
    echo "usage: risbench.sh VRSBENCH_FOLDER [WORKSPACE]" >&2
    exit 2
fi
source="$1"
workspace="${2:-risbench-workspace}"

# Boxes and sentences: three forms of an object become one record with its best box. Prints where every row went.
risbench ingest "$source" -w "$workspace"

# Box to mask. With a GPU and Meta's weights: --gpu --engine sam --checkpoint sam_vit_h_4b8939.pth
risbench refine-masks -w "$workspace"

# Table I, Fig. 3 and Fig. 4 for what came out.
risbench stats -w "$workspace"

# RISBench's sizes, whole scenes only. Unreviewed masks are left out until people have looked at them; the release says so.
risbench export -w "$workspace" --split 26300,10013,16159 --include-unreviewed --format all

# Every byte and count of the release, as whoever downloads it can check.
risbench verify "$workspace/4-export/release"

# Every record, image and count is what it says it is (exit 1 if not).
risbench validate -w "$workspace"
