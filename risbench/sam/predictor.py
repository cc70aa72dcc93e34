"""Prompting SAM: an image is encoded once, all its boxes and mask prompts are decoded together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

DECODE_BATCH: Final = 64
_MASK_PROMPT_LOGIT: Final = 6.0
_STABILITY_OFFSET: Final = 1.0


@dataclass(frozen=True)
class Predicted:
    """SAM's answers to n prompts: logits (n, height, width), predicted IoU (n,), stability (n,).

    Stability is the IoU of the masks at logit +1 and -1 (segment-anything's stability score).
    """

    logits: NDArray[np.float32]
    predicted_iou: NDArray[np.float32]
    stability: NDArray[np.float32]


class BoxPredictor:
    """A SAM and the embedding of one image."""

    def __init__(self, model: Sam) -> None:
        self._predictor = SamPredictor(model)
        self._mask_side = 4 * model.prompt_encoder.image_embedding_size[0]

    def load(self, pixels: NDArray[np.uint8]) -> None:
        """Encode an image (height, width, 3), 8-bit RGB."""
        self._predictor.set_image(pixels)

    @torch.inference_mode()
    def predict(self, boxes: NDArray[np.float64], masks: Sequence[NDArray[np.bool_] | None]) -> Predicted:
        """Return logits at the image's size for boxes (n, 4) in its pixels, with a mask prompt (height, width) where there is one."""
        done = [
            self._predict(boxes[start : start + DECODE_BATCH], masks[start : start + DECODE_BATCH])
            for start in range(0, len(boxes), DECODE_BATCH)
        ]
        return Predicted(*(np.concatenate(arrays) for arrays in zip(*done, strict=True)))

    def _predict(self, boxes: NDArray[np.float64], masks: Sequence[NDArray[np.bool_] | None]) -> tuple[Any, Any, Any]:
        predictor, device = self._predictor, self._predictor.device
        size = predictor.original_size
        logits = np.zeros((len(boxes), *size), np.float32)
        scores = np.zeros((len(boxes), 2), np.float32)
        # A batch either has mask prompts or has none: SAM embeds "no mask" differently from an empty one.
        for with_mask in (False, True):
            chosen = [index for index, mask in enumerate(masks) if (mask is not None) == with_mask]
            if not chosen:
                continue
            torch_boxes = predictor.transform.apply_boxes_torch(torch.as_tensor(boxes[chosen], dtype=torch.float32, device=device), size)
            prompts = self._mask_prompts([mask for mask in masks if mask is not None]) if with_mask else None
            out, iou, _ = predictor.predict_torch(None, None, torch_boxes, prompts, multimask_output=False, return_logits=True)
            values = out[:, 0]
            wide = (values > -_STABILITY_OFFSET).flatten(1).sum(1).float()
            narrow = (values > _STABILITY_OFFSET).flatten(1).sum(1).float()
            logits[chosen] = values.float().cpu().numpy()
            scores[chosen, 0] = iou[:, 0].float().cpu().numpy()
            scores[chosen, 1] = (narrow / wide.clamp(min=1)).cpu().numpy()
        return logits, scores[:, 0], scores[:, 1]

    def _mask_prompts(self, masks: Sequence[NDArray[np.bool_]]) -> torch.Tensor:
        """Return masks of the image as SAM's mask prompts (n, 1, side, side): scaled as the image is, padded at the bottom right."""
        predictor, side = self._predictor, self._mask_side
        scale = side / max(predictor.original_size)
        height, width = (round(length * scale) for length in predictor.original_size)
        stacked = torch.as_tensor(np.stack(masks), dtype=torch.float32, device=predictor.device)[:, None]
        small = torch.nn.functional.interpolate(stacked, (height, width), mode="bilinear", align_corners=False, antialias=True)
        padded = torch.zeros((len(masks), 1, side, side), device=predictor.device)
        padded[:, :, :height, :width] = small
        return (2 * padded - 1) * _MASK_PROMPT_LOGIT
