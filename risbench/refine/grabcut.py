"""GrabCut (Rother et al. 2004) made careful: a padded crop at one scale, two passes around a class outline, and a vote.

1. Crop: 40 % padding, long side 128 px, CIE Lab.
2. First GrabCut, one iteration: the box is probable object, its central ellipse sure object, a 10 % ring around it
   probable background (boxes are noisy), beyond that sure background.
3. The outline of the class is fitted to the first pass and its colour models (shapes.py).
4. Second GrabCut, one iteration, only free in a band around that outline.
5. The mask is a weighted vote of outline, second and first pass. How far the three agree is kept as a score.

With an oriented box the crop turns with it, and for classes that are rectangles from above (vehicles, courts, bridges)
the polygon stands for steps 2 and 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.core.imagery import Pixels
from risbench.core.metrics import mask_iou
from risbench.core.record import Quad
from risbench.refine.crops import Crop, turned_crop, upright_crop
from risbench.refine.engines.base import Prompt, Segmentation, jittered
from risbench.refine.shapes import ANY_SHAPE, SHAPES, fit_planform, fit_superellipse

Mask8 = NDArray[np.uint8]
_CORE_RADIUS: Final = 0.25
_RING: Final = 1.1
_SHADOW_LEVELS: Final = 10
_VOTE_THRESHOLD: Final = 0.4
_POLYGON_THRESHOLD: Final = 0.5
_MIN_POLYGON_AGREEMENT: Final = 0.75
# From this exponent on a class fills its oriented box, and the polygon itself is the outline.
_RECTANGULAR: Final = 6


class GrabCutEngine:
    """Weights-free box to mask on the CPU; the same bytes on every run."""

    weights_sha256: str | None = None

    def __init__(self) -> None:
        cv2.setNumThreads(1)
        self._pixels: Pixels = np.zeros((1, 1, 3), np.uint8)

    def load(self, pixels: Pixels) -> None:
        """Take the image; there is nothing to encode."""
        self._pixels = pixels

    def segment(self, prompts: Sequence[Prompt]) -> list[Segmentation]:
        """Return one mask per prompt."""
        return [self._segment(prompt) for prompt in prompts]

    def _segment(self, prompt: Prompt) -> Segmentation:
        shape = SHAPES.get(prompt.category, ANY_SHAPE)
        if prompt.quad is not None and prompt.category != "airplane" and shape.exponent >= _RECTANGULAR:
            return self._oriented(prompt, prompt.quad)
        crop = upright_crop(self._pixels, prompt.box) if prompt.quad is None else turned_crop(self._pixels, prompt.quad)[0]
        first, evidence = _first_pass(crop)
        jitter = _jitter_agreement(crop)
        if prompt.category == "airplane":
            votes, weights = _airplane_votes(crop, first, evidence), (1 / 3, 1 / 3, 1 / 3)
        else:
            soft = _soft((1 - shape.colour) * first + shape.colour * evidence, crop)
            outline = fit_superellipse(crop, soft, shape)
            drawn = outline.mask if outline.mask.any() else (np.hypot(crop.u, crop.v) < 1).astype(np.uint8)
            outer = max(1, round(0.12 * outline.half_width))
            second = _filled(_largest(_banded(crop.lab, drawn, outer, 2 * outer)))
            votes, weights = (outline.grown if outline.grown.any() else drawn, second, _filled(_largest(first))), shape.votes
        return self._vote(crop, votes, weights, _VOTE_THRESHOLD, jitter)

    def _oriented(self, prompt: Prompt, quad: Quad) -> Segmentation:
        crop, points = turned_crop(self._pixels, quad)
        half_width = (crop.box[3] - crop.box[1]) / 2
        outer, inner = max(1, round(0.15 * half_width)), max(1, round(0.3 * half_width))

        def cut(corners: NDArray[np.float64]) -> tuple[Mask8, Mask8]:
            drawn = np.zeros(crop.shape, np.uint8)
            cv2.fillPoly(drawn, [np.rint((corners - 0.5) * 16).astype(np.int32)], 1, shift=4)
            return drawn, _filled(_largest(_banded(crop.lab, drawn, outer, inner)))

        polygon, second = cut(points)
        others = [np.asarray(other.quad, dtype=np.float64) @ crop.affine[:, :2].T + crop.affine[:, 2] for other in jittered(prompt)]
        jitter = float(np.mean([mask_iou(second, cut(corners)[1]) for corners in others]))
        weight = 0.5 if mask_iou(polygon, second) >= _MIN_POLYGON_AGREEMENT else 1.0
        return self._vote(crop, (polygon, second), (weight, 1 - weight), _POLYGON_THRESHOLD, jitter)

    def _vote(self, crop: Crop, votes: Sequence[Mask8], weights: Sequence[float], threshold: float, jitter: float) -> Segmentation:
        height, width = self._pixels.shape[:2]
        blended = sum(
            (weight * vote.astype(np.float32) for weight, vote in zip(weights, votes, strict=True)), np.zeros(crop.shape, np.float32)
        )
        smooth = crop.to_image(cv2.GaussianBlur(np.asarray(blended, dtype=np.float32), (0, 0), 1.5), height, width)
        pairs = [mask_iou(a, b) for index, a in enumerate(votes) for b in votes[index + 1 :]]
        wide, narrow = int(np.count_nonzero(smooth >= threshold - 0.1)), int(np.count_nonzero(smooth >= threshold + 0.1))
        scores = {"vote_agreement": float(np.mean(pairs)), "stability": narrow / wide if wide else 0.0, "jitter_agreement": jitter}
        return Segmentation(smooth >= threshold, scores)


def _first_pass(crop: Crop) -> tuple[Mask8, NDArray[np.float32]]:
    """Return the first GrabCut's mask and the colour models' probability of object, both (height, width)."""
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    mask = _box_grabcut(crop.lab, crop.u, crop.v, background, foreground)
    pixels = crop.lab.reshape(-1, 3).astype(np.float32)
    odds = (_log_likelihood(pixels, foreground) - _log_likelihood(pixels, background)).reshape(crop.shape)
    return mask, (1 / (1 + np.exp(-np.clip(odds, -60, 60) / 3))).astype(np.float32)


def _box_grabcut(
    lab: Pixels, u: NDArray[np.float64], v: NDArray[np.float64], background: NDArray[np.float64], foreground: NDArray[np.float64]
) -> Mask8:
    """Return GrabCut's mask for a box given by coordinates relative to it (-1 to 1 inside); an ellipse where it finds next to nothing."""
    reach = np.maximum(np.abs(u), np.abs(v))
    labels = np.full(lab.shape[:2], cv2.GC_BGD, np.uint8)
    labels[reach <= _RING] = cv2.GC_PR_BGD
    labels[reach <= 1] = cv2.GC_PR_FGD
    labels[np.hypot(u, v) <= _CORE_RADIUS] = cv2.GC_FGD
    mask = _grabcut(lab, labels, background, foreground)
    if mask.sum() < 0.05 * np.count_nonzero(reach < 1):
        mask = (np.hypot(u, v) < 1).astype(np.uint8)
    return mask


def _jitter_agreement(crop: Crop) -> float:
    """Return the mean IoU of the first pass with that of jittered boxes, at half scale: it needs no fine outline."""
    lab = np.asarray(cv2.resize(crop.lab, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    rows, columns = np.mgrid[: lab.shape[0], : lab.shape[1]] + 0.5
    x_min, y_min, x_max, y_max = (float(value) / 2 for value in crop.box)
    given = Prompt((x_min, y_min, x_max, y_max), None, "")
    masks = []
    for item in (given, *jittered(given)):
        x_min, y_min, x_max, y_max = item.box
        u = (columns - (x_min + x_max) / 2) / max(x_max - x_min, 1.0) * 2
        v = (rows - (y_min + y_max) / 2) / max(y_max - y_min, 1.0) * 2
        masks.append(_box_grabcut(lab, u, v, np.zeros((1, 65)), np.zeros((1, 65))))
    return float(np.mean([mask_iou(masks[0], other) for other in masks[1:]]))


def _grabcut(lab: Pixels, labels: Mask8, background: NDArray[np.float64], foreground: NDArray[np.float64]) -> Mask8:
    cv2.setRNGSeed(0)  # its k-means draws from OpenCV's global generator
    cv2.grabCut(lab, labels, (0, 0, 1, 1), background, foreground, 1, cv2.GC_INIT_WITH_MASK)
    return (labels & 1).astype(np.uint8)


def _log_likelihood(pixels: NDArray[np.float32], model: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return log p of Lab pixels (n, 3) under grabCut's mixture of five Gaussians (weights, means, covariances in a row)."""
    weights, means, covariances = model[0, :5], model[0, 5:20].reshape(5, 3), model[0, 20:].reshape(5, 3, 3)
    density = np.zeros(len(pixels), np.float32)
    for weight, mean, covariance in zip(weights, means, covariances, strict=True):
        if weight <= 1e-6:
            continue
        widened = covariance + 4.0 * np.eye(3)
        gap = (pixels - mean).astype(np.float32)
        distance = ((gap @ np.linalg.inv(widened).astype(np.float32)) * gap).sum(axis=1)
        density += np.float32(weight / np.sqrt(np.linalg.det(widened))) * np.exp(-0.5 * distance)
    return np.asarray(np.log(density + np.float32(1e-8)), dtype=np.float32)


def _soft(evidence: NDArray[Any], crop: Crop) -> NDArray[np.float32]:
    reach = np.maximum(np.abs(crop.u), np.abs(crop.v))
    return np.asarray(cv2.GaussianBlur((evidence * (reach < 1.15)).astype(np.float32), (0, 0), 1), dtype=np.float32)


def _airplane_votes(crop: Crop, first: Mask8, colours: NDArray[np.float32]) -> tuple[Mask8, Mask8, Mask8]:
    """Return the three votes for an aircraft; what is darker than the apron around it is its shadow, not its wing."""
    reach = np.maximum(np.abs(crop.u), np.abs(crop.v))
    lightness = crop.lab[..., 0].astype(np.int32)
    lit = lightness > np.median(lightness[reach > _RING]) - _SHADOW_LEVELS
    soft = _soft((0.6 * first + 0.4 * colours) * lit, crop)
    outline = fit_planform(crop, soft)
    drawn = outline.mask if outline.mask.any() else (np.hypot(crop.u, crop.v) < 1).astype(np.uint8)
    return drawn, _banded(crop.lab, drawn, 4, 2), (soft > 0.5).astype(np.uint8)


def _disc(radius: int) -> Mask8:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)), dtype=np.uint8)


def _banded(lab: Pixels, outline: Mask8, outer_px: int, inner_px: int) -> Mask8:
    """Return a GrabCut that is free only between the outline shrunk by `inner_px` and grown by `outer_px`."""
    labels = np.full(outline.shape, cv2.GC_BGD, np.uint8)
    labels[cv2.dilate(outline, _disc(outer_px)) > 0] = cv2.GC_PR_BGD
    labels[outline > 0] = cv2.GC_PR_FGD
    labels[cv2.erode(outline, _disc(inner_px)) > 0] = cv2.GC_FGD
    if not (labels & 1).any() or (labels & 1).all():
        return outline
    return _grabcut(lab, labels, np.zeros((1, 65)), np.zeros((1, 65)))


def _largest(mask: Mask8) -> Mask8:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count <= 2:
        return mask
    return np.asarray(labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()), dtype=np.uint8)


def _filled(mask: Mask8) -> Mask8:
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(np.zeros_like(mask), contours, -1, 1, -1), dtype=np.uint8)
