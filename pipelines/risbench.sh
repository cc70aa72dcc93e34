#!/usr/bin/env bash
# The paper's whole build (arXiv 2410.08613): VRSBench's boxes and sentences in, 26,300 / 10,013 / 16,159 reviewed triplets out.
#   pipelines/risbench.sh build VRSBENCH_FOLDER [WORKSPACE]   before people work: records, masks, figures, a release of unreviewed masks
#   pipelines/risbench.sh release [WORKSPACE]                 when they have worked: answers in, the reviewed release, its report
# VRSBENCH_FOLDER holds VRSBench's own files as downloaded: Annotations_*.zip, Images_*.zip, VRSBench_train.json, VRSBench_EVAL_referring.json
# (the workspace holds its images once more, and so does each release; one in every format holds them four times).
# GPU=--gpu uses one. ENGINE="--engine sam --checkpoint sam_vit_h_4b8939.pth" takes Meta's SAM instead of the built-in model.
# SPLIT=official releases the lists that VRSBench came with, and shows what they leak. Killed at any moment, the same line goes on.
# Times: measured on two CPU cores without a GPU (experiments/results/recipe.txt), for all 29,614 images and 52,472 triplets unless said.
set -euo pipefail

usage="usage: risbench.sh build VRSBENCH_FOLDER [WORKSPACE], or risbench.sh release [WORKSPACE]"
split="${SPLIT:-26300,10013,16159}"

build() {
    local source="$1" workspace="$2"

    # Boxes and sentences: three forms of an object become one record with its best box. Prints where every row went, and which images show
    # the same ground under different names. 20 minutes.
    risbench ingest "$source" -w "$workspace"

    # Box to mask. Built-in model: no download, 1.8 hours without a GPU. For Meta's weights see ENGINE above: SAM ViT-B without a GPU 14 hours.
    # shellcheck disable=SC2086
    risbench refine-masks -w "$workspace" ${ENGINE:-} ${GPU:-}

    # Table I, Fig. 3 and Fig. 4 for what came out. 2 minutes.
    risbench stats -w "$workspace"

    # Every record to look at in a browser, the doubtful ones first. 8 minutes.
    risbench report -w "$workspace"

    # RISBench's sizes, whole scenes only, no ground in two splits. Nobody has reviewed anything yet, and the release says so. Its split.csv
    # says which scenes are for training: only those are triaged twenty at a time. 2 minutes.
    risbench export -w "$workspace" --split "$split" --include-unreviewed --name unreviewed --replace
    # The same list for the release: split anew, the reviewed records would lie elsewhere.
    mkdir -p "$workspace/manifests/splits"
    cp "$workspace/4-export/unreviewed/split.csv" "$workspace/manifests/splits/frozen.csv"

    cat <<EOF

Now people (README, "A lab with eight annotators"). In a second terminal, and left running:
    risbench review serve -w $workspace
Then
    risbench review annotators add ana ben cleo dan eli fay gus hua -w $workspace
    risbench review annotators add eva --expert -w $workspace
    risbench review triage ana --split $workspace/manifests/splits/frozen.csv -w $workspace
    pipelines/data_engine.sh give $workspace 1000    # and, when they have worked: data_engine.sh learn $workspace; again and again
    risbench review adjudicate eva -w $workspace     # what stays open; when eva has decided, pull and consensus
    risbench review audit-sample ana ben -w $workspace   # 300 drawn anew without seeing a mask: how many of the others are wrong
    pipelines/risbench.sh release $workspace         # when they have drawn
EOF
}

release() {
    local workspace="$1"

    # What people did, and what it comes to. Needs the server of \`review serve\`. Minutes.
    risbench review pull -w "$workspace"
    risbench review consensus -w "$workspace"

    # What the auditors have drawn meanwhile.
    if [[ -f "$workspace/review/audit/plan.jsonl" ]]; then
        risbench review audit-sample -w "$workspace"
    fi

    # Reviewed masks only, split as when triage began, in every format, with the card. 7 minutes.
    if [[ -f "$workspace/manifests/splits/frozen.csv" ]]; then
        split=frozen
    fi
    risbench export -w "$workspace" --split "$split" --format all --replace

    # Every byte and count of the release, as whoever downloads it can check. 3 minutes.
    risbench verify "$workspace/4-export/release"

    # The release to look at, beside it. 9 minutes.
    risbench report "$workspace/4-export/release"

    # Every record, image and count of the workspace is what it says it is (exit 1 if not). 1 minute.
    risbench validate -w "$workspace"
}

case "${1:-}" in
build)
    if (($# < 2)); then
        echo "$usage" >&2
        exit 2
    fi
    build "$2" "${3:-risbench-workspace}"
    ;;
release)
    release "${2:-risbench-workspace}"
    ;;
*)
    echo "$usage" >&2
    exit 2
    ;;
esac
