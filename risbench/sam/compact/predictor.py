"""Prompting the built-in SAM: every prompt gets a magnified crop of its own; all crops of an image are one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from risbench.core.errors import OptionError
from risbench.sam.compact.model import CompactSam
from risbench.sam.magnify import Frame, frame_of, prompt_mask
from risbench.sam.predictor import Predicted, SamPrompt

BATCH: Final = 32
VIEWS: Final = 4
_STABILITY_OFFSET: Final = 1.0
_OUTSIDE_LOGIT: Final = -20.0


class CompactPredictor:
    """A compact SAM, on the device that its weights are on, and one image.

    Every crop is looked at in `views` of its eight turns and mirrorings, whose logits are averaged. Matrix products are done in `dtype`.
    """

    def __init__(self, model: CompactSam, views: int = VIEWS, dtype: torch.dtype = torch.float32) -> None:
        if not 1 <= views <= 8:
            raise OptionError(f"views {views}: must lie between 1 and 8")
        self._model, self._views, self._dtype = model, views, dtype
        self._side = model.settings.side_px
        self._pixels: NDArray[np.uint8] = np.zeros((1, 1, 3), np.uint8)

    def load(self, pixels: NDArray[np.uint8]) -> None:
        """Take an image (height, width, 3), 8-bit RGB; nothing is encoded before boxes are known."""
        self._pixels = pixels

    def predict(self, prompts: Sequence[SamPrompt]) -> Predicted:
        """Return logits at the image's size, for prompts with a box or a polygon, and points and masks beside it.

        Raises:
            OptionError: a prompt has neither box nor polygon: there is nothing to magnify; or its mask is not of the image's size.
        """
        height, width = self._pixels.shape[:2]
        logits = np.full((len(prompts), height, width), _OUTSIDE_LOGIT, np.float32)
        scores = np.zeros((len(prompts), 3), np.float32)
        counts = [len(prompt.points) for prompt in prompts]
        for count in sorted(set(counts)):
            members = [index for index, other in enumerate(counts) if other == count]
            for start in range(0, len(members), BATCH):
                chosen = members[start : start + BATCH]
                frames, small, quality = self._decode([prompts[index] for index in chosen], chosen)
                for index, frame, found, good in zip(chosen, frames, small, quality, strict=True):
                    logits[index] = frame.paste(found, self._side, height, width, _OUTSIDE_LOGIT)
                    wide, narrow = np.count_nonzero(found > -_STABILITY_OFFSET), np.count_nonzero(found > _STABILITY_OFFSET)
                    scores[index] = good[0], narrow / wide if wide else 0.0, good[1]
        return Predicted(logits, scores[:, 0], scores[:, 1], scores[:, 2] if self._model.settings.adapted else None)

    def _decode(self, prompts: Sequence[SamPrompt], numbers: Sequence[int]) -> tuple[list[Frame], NDArray[np.float32], NDArray[np.float32]]:
        side, half = self._side, self._side // 2
        frames, crops, corners, masks, points = [], [], [], [], []
        for number, prompt in zip(numbers, prompts, strict=True):
            polygon = _polygon_of(prompt, number)
            if prompt.mask is not None and prompt.mask.shape != self._pixels.shape[:2]:
                raise OptionError(f"prompt {number}: its mask is {prompt.mask.shape}, the image {self._pixels.shape[:2]}")
            low, high = polygon.min(axis=0), polygon.max(axis=0)
            frame = frame_of((float(low[0]), float(low[1]), float(high[0]), float(high[1])), side)
            frames.append(frame)
            crops.append(frame.cut(self._pixels, side).transpose(2, 0, 1))
            inside = frame.to_crop(polygon)
            corners.append([inside.min(axis=0), inside.max(axis=0)])
            masks.append(2 * frame.cut_mask(prompt.mask, half, side) - 1 if prompt.mask is not None else prompt_mask(inside, half, side))
            points.append([(*frame.to_crop(np.array([(x, y)]))[0], label) for x, y, label in prompt.points])
        device = self._model.pixel_mean.device
        places = torch.as_tensor(np.array(points, dtype=np.float32), device=device) if points[0] else None
        logits, quality = self._look(
            torch.as_tensor(np.stack(crops), device=device).float(),
            torch.as_tensor(np.array(corners), dtype=torch.float32, device=device),
            torch.as_tensor(np.stack(masks), device=device)[:, None],
            places,
        )
        return frames, logits.cpu().numpy(), quality.cpu().numpy()

    @torch.inference_mode()
    def _look(self, crops: Tensor, corners: Tensor, masks: Tensor, points: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the mean logits (B, S/2, S/2) over the views, and beside the predicted IoU the uncertainty (B, 2)."""
        total: Any = 0.0
        quality: Any = 0.0
        for view in range(self._views):
            # half turns and mirrorings alternate with quarter turns: few views are then as different as can be
            turns, mirrored = (0, 2, 1, 3, 0, 2, 1, 3)[view], view in (1, 3, 4, 6)
            box = self._laid(corners, turns, mirrored)
            points_laid = None if points is None else (self._laid(points[..., :2], turns, mirrored), points[..., 2])
            boxes = torch.cat([box.amin(dim=1), box.amax(dim=1)], dim=1)
            with torch.autocast(crops.device.type, torch.bfloat16, enabled=self._dtype == torch.bfloat16):
                found = self._model.run(_lay(crops, turns, mirrored), boxes, _lay(masks, turns, mirrored), points_laid)
            back = found.masks[:, :1].flip(3) if mirrored else found.masks[:, :1]
            total = total + torch.rot90(back, -turns, (2, 3)).float()
            quality = quality + torch.stack([found.iou[:, 0].float(), found.uncertainty()], dim=1)
        return total[:, 0] / self._views - self._model.settings.threshold, quality / self._views

    def _laid(self, places: Tensor, turns: int, mirrored: bool) -> Tensor:
        """Return points (B, n, 2) of a crop where `_lay` brings them."""
        for _ in range(turns):
            places = torch.stack([places[..., 1], self._side - places[..., 0]], dim=-1)
        return torch.stack([self._side - places[..., 0], places[..., 1]], dim=-1) if mirrored else places


def _lay(picture: Tensor, turns: int, mirrored: bool) -> Tensor:
    laid = torch.rot90(picture, turns, (2, 3))
    return laid.flip(3) if mirrored else laid


def _polygon_of(prompt: SamPrompt, number: int) -> NDArray[np.float64]:
    if prompt.polygon is not None:
        return np.asarray(prompt.polygon, dtype=np.float64)
    if prompt.box is None:
        raise OptionError(f"prompt {number}: the built-in model needs a box or a polygon to know where to look")
    x_min, y_min, x_max, y_max = prompt.box
    return np.array([(x_min, y_min), (x_max, y_min), (x_max, y_max), (x_min, y_max)])
