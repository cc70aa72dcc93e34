"""Models of the SAM family as engines; each decodes a prompt and its two jittered copies together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from risbench.core.geometry import box_iou, mask_bounds
from risbench.core.imagery import Pixels
from risbench.core.metrics import mask_iou
from risbench.learn.device import dtype_of, out_of_memory
from risbench.refine.engines.base import LOGITS_BYTES, Prompt, Segmentation, at_once, jittered
from risbench.sam.adapter_file import COMPACT_BASE, base_beside, is_adapter, load_adapted, load_whole_adapted, read_adapter
from risbench.sam.builtin import load_builtin
from risbench.sam.compact.predictor import CompactPredictor
from risbench.sam.compact.weights import load_compact
from risbench.sam.pasam.predictor import PasamPredictor, load_pasam
from risbench.sam.predictor import BoxPredictor, Predictor, SamPrompt
from risbench.sam.vit import fused
from risbench.sam.weights import load_sam

CONTRADICTED: Final = 0.6
_ADVICE: Final = "take a smaller model or fewer --workers, free the device, or run without --gpu"
T = TypeVar("T")


@contextlib.contextmanager
def _memory_explained() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise out_of_memory(error, _ADVICE) or error from error


class SamEngine:
    """A predictor of the SAM family, prompted with boxes, and with the polygon where a box is oriented.

    `rough` answers the jittered copies where a cheaper look is enough to tell how far the mask moves with its box.
    """

    def __init__(self, predictor: Predictor, weights_sha256: str, rough: Predictor | None = None) -> None:
        self.weights_sha256: str | None = weights_sha256
        self._predictor, self._rough, self._pixels = predictor, rough, 1

    def load(self, pixels: Pixels) -> None:
        """Take an image, and encode it where the model encodes whole images."""
        self._pixels = int(pixels.shape[0] * pixels.shape[1])
        with _memory_explained():
            self._predictor.load(pixels)
            if self._rough is not None:
                self._rough.load(pixels)

    def segment(self, prompts: Sequence[Prompt]) -> list[Segmentation]:
        """Return logits and scores of every prompt.

        Raises:
            MissingRequirementError: the device has not memory enough.
        """
        return in_pieces(self._segment, prompts, at_once(self._pixels))

    def _segment(self, prompts: Sequence[Prompt]) -> list[Segmentation]:
        asked = [SamPrompt(prompt.box, prompt.quad) for prompt in prompts]
        moved = [SamPrompt(other.box, other.quad) for prompt in prompts for other in jittered(prompt)]
        if self._rough is None:
            # One box costs SAM's decoder 1/173 of what the image cost its encoder: the copies ride along.
            found = self._predictor.predict([*asked, *moved])
            others = found.logits[len(asked) :]
        else:
            found, others = self._predictor.predict(asked), self._rough.predict(moved).logits
        answers = []
        for index in range(len(asked)):
            used = found.logits[index]
            agreement = [mask_iou(used > 0, other > 0) for other in others[2 * index : 2 * index + 2]]
            scores = {
                "predicted_iou": float(found.predicted_iou[index]),
                "stability": float(found.stability[index]),
                "jitter_agreement": float(np.mean(agreement)),
            }
            if found.uncertainty is not None:
                scores["uncertainty"] = float(found.uncertainty[index])
            answers.append(Segmentation(used, scores))
        return answers


class PasamEngine:
    """A SAM with an adapter; a box that the mask contradicts is prompted again with the mask's own box, until that is stable.

    Its scores hold the adapter's uncertainty, `plain_agreement` (the IoU with the base's own mask) and how often it was prompted again.
    """

    def __init__(self, adapted: SamEngine, plain: Predictor, again: int = 3) -> None:
        self.weights_sha256: str | None = adapted.weights_sha256
        self._adapted, self._plain, self._again = adapted, plain, again

    def load(self, pixels: Pixels) -> None:
        """Take an image."""
        self._adapted.load(pixels)
        with _memory_explained():
            self._plain.load(pixels)

    def segment(self, prompts: Sequence[Prompt]) -> list[Segmentation]:
        """Return logits and scores of every prompt.

        Raises:
            MissingRequirementError: the device has not memory enough.
        """
        used, answers = list(prompts), self._adapted.segment(prompts)
        times = [0] * len(used)
        for _ in range(self._again):
            asked = {index: own for index, answer in enumerate(answers) if (own := contradicted(used[index], answer)) is not None}
            if not asked:
                break
            stuck = True
            for index, answer in zip(asked, self._adapted.segment(list(asked.values())), strict=True):
                if (answer.values > 0).any():  # a mask is not given up for none
                    used[index], answers[index], stuck = asked[index], answer, False
                    times[index] += 1
            if stuck:
                break
        together = max(1, LOGITS_BYTES // (4 * max(1, answers[0].values.size))) if answers else 1
        plain = in_pieces(self._plain_masks, used, together)
        for answer, mask, count in zip(answers, plain, times, strict=True):
            answer.scores["plain_agreement"] = mask_iou(answer.values > 0, mask)
            answer.scores["prompted_again"] = float(count)
        return [replace(answer, box=prompt.box) if count else answer for answer, prompt, count in zip(answers, used, times, strict=True)]

    def _plain_masks(self, prompts: Sequence[Prompt]) -> list[NDArray[np.bool_]]:
        """Return the base's own masks, a byte a pixel: logits of hundreds of boxes would not fit."""
        return list(self._plain.predict([SamPrompt(prompt.box, prompt.quad) for prompt in prompts]).logits > 0)


def in_pieces(answer: Callable[[Sequence[Prompt]], list[T]], prompts: Sequence[Prompt], at_once: int) -> list[T]:
    """Return the answers to prompts, at most `at_once` together; fewer where the device's memory runs out, down to one.

    Raises:
        MissingRequirementError: there is no memory for a single prompt.
    """
    answers: list[T] = []
    while len(answers) < len(prompts):
        piece = prompts[len(answers) : len(answers) + at_once]
        try:
            answers += answer(piece)
        except RuntimeError as error:
            lacking = out_of_memory(error, _ADVICE)
            if lacking is None or len(piece) == 1:
                raise lacking or error from error
            at_once = len(piece) // 2
    return answers


def contradicted(prompt: Prompt, answer: Segmentation) -> Prompt | None:
    """Return the prompt that the mask itself asks for where it and its box disagree (IoU below .6), else None."""
    bounds = mask_bounds(answer.values > 0)
    if bounds is None or box_iou(bounds, prompt.box) >= CONTRADICTED:
        return None
    return Prompt(bounds, None, prompt.category)


def sam_engine(checkpoint: Path, device: str, precision: str = "fp32") -> SamEngine:
    """Return Meta's SAM, of any size, or MobileSAM, from their own files; `precision` is the image encoder's."""
    with _memory_explained():
        model, digest = load_sam(checkpoint, device)
        model.image_encoder = fused(model.image_encoder, dtype_of(precision))
    return SamEngine(BoxPredictor(model), digest)


def builtin_engine(device: str, checkpoint: Path | None = None, precision: str = "fp32") -> SamEngine:
    """Return the shipped compact SAM, or another one of its kind from a file."""
    with _memory_explained():
        model, digest = load_builtin(device) if checkpoint is None else load_compact(checkpoint, device)
    dtype = dtype_of(precision)
    return SamEngine(CompactPredictor(model, dtype=dtype), digest, rough=CompactPredictor(model, views=1, dtype=dtype))


def pasam_engine(adapter: Path, device: str, again: int = 3, precision: str = "fp32") -> PasamEngine:
    """Return an adapter on its base (beside it, else the built-in model), or PA-SAM from its merged file."""
    dtype = dtype_of(precision)
    is_ours = is_adapter(adapter)
    whole_base = base_beside(adapter) if is_ours and read_adapter(adapter)[0].whole else None
    if not is_ours or whole_base is not None:
        with _memory_explained():
            sam, digest = load_pasam(adapter, device=device) if whole_base is None else load_whole_adapted(adapter, whole_base, device)
            sam.image_encoder = fused(sam.image_encoder, dtype)
        whole = PasamPredictor(sam)
        return PasamEngine(SamEngine(whole, digest), PasamPredictor(sam, adapter=False, beside=whole), again)
    own = adapter.parent / COMPACT_BASE
    base = own if own.is_file() else None
    with _memory_explained():
        model, digest = load_adapted(adapter, device, base)
        plain, _ = load_builtin(device) if base is None else load_compact(base, device)
    adapted = SamEngine(CompactPredictor(model, dtype=dtype), digest, rough=CompactPredictor(model, views=1, dtype=dtype))
    return PasamEngine(adapted, CompactPredictor(plain, views=1, dtype=dtype), again)


def hf_engine(name: str, device: str) -> SamEngine:
    """Return a box-promptable mask model of transformers, from a folder or by its name on the hub."""
    from risbench.sam.hf import HfPredictor, load_hf

    with _memory_explained():
        model, processor, digest = load_hf(name, device)
    return SamEngine(HfPredictor(model, processor), digest)
