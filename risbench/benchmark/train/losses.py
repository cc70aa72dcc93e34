"""The losses: CroBIM's (eq. 18), and the two that the peers train with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from risbench.benchmark.settings import Recipe

# The peers' weights of background and object.
_CLASS_WEIGHTS = (0.9, 1.1)


def raised(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Return logits (B, 1, h, w) at a size (height, width): bilinear, corner on corner, in training as in the peers' protocol."""
    return functional.interpolate(logits.float(), (size[0], size[1]), mode="bilinear", align_corners=True)


def mask_loss(logits: Tensor, masks: Tensor, recipe: Recipe) -> dict[str, Tensor]:
    """Return the loss and its parts by name, `loss` first, of logits (B, 1, h, w) against masks (B, H, W) of 0 and 1."""
    found = raised(logits, masks.shape[-2:])[:, 0]
    wanted = masks.float()
    if recipe.loss == "crobim":
        entropy, dice = functional.binary_cross_entropy_with_logits(found, wanted), _dice(found, wanted, squared=recipe.dice == "squared")
    else:
        # one logit is the difference of two: their softmax is its sigmoid
        weights = torch.where(wanted > 0, _CLASS_WEIGHTS[1], _CLASS_WEIGHTS[0])
        entropy = (functional.binary_cross_entropy_with_logits(found, wanted, reduction="none") * weights).sum() / weights.sum()
        if recipe.loss == "weighted":
            return {"loss": entropy, "entropy": entropy}
        dice = _dice_over_batch(found, wanted)
    return {"loss": recipe.entropy_share * entropy + (1 - recipe.entropy_share) * dice, "entropy": entropy, "dice": dice}


def _dice(logits: Tensor, wanted: Tensor, *, squared: bool) -> Tensor:
    """Return the mean over the samples of the dice loss, smoothed by 1; `squared` sums squares, as Milletari et al. 2016 do."""
    found = logits.sigmoid().flatten(1)
    wanted = wanted.flatten(1)
    common = (found * wanted).sum(dim=1)
    sizes = (found.square() if squared else found).sum(dim=1) + wanted.sum(dim=1)
    return (1 - (2 * common + 1) / (sizes + 1)).mean()


def _dice_over_batch(logits: Tensor, wanted: Tensor) -> Tensor:
    """Return RMSIN's dice: of each class, added up over the samples of the batch instead of averaged."""
    thing = logits.sigmoid()
    total = logits.new_zeros(())
    for found, truth in ((1 - thing, 1 - wanted), (thing, wanted)):
        common = (found * truth).flatten(1).sum(dim=1)
        sizes = found.flatten(1).sum(dim=1) + truth.flatten(1).sum(dim=1)
        total = total + (1 - (2 * common + 1e-6) / (sizes + 1e-6)).sum()
    return total
