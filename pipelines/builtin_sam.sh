#!/usr/bin/env bash
# The built-in SAM, from nothing: scenes are drawn while it trains, no image of any data set is read.
# Two cores with bf16 (AMX) take about 90 minutes; interrupted, the same command goes on. A GPU wants more of everything:
#   GPU=--gpu STEPS=60000 BATCH=256 WORKERS=12 bash pipelines/builtin_sam.sh
set -euo pipefail
out=${1:-builtin-run}

# 1  train from scratch on generated scenes; seeds fixed, checkpoint every 200 steps
#    (the allocator's thresholds save time on a CPU: no page is given back and asked for again)
MALLOC_MMAP_THRESHOLD_=1000000000 MALLOC_TRIM_THRESHOLD_=1000000000 MALLOC_TOP_PAD_=500000000 \
  risbench train-builtin "$out" --seed 0 --steps "${STEPS:-4400}" --batch "${BATCH:-48}" --workers "${WORKERS:-1}" ${GPU:-}

# 2  score it on real boxes and masks where they are at hand: a third of the images to choose by, two thirds to report
python "$(dirname "$0")/../experiments/builtin_on_real_boxes.py" --weights "$out/builtin_sam.safetensors"

# 3  ship it: the weights go into the package beside their card
#    cp "$out/builtin_sam.safetensors" risbench/sam/builtin_sam.safetensors, and bring risbench/sam/builtin_sam.md up to date
