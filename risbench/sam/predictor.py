"""Prompting SAM: an image is encoded once, its boxes, polygons, points and masks are decoded together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

from risbench.core.errors import OptionError
from risbench.core.geometry import polygon_mask

DECODE_BATCH: Final = 64
_MASK_PROMPT_LOGIT: Final = 6.0
_STABILITY_OFFSET: Final = 1.0

Points = Sequence[tuple[float, float, int]]


@dataclass(frozen=True)
class SamPrompt:
    """What one mask is asked for, in pixels of the image: any of a box, a polygon, points and a mask.

    A point is (x, y, label): 1 on the object, 0 beside it. A polygon, such as an oriented box, is SAM's mask prompt,
    and its extent the box where none is given; `mask` (height, width) goes before it.
    """

    box: tuple[float, float, float, float] | None = None
    polygon: Sequence[tuple[float, float]] | None = None
    points: Points = ()
    mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Predicted:
    """SAM's answers to n prompts: logits (n, height, width), predicted IoU (n,), stability (n,).

    Stability is the IoU of the masks at logit +1 and -1 (segment-anything's stability score). `uncertainty` (n,) is the mean of
    PA-SAM's uncertain map over the object, None without an adapter.
    """

    logits: NDArray[np.float32]
    predicted_iou: NDArray[np.float32]
    stability: NDArray[np.float32]
    uncertainty: NDArray[np.float32] | None = None


class Predictor(Protocol):
    """A model that takes an image once and answers any number of prompts on it."""

    def load(self, pixels: NDArray[np.uint8]) -> None: ...

    def predict(self, prompts: Sequence[SamPrompt]) -> Predicted: ...


class BoxPredictor:
    """A SAM, on the device that its weights are on, and the embedding of one image."""

    def __init__(self, model: Sam) -> None:
        self._predictor = SamPredictor(model)
        self._mask_side = 4 * model.prompt_encoder.image_embedding_size[0]

    def load(self, pixels: NDArray[np.uint8]) -> None:
        """Encode an image (height, width, 3), 8-bit RGB."""
        self._predictor.set_image(pixels)

    def predict(self, prompts: Sequence[SamPrompt]) -> Predicted:
        """Return logits at the image's size, for prompts of any mixture of kinds, in their order.

        Raises:
            OptionError: a prompt asks for nothing, or a mask is not of the image's size.
        """
        size = self._predictor.original_size
        logits = np.zeros((len(prompts), *size), np.float32)
        scores = np.zeros((len(prompts), 2), np.float32)
        asked = [self._checked(prompt, index) for index, prompt in enumerate(prompts)]
        # SAM's tokens of one batch are alike: how many points, whether a box, whether a mask ("none" is embedded
        # differently from an empty one). Padding would change the answers, so that prompts are sorted instead.
        kinds = [(len(prompt.points), prompt.box is not None, prompt.mask is not None) for prompt in asked]
        for kind in sorted(set(kinds)):
            members = [index for index, other in enumerate(kinds) if other == kind]
            for start in range(0, len(members), DECODE_BATCH):
                chosen = members[start : start + DECODE_BATCH]
                logits[chosen], scores[chosen, 0], scores[chosen, 1] = self._decode([asked[index] for index in chosen])
        return Predicted(logits, scores[:, 0], scores[:, 1])

    def _checked(self, prompt: SamPrompt, index: int) -> SamPrompt:
        """Return the prompt with its polygon as a mask and a box; refuse what SAM would answer at random."""
        height, width = self._predictor.original_size
        box, mask = prompt.box, prompt.mask
        if prompt.polygon is not None:
            corners = np.asarray(prompt.polygon, dtype=np.float64)
            x_min, y_min, x_max, y_max = (float(value) for value in (*corners.min(axis=0), *corners.max(axis=0)))
            box = box or (x_min, y_min, x_max, y_max)
            mask = mask if mask is not None else polygon_mask(prompt.polygon, height, width)
        if box is None and not prompt.points and mask is None:
            raise OptionError(f"prompt {index}: must hold a box, a polygon, a point or a mask")
        if mask is not None and mask.shape != (height, width):
            raise OptionError(f"prompt {index}: its mask is {mask.shape}, the image {(height, width)}")
        return SamPrompt(box, None, prompt.points, mask)

    @torch.inference_mode()
    def _decode(self, prompts: Sequence[SamPrompt]) -> tuple[Any, Any, Any]:
        predictor, device = self._predictor, self._predictor.device
        size, transform = predictor.original_size, predictor.transform
        boxes = coords = labels = masks = None
        if prompts[0].box is not None:
            given = torch.as_tensor(np.array([prompt.box for prompt in prompts]), dtype=torch.float32, device=device)
            boxes = transform.apply_boxes_torch(given, size)
        if prompts[0].points:
            every = np.array([prompt.points for prompt in prompts], dtype=np.float32)
            coords = transform.apply_coords_torch(torch.as_tensor(every[..., :2], device=device), size)
            labels = torch.as_tensor(every[..., 2], device=device)
        if prompts[0].mask is not None:
            masks = self._mask_prompts([prompt.mask for prompt in prompts if prompt.mask is not None])
        out, iou, _ = predictor.predict_torch(coords, labels, boxes, masks, multimask_output=False, return_logits=True)
        values = out[:, 0].float()
        wide = (values > -_STABILITY_OFFSET).flatten(1).sum(1).float()
        narrow = (values > _STABILITY_OFFSET).flatten(1).sum(1).float()
        return values.cpu().numpy(), iou[:, 0].float().cpu().numpy(), (narrow / wide.clamp(min=1)).cpu().numpy()

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
