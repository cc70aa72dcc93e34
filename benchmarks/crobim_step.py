"""A training step of CroBIM with the base backbone: as `risbench train` does it, against the same model in fp32 with the peers' habits.

    python benchmarks/crobim_step.py [--batch 1] [--rounds 3] [--gpu]

The peers' habits (LAVT's and RMSIN's training scripts): fp32, contiguous images, AdamW without fusing. Interleaved, medians, the same
threads, the same allocator. Says what a run at RISBench's size takes at that rate.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from risbench.benchmark.data.batches import normalised
from risbench.benchmark.losses import mask_loss
from risbench.benchmark.models import build
from risbench.benchmark.settings import load_settings
from risbench.benchmark.train import optimizer_of
from risbench.sam.device import fast_precision, keep_freed_memory

SAMPLES, EPOCHS = 26_300, 40


def main(batch: int, rounds: int, device: str) -> None:
    keep_freed_memory()
    settings = load_settings("base", changes=["backbone.weights=''", "text.weights=''"])
    images = torch.randint(0, 256, (batch, 480, 480, 3), dtype=torch.uint8, device=device).permute(0, 3, 1, 2)
    tokens = torch.randint(1000, 30000, (batch, 20), device=device)
    valid = torch.ones(batch, 20, dtype=torch.bool, device=device)
    masks = torch.zeros(batch, 480, 480, dtype=torch.uint8, device=device)
    masks[:, 200:260, 200:300] = 1
    model = build("crobim", settings, 30522).to(device)
    ours_precision = fast_precision(device)

    def step(given: torch.Tensor, optimizer: torch.optim.Optimizer, reduced: bool) -> None:
        with torch.autocast(device, torch.bfloat16, enabled=reduced):
            logits = model(normalised(given), tokens, valid)
        mask_loss(logits, masks, settings.recipe)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()

    def ours() -> Callable[[], None]:
        model.to(memory_format=torch.channels_last)
        optimizer = optimizer_of(model, settings.recipe)
        return lambda: step(images, optimizer, ours_precision == "bf16")

    def peers() -> Callable[[], None]:
        model.to(memory_format=torch.contiguous_format)
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.01, foreach=False, fused=False)
        return lambda: step(images.contiguous(), optimizer, False)

    seconds: dict[str, list[float]] = {"ours": [], "peers": []}
    for _ in range(rounds + 1):  # the first is for warming up
        for name, make in (("peers", peers), ("ours", ours)):
            run = make()
            run()  # makes the optimiser's state
            began = time.monotonic()
            run()
            seconds[name].append(time.monotonic() - began)
            print(f"  {name:6} {seconds[name][-1]:7.2f} s a step of {batch}", flush=True)
    middle = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    threads = torch.get_num_threads()
    print(f"{device}, {threads} threads, {sum(value.numel() for value in model.parameters()) / 1e6:.0f} M parameters, 480 px")
    print(f"fp32, peers' habits: {middle['peers']:.2f} s; {ours_precision}, as risbench train does it: {middle['ours']:.2f} s")
    print(f"{middle['peers'] / middle['ours']:.2f}x")
    hours = SAMPLES * EPOCHS * middle["ours"] / batch / 3600
    print(f"RISBench's size ({SAMPLES:,} samples, {EPOCHS} epochs) at this rate: {hours:,.0f} hours on this machine")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gpu", action="store_true")
    given = parser.parse_args()
    main(given.batch, given.rounds, "cuda" if given.gpu else "cpu")
