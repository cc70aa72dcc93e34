"""The best and the worst cases as one picture, with the attention of every scale and the decoder's map (the paper's Fig. 12)."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from risbench.benchmark.data.batches import normalised
from risbench.benchmark.data.cache import Cache
from risbench.benchmark.eval.predict import Predictor, Trained
from risbench.benchmark.eval.scoring import Scored, mask_at
from risbench.benchmark.models.backbones import STRIDE
from risbench.benchmark.models.registry import Explaining
from risbench.benchmark.train.board import outlined
from risbench.core.imagery import encode_png
from risbench.core.storage import write_durably

_ROWS: Final = 5
_SIDE: Final = 192
_MARGIN: Final = 10
_TEXT: Final = 230
_INK, _PAPER = (30, 30, 30), (250, 250, 248)


def write_sheet(path: Path, title: str, predictor: Predictor, cache: Cache, found: Sequence[Scored]) -> None:
    """Draw the five best and the five worst of the samples, of different images where there are enough."""
    numbers = {sample.id: number for number, sample in enumerate(cache.samples)}
    ordered = sorted(found, key=lambda one: (-one.iou, one.id))
    best = _of_different_images(ordered)
    worst = [one for one in _of_different_images(ordered[::-1]) if one not in best]
    rows = [(group, one) for group, members in (("best", best), ("worst", worst)) for one in members]
    pictures = [_row(predictor, cache, numbers[one.id]) for _, one in rows]
    columns = max((len(row) for row in pictures), default=1)
    width = _TEXT + columns * (_SIDE + _MARGIN) + _MARGIN
    sheet = Image.new("RGB", (width, 64 + len(rows) * (_SIDE + _MARGIN)), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    draw.text((_MARGIN, 10), title, fill=_INK, font=ImageFont.load_default(16))
    heads = ["green: true, pink: found", *(f"S{scale + 1}" for scale in range(columns - 2)), "decoder (eq. 17)"]
    for column in range(columns):
        draw.text((_TEXT + column * (_SIDE + _MARGIN), 40), heads[column], fill=_INK, font=font)
    for place, ((group, one), row) in enumerate(zip(rows, pictures, strict=True)):
        top = 64 + place * (_SIDE + _MARGIN)
        sample = cache.samples[numbers[one.id]]
        lines = [f"{group}, IoU {one.iou:.3f}", sample.category, "", *textwrap.wrap(sample.sentence, 28)[:7]]
        draw.multiline_text((_MARGIN, top), "\n".join(lines), fill=_INK, font=font, spacing=4)
        for column, picture in enumerate(row):
            sheet.paste(Image.fromarray(picture), (_TEXT + column * (_SIDE + _MARGIN), top))
    write_durably(path, encode_png(np.asarray(sheet)))


def _of_different_images(ordered: Sequence[Scored]) -> list[Scored]:
    chosen: list[Scored] = []
    for one in ordered:
        if all(one.image != other.image for other in chosen):
            chosen.append(one)
        if len(chosen) == _ROWS:
            break
    return chosen


def _row(predictor: Predictor, cache: Cache, number: int) -> list[NDArray[np.uint8]]:
    image = np.asarray(cache.images[cache.image_of[number]])
    truth = cache.mask(np.array([number]))[0].astype(bool)
    found = mask_at(predictor.predict(cache, [number])[0], (cache.side, cache.side))
    shown = [_fitted(outlined(image, truth, found)[: -(14 + 4)])]
    if isinstance(predictor, Trained) and isinstance(predictor.model, Explaining):
        shown += [_fitted(_heated(image, heat)) for heat in _maps(predictor, cache, number)]
    return shown


@torch.inference_mode()
def _maps(predictor: Trained, cache: Cache, number: int) -> list[NDArray[np.float32]]:
    """Return what every scale's pixels give to the sentence's words rather than to [CLS] and [SEP], and the decoder's map."""
    model: Any = predictor.model
    image = torch.from_numpy(np.array(cache.images[cache.image_of[number]]))[None].permute(0, 3, 1, 2).to(predictor.device)
    tokens, valid, _ = predictor.words.encode([cache.samples[number].sentence])
    given = torch.from_numpy(tokens).to(predictor.device), torch.from_numpy(valid).to(predictor.device)
    logits, attentions = model.explain(model.encode(normalised(image)), *given)
    words = slice(1, max(2, int(valid.sum()) - 1))
    heats = [attention[0, words].sum(dim=0) for attention in attentions]
    return [heat.float().cpu().numpy() for heat in (*heats, logits[0, 0].sigmoid())]


def _heated(image: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the image in grey under a heat map of any size of the padded image, stretched to its own range."""
    height, width = image.shape[:2]
    padded = width - width % -STRIDE, height - height % -STRIDE
    raised = cv2.resize(heat, padded, interpolation=cv2.INTER_LINEAR)[:height, :width]
    low, high = float(raised.min()), float(raised.max())
    scaled = ((raised - low) / (high - low if high > low else 1.0) * 255).astype(np.uint8)
    colors = cv2.applyColorMap(scaled, cv2.COLORMAP_VIRIDIS)[:, :, ::-1]
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(np.ascontiguousarray(colors), 0.65, grey, 0.35, 0).astype(np.uint8)


def _fitted(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cv2.resize(picture, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.uint8)
