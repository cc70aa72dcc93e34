"""SAM's image encoder: images a second, and its share of the rate of one large matrix product measured in the same run.

    python experiments/encoder_rate.py [--sizes b,l,h] [--batch N] [--rounds N] [--gpu]

Multiplications counted: 486, 1,493 and 2,981 billion an image of 1024 px for ViT-B, L and H (linear layers and attention). Weights are
random. Beside ours runs segment-anything's encoder in fp32. The matrix product is square, 4,096 on the CPU and 8,192 on the GPU.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
from segment_anything import sam_model_registry

from risbench.learn.device import dtype_of, fast_precision, keep_freed_memory
from risbench.sam.vit import fused

GIGA_MACS = {"b": 486, "l": 1493, "h": 2981}


def seconds(run: Callable[[], object], rounds: int, device: str) -> float:
    """Return the median of the rounds after one to warm up."""
    taken = []
    for _ in range(rounds + 1):
        began = time.monotonic()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.monotonic() - began)
    return statistics.median(taken[1:])


def matrix_rate(dtype: torch.dtype, rounds: int, device: str) -> float:
    """Return multiply-additions a second of one square matrix product."""
    side = 8192 if device == "cuda" else 4096
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return side**3 / seconds(lambda: a @ b, rounds, device)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="b")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gpu", action="store_true")
    words = parser.parse_args()
    device = "cuda" if words.gpu else "cpu"
    if device == "cpu":
        keep_freed_memory()
    precision = fast_precision(device)
    torch.manual_seed(0)
    with torch.inference_mode():
        rate = matrix_rate(dtype_of(precision), words.rounds, device)
        name = torch.cuda.get_device_name() if words.gpu else f"{os.cpu_count()} cores"
        print(f"torch {torch.__version__}, {name}, {precision}: {rate / 1e12:.2f} T multiply-additions a second in a matrix product")
        for size in words.sizes.split(","):
            encoder = sam_model_registry[f"vit_{size}"]().image_encoder.eval().to(device)
            images = torch.randn(words.batch, 3, 1024, 1024, device=device)
            theirs = seconds(lambda: encoder(images[:1]), words.rounds, device)  # noqa: B023 - called at once
            ours = fused(encoder, dtype_of(precision))
            mine = seconds(lambda: ours(images), words.rounds, device) / words.batch  # noqa: B023 - called at once
            share = GIGA_MACS[size] * 1e9 / mine / rate
            print(
                f"ViT-{size.upper()}: {1 / mine:.3f} images/s ({mine:.2f} s an image), {share:.0%} of the matrix rate; "
                f"segment-anything in fp32 {theirs:.2f} s, {theirs / mine:.1f}x",
                flush=True,
            )
