"""From an engine's answer to a stored mask: checked, cleaned, scored. What fails a check becomes a problem on the record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from risbench.core.errors import InvalidRowError
from risbench.core.imagery import Pixels
from risbench.core.mask_scores import mask_box_agreement
from risbench.core.masks import encode_rle
from risbench.core.record import TRIAGED, Mask, Record, Review
from risbench.core.risk import scores_better
from risbench.refine.clean import CleanRules, clean_mask
from risbench.refine.engines.base import HIGH_IS_BAD, Engine, Prompt, Segmentation, at_once


def refine_image(
    engine: Engine, engine_name: str, pixels: Pixels, records: Sequence[Record], rules: CleanRules, round_number: int
) -> list[Record]:
    """Return the records of one image with masks; the image is loaded once, and its boxes are asked in batches that memory has room for."""
    height, width = int(pixels.shape[0]), int(pixels.shape[1])
    prompts = [Prompt(target.box, target.oriented_box, record.category.name) for record in records for target in record.targets]
    engine.load(pixels)
    size = at_once(height * width)
    answers = (answer for start in range(0, len(prompts), size) for answer in engine.segment(prompts[start : start + size]))
    refined = []
    for record in records:
        segmentations = [next(answers) for _ in record.targets]
        try:
            refined.append(_with_mask(record, segmentations, engine, engine_name, (height, width), rules, round_number))
        except InvalidRowError as reason:
            if record.mask is not None and record.review.status == TRIAGED:
                refined.append(record)  # this engine finds nothing, and somebody let the earlier mask pass
                continue
            refined.append(record.with_problem("refine", reason.code, f"{reason.field}: {reason.bound}"))
    return refined


def _with_mask(
    record: Record,
    segmentations: Sequence[Segmentation],
    engine: Engine,
    engine_name: str,
    shape: tuple[int, int],
    rules: CleanRules,
    round_number: int,
) -> Record:
    union = np.zeros(shape, bool)
    scores: dict[str, list[float]] = {}
    for target, segmentation in zip(record.targets, segmentations, strict=True):
        mask = checked_mask(segmentation.values, shape)
        mask = clean_mask(mask, segmentation.box or target.box, rules)
        for name, value in {**segmentation.scores, "mask_box_agreement": mask_box_agreement(mask, target)}.items():
            scores.setdefault(name, []).append(float(value))
        union |= mask
    size, counts = encode_rle(union)
    # The worst of several targets: a triplet is as doubtful as its most doubtful object.
    worst = {name: round(max(values) if name in HIGH_IS_BAD else min(values), 4) for name, values in sorted(scores.items())}
    bad = next((name for name, value in worst.items() if not np.isfinite(value)), None)
    if bad is not None:
        raise InvalidRowError("mask_not_finite", bad, worst[bad], "a score of the engine is not a finite number")
    mask_record = Mask(size=size, counts=counts, engine=engine_name, weights_sha256=engine.weights_sha256, round=round_number, scores=worst)
    problems = tuple(problem for problem in record.problems if problem.stage != "refine")  # an earlier round's
    review = record.review
    if record.mask is not None and review.status == TRIAGED and (record.mask.size, record.mask.counts) != (size, counts):
        if not scores_better(mask_record, record.mask):
            return record  # somebody let that mask pass
        review = Review()  # nobody has glanced at this one
    return record.model_copy(update={"mask": mask_record, "problems": problems, "review": review})


def checked_mask(values: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return an engine's values as a mask.

    Raises:
        InvalidRowError: `mask_wrong_size`, `mask_not_finite` or `mask_empty`; nothing of the kind is ever stored.
    """
    if values.shape != shape:
        raise InvalidRowError(
            "mask_wrong_size", "mask", list(values.shape), f"the engine gave {list(values.shape)}, the image is {list(shape)}"
        )
    if values.dtype != bool:
        if not np.isfinite(values).all():
            raise InvalidRowError("mask_not_finite", "mask", "NaN or infinity", "the engine gave values that are not finite numbers")
        values = values > 0
    if not values.any():
        raise InvalidRowError("mask_empty", "mask", 0, "the engine found no pixel of the object in this box")
    return values.astype(bool)
