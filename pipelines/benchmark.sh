#!/usr/bin/env bash
# Every model on one release, three seeds each, and the paper's ablations; then what mask quality is worth.
#   pipelines/benchmark.sh RELEASE [OUT] [OTHER_RELEASE]
# RELEASE has triplets in train, val and test (`risbench export`, RRSIS-D, RefSegRS, RISBench). OTHER_RELEASE has the same records and
# split with other masks, such as GrabCut's: the same model is trained on both and scored on RELEASE's test split.
# GPU=--gpu uses one. CONFIG=small or tiny for CPUs. PUBLISHED=RISBench prints the papers' figures below. WEIGHTS=FILE is the SAM that boxes
# are given to, such as the workspace's adapters/*/adapter.safetensors. MODELS and ABLATIONS name fewer (crobim in each).
# Killed at any moment, the same line goes on.
set -euo pipefail

if (($# < 1)); then
    echo "usage: benchmark.sh RELEASE [OUT] [OTHER_RELEASE]" >&2
    exit 2
fi
release="$1" out="${2:-benchmark}" other="${3:-}"
config="${CONFIG:-base}"
# shellcheck disable=SC2206
options=(--config "$config" --seeds "${SEEDS:-3}" --cache "$out/cache" ${GPU:-} ${SET:-})
# shellcheck disable=SC2206
published=(${PUBLISHED:+--published $PUBLISHED})

# What anything must beat, the field's models, and boxes given to SAM: the true ones, and those of CroBIM's masks.
risbench benchmark "$release" -o "$out/models" "${options[@]}" "${published[@]}" ${WEIGHTS:+--weights "$WEIGHTS"} \
    --models "${MODELS:-empty,full,centre,mean,largest,lavt,caris,crobim,box-predicted,box-oracle}"

# What CroBIM owes to its sentences: the same model, every sentence another sample's of its class.
risbench evaluate "$out/models/crobim-seed0" "$release" --cache "$out/cache" --shuffle ${GPU:-}

# Tables V to VII: every part changed in turn, against the whole, which is trained already.
for run in "$out"/models/crobim-seed*; do
    copy="$out/ablations/${run##*/}"
    if [[ ! -d "$copy" ]]; then
        mkdir -p "$out/ablations"
        rm -rf "$copy.part"
        cp -a "$run" "$copy.part"
        mv "$copy.part" "$copy"
    fi
done
risbench benchmark "$release" -o "$out/ablations" "${options[@]}" "${published[@]}" --models "${ABLATIONS:-crobim,table5,table6,table7}"

# What masks are worth: trained on either, scored on one.
if [[ -n "$other" ]]; then
    risbench benchmark -o "$out/masks" "${options[@]}" --compare "$other" "$release"
fi
