"""A training step of CroBIM: as `risbench train` does it, against the same model in fp32 with the peers' habits.

    python experiments/crobim_step.py [--config base] [--batch 1] [--set SECTION.NAME=VALUE ...] [--rounds 3] [--gpu]

The peers' habits (the training scripts of LAVT, RMSIN and Deformable DETR): fp32, contiguous images, an image encoded for each of its
sentences, AdamW without fusing, deformable attention that keeps the samples of all levels side by side. Interleaved, medians, the same
threads, the same allocator. Says what a run at RISBench's size takes at that rate, and how much of the rate of one large matrix product
the step's products and convolutions (all of them, forward and back, as PyTorch counts them) come to in the time of the whole step.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, flop_registry
from transformers.models.deformable_detr.modeling_deformable_detr import MultiScaleDeformableAttention

from risbench.benchmark.data.batches import normalised
from risbench.benchmark.load_settings import load_settings
from risbench.benchmark.models.crobim.deform import DeformableAttention
from risbench.benchmark.models.registry import build
from risbench.benchmark.train.losses import mask_loss
from risbench.benchmark.train.run import optimizer_of
from risbench.learn.device import dtype_of, fast_precision, keep_freed_memory

SAMPLES, EPOCHS = 26_300, 40
# PyTorch counts the operations of GPUs' fused attention, not those of CPUs', which are as many.
ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[torch.ops.aten._scaled_dot_product_flash_attention],
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        torch.ops.aten._scaled_dot_product_flash_attention_backward
    ],
}


class AsPublished(DeformableAttention):
    """Deformable attention as Deformable DETR and transformers write it in PyTorch; tests/benchmark proves that the results are ours."""

    def forward(self, query: Tensor, references: Tensor, value: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Return what ours does."""
        batch, count, _ = query.shape
        offsets = self.offsets(query).view(batch, count, self.heads, self.levels, self.points, 2)
        cells = offsets.new_tensor([[width, height] for height, width in sizes])
        places = references[None, :, None, None, None, :] + offsets / cells[None, None, None, :, None, :]
        weights = self.weights(query).view(batch, count, self.heads, -1).softmax(-1)
        weights = weights.view(batch, count, self.heads, self.levels, self.points)
        values = self.value(value).view(batch, value.shape[1], self.heads, -1)
        found = MultiScaleDeformableAttention()(values, torch.tensor(sizes), sizes, None, places, weights, 64)
        result: Tensor = self.out(found)
        return result


def matrix_rate(device: str, precision: str, side: int) -> float:
    """Return the operations a second of a product of square matrices: the median of nine."""
    dtype = dtype_of(precision)
    one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(10):
        began = time.monotonic()
        one @ other
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.monotonic() - began)
    return 2 * side**3 / statistics.median(seconds[1:])


def main(config: str, batch: int, changes: Sequence[str], rounds: int, device: str) -> None:
    keep_freed_memory()
    settings = load_settings(config, changes=["backbone.weights=''", "text.weights=''", *changes])
    side, per_image = settings.side, settings.recipe.per_image
    images = torch.randint(0, 256, (-(-batch // per_image), side, side, 3), dtype=torch.uint8, device=device).permute(0, 3, 1, 2)
    image_of = torch.arange(batch, device=device) // per_image
    tokens = torch.randint(1000, 30000, (batch, 20), device=device)
    valid = torch.ones(batch, 20, dtype=torch.bool, device=device)
    masks = torch.zeros(batch, side, side, dtype=torch.uint8, device=device)
    masks[:, side // 2 : side // 2 + side // 8, side // 2 : side // 2 + side // 5] = 1
    model = build("crobim", settings, 30522).to(device).train()
    ours_precision = fast_precision(device)

    def step(given: Tensor, of: Tensor | None, optimizer: torch.optim.Optimizer, reduced: bool) -> None:
        with torch.autocast(device, torch.bfloat16, enabled=reduced):
            logits = model(normalised(given), tokens, valid, of)
        mask_loss(logits, masks, settings.recipe)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()

    def written_as(kind: type[DeformableAttention]) -> None:
        for module in model.modules():
            if isinstance(module, DeformableAttention):
                module.__class__ = kind

    def ours() -> Callable[[], None]:
        written_as(DeformableAttention)
        model.to(memory_format=torch.channels_last)
        optimizer = optimizer_of(model, settings.recipe)
        return lambda: step(images, image_of if per_image > 1 else None, optimizer, ours_precision == "bf16")

    def peers() -> Callable[[], None]:
        written_as(AsPublished)
        model.to(memory_format=torch.contiguous_format)
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.01, foreach=False, fused=False)
        return lambda: step(images[image_of].contiguous(), None, optimizer, False)

    seconds: dict[str, list[float]] = {"ours": [], "peers": []}
    for _ in range(rounds + 1):  # the first is for warming up
        for name, make in (("peers", peers), ("ours", ours)):
            run = make()
            run()  # makes the optimiser's state
            began = time.monotonic()
            run()
            seconds[name].append(time.monotonic() - began)
            print(f"  {name:6} {seconds[name][-1]:7.2f} s a step of {batch}", flush=True)
    counter = FlopCounterMode(display=False)
    counter.flop_registry = {**counter.flop_registry, **ATTENTION}
    with counter:
        ours()()
    rate = matrix_rate(device, ours_precision, 8192 if device == "cuda" else 2048)
    middle = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    threads = torch.get_num_threads()
    size = f"{sum(value.numel() for value in model.parameters()) / 1e6:.0f} M parameters, {side} px"
    print(f"{config}{''.join(f', {change}' for change in changes)}: {device}, {threads} threads, {size}, {per_image} sentences an image")
    print(f"fp32, peers' habits: {middle['peers']:.2f} s; {ours_precision}, as risbench train does it: {middle['ours']:.2f} s")
    print(f"{middle['peers'] / middle['ours']:.2f}x")
    reached = counter.get_total_flops() / middle["ours"]
    print(
        f"{counter.get_total_flops() / 1e12:.2f} TFLOP a step, {reached / 1e12:.3f} TFLOP/s: {100 * reached / rate:.0f} % of the "
        f"{rate / 1e12:.3f} that a product of {ours_precision} matrices reaches"
    )
    if config == "base":
        hours = SAMPLES * EPOCHS * middle["ours"] / batch / 3600
        print(f"RISBench's size ({SAMPLES:,} samples, {EPOCHS} epochs) at this rate: {hours:,.0f} hours on this machine")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="base")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gpu", action="store_true")
    given = parser.parse_args()
    main(given.config, given.batch, given.set, given.rounds, "cuda" if given.gpu else "cpu")
