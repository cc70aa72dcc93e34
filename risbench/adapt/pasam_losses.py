"""PA-SAM's training losses (arXiv 2401.13051, section 3.5, and the published code where the two differ)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from risbench.sam.pasam.adapter import PaMaps


@dataclass(frozen=True)
class PaLosses:
    """Five scalars whose sum is minimised."""

    mask: Tensor
    dice: Tensor
    mask_final: Tensor
    dice_final: Tensor
    uncertain: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum, all of weight one."""
        return self.mask + self.dice + self.mask_final + self.dice_final + self.uncertain

    def parts(self) -> dict[str, float]:
        """Return all six as numbers."""
        return {**{name: float(value.detach()) for name, value in vars(self).items()}, "total": float(self.total.detach())}


def pa_losses(masks: Tensor, maps: PaMaps, labels: Tensor) -> PaLosses:
    """Return the losses of mask logits (B, 1, h, w) and the adapter's maps against labels (B, 1, H, W) of 0 to 1."""
    size = (labels.shape[2], labels.shape[3])
    mask, coarse, refined, uncertain = (
        F.interpolate(part, size, mode="bilinear", align_corners=False) for part in (masks, maps.coarse, maps.refined, maps.uncertain)
    )
    hard = (uncertain >= 0.5).to(labels.dtype)
    easy = 1 - hard
    outline = F.interpolate(maps.uncertain, size, mode="bilinear", align_corners=True)
    return PaLosses(
        mask=F.binary_cross_entropy_with_logits(mask, labels),
        dice=_dice(mask.sigmoid(), labels),
        mask_final=_within(coarse, labels, easy) + _within(refined, labels, hard),
        dice_final=_dice(coarse.sigmoid() * easy, labels * easy) + _dice(refined.sigmoid() * hard, labels * hard),
        # torch's own check stops at a NaN without a word on where it came from; the sum's check names all losses
        uncertain=F.binary_cross_entropy(outline.clamp(0, 1), boundary_band(labels)) if torch.isfinite(outline).all() else outline.sum(),
    )


def boundary_band(labels: Tensor) -> Tensor:
    """Return 1 on the band along the outline of labels (B, 1, H, W), 0 elsewhere; its half width is .5 % of the diagonal."""
    height, width = labels.shape[2:]
    times = max(1, round(0.005 * math.hypot(height, width)))
    object_, ground = (labels >= 128 / 255).to(labels.dtype), (labels < 128 / 255).to(labels.dtype)
    # what lies beyond the image is no object, and ground for the ground: the border is an outline of objects only
    return (object_ - _eroded(object_, times, 0.0)) + (ground - _eroded(ground, times, 1.0))


def _eroded(mask: Tensor, times: int, beyond: float) -> Tensor:
    """Return a mask (B, 1, H, W) eroded `times` by 3 x 3, which is once by a square of 2 times + 1."""
    padded = F.pad(mask, (times,) * 4, value=beyond)
    rows = -F.max_pool2d(-padded, (2 * times + 1, 1), stride=1)
    return -F.max_pool2d(-rows, (1, 2 * times + 1), stride=1)


def _dice(share: Tensor, labels: Tensor) -> Tensor:
    both, sums = (share * labels).flatten(1).sum(dim=1), share.flatten(1).sum(dim=1) + labels.flatten(1).sum(dim=1)
    return (1 - (2 * both + 1) / (sums + 1)).mean()


def _within(logits: Tensor, labels: Tensor, region: Tensor) -> Tensor:
    entropy = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return ((region * entropy).flatten(1).sum(dim=1) / (region.flatten(1).sum(dim=1) + 1e-8)).mean()


def finite(losses: PaLosses) -> bool:
    """Return whether the sum is a number."""
    return bool(torch.isfinite(losses.total.detach()))
