"""Drawing records: outlines that show on any ground, and sheets of many records."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from risbench.core.imagery import Pixels
from risbench.core.images import read_image
from risbench.core.masks import mask_of
from risbench.core.record import Box, Quad, Record
from risbench.core.storage import write_durably

Color = tuple[int, int, int]
MASK_COLOR: Final[Color] = (255, 214, 10)
TRUTH_COLOR: Final[Color] = (10, 235, 255)
BOX_COLOR: Final[Color] = (255, 80, 200)
GIVEN_COLOR: Final[Color] = (255, 140, 40)
_BACKGROUND: Final[Color] = (250, 250, 248)
_INK: Final[Color] = (30, 30, 30)


def focus(record: Record, extra: Sequence[Box] = (), margin: float = 0.8) -> tuple[int, int, int, int]:
    """Return a square window (left, top, right, bottom) in pixels around the record's boxes, with room around them."""
    boxes = [*(target.box for target in record.targets), *extra]
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[2] for box in boxes), max(box[3] for box in boxes)
    side = max(min(right - left, 1e6), min(bottom - top, 1e6), 24.0) * (1 + 2 * margin)
    side = min(side, float(max(record.image.width, record.image.height)))
    x, y = (left + right) / 2, (top + bottom) / 2
    x = min(max(x, side / 2), max(side / 2, record.image.width - side / 2))
    y = min(max(y, side / 2), max(side / 2, record.image.height - side / 2))
    return (round(x - side / 2), round(y - side / 2), round(x + side / 2), round(y + side / 2))


class Panel:
    """A square view of part of an image, scaled to `side` pixels, on which boxes and masks are drawn."""

    def __init__(self, pixels: Pixels, window: tuple[int, int, int, int], side: int) -> None:
        left, top, right, bottom = window
        canvas = np.full((bottom - top, right - left, 3), 40, np.uint8)
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, pixels.shape[1]), min(bottom, pixels.shape[0])
        canvas[y0 - top : y1 - top, x0 - left : x1 - left] = pixels[y0:y1, x0:x1]
        self._window, self._side, self._scale = window, side, side / max(1, right - left)
        method = cv2.INTER_AREA if self._scale < 1 else cv2.INTER_CUBIC
        self.pixels: NDArray[np.uint8] = np.asarray(cv2.resize(canvas, (side, side), interpolation=method), dtype=np.uint8)

    def mask(self, mask: NDArray[np.bool_], color: Color, *, fill: float = 0.28) -> Panel:
        """Tint the mask and draw its outline."""
        left, top, right, bottom = self._window
        part = np.zeros((bottom - top, right - left), np.uint8)
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, mask.shape[1]), min(bottom, mask.shape[0])
        part[y0 - top : y1 - top, x0 - left : x1 - left] = mask[y0:y1, x0:x1]
        large = cv2.resize(part * 255, (self._side, self._side), interpolation=cv2.INTER_LINEAR) > 127
        tinted = self.pixels.astype(np.float32)
        tinted[large] = (1 - fill) * tinted[large] + fill * np.array(color, dtype=np.float32)
        self.pixels = tinted.round().astype(np.uint8)
        contours, _ = cv2.findContours(large.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(self.pixels, contours, -1, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.drawContours(self.pixels, contours, -1, color, 1, cv2.LINE_AA)
        return self

    def box(self, box: Box | Quad, color: Color, *, dashed: bool = False, halo: bool = True) -> Panel:
        """Draw an upright or oriented box, on a dark line that shows on any ground, or with `halo` false without it."""
        if len(box) == 4 and isinstance(box[0], float):
            x_min, y_min, x_max, y_max = (float(value) for value in box)
            points = [(x_min, y_min), (x_max, y_min), (x_max, y_max), (x_min, y_max)]
        else:
            points = [(float(point[0]), float(point[1])) for point in box]
        left, top = self._window[:2]
        # Far corners are brought near: a line of a million pixels would be drawn dash by dash.
        placed = np.clip([((x - left) * self._scale, (y - top) * self._scale) for x, y in points], -4 * self._side, 5 * self._side)
        for start, end in zip(placed, np.roll(placed, -1, axis=0), strict=True):
            steps = max(1, int(np.hypot(*(end - start)) // 6)) if dashed else 1
            for index in range(0, steps, 2):
                a, b = start + (end - start) * index / steps, start + (end - start) * min(1.0, (index + 1) / steps)
                for ink, width in (((0, 0, 0), 3), (color, 1))[0 if halo else 1 :]:
                    first, second = (round(a[0]), round(a[1])), (round(b[0]), round(b[1]))
                    cv2.line(self.pixels, first, second, ink, width, cv2.LINE_AA)
        return self


def font(size: int) -> Any:
    """Return Pillow's own scalable font."""
    return ImageFont.load_default(size)


def captioned(panel: NDArray[np.uint8], lines: Sequence[str], height: int) -> Image.Image:
    """Return a panel with lines of text below it, in `height` pixels."""
    side = panel.shape[1]
    image = Image.new("RGB", (side, panel.shape[0] + height), _BACKGROUND)
    image.paste(Image.fromarray(panel))
    draw = ImageDraw.Draw(image)
    y = panel.shape[0] + 5
    for index, line in enumerate(lines):
        face = font(13 if index == 0 else 12)
        for row in wrap(draw, line, face, side - 8):
            draw.text((4, y), row, fill=_INK if index == 0 else (110, 110, 110), font=face)
            y += 16
    return image


def wrap(draw: ImageDraw.ImageDraw, text: str, face: Any, width: int) -> list[str]:
    """Return the text as lines no wider than `width` pixels."""
    rows: list[str] = []
    pieces = [word[start : start + 30] for word in text.split() for start in range(0, len(word), 30)]
    for word in pieces:
        if rows and draw.textlength(f"{rows[-1]} {word}", font=face) <= width:
            rows[-1] = f"{rows[-1]} {word}"
        else:
            rows.append(word)
    return rows


def tile(images: Sequence[Image.Image], columns: int, gap: int = 10) -> Image.Image:
    """Return equal images in a grid on a light ground."""
    width, height = images[0].size
    rows = -(-len(images) // columns)
    columns = min(columns, len(images))
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), _BACKGROUND)
    for index, image in enumerate(images):
        sheet.paste(image, (gap + index % columns * (width + gap), gap + index // columns * (height + gap)))
    return sheet


def write_sheet(
    path: Path, root: Path, items: Sequence[tuple[Record, NDArray[np.bool_] | None, str]], side: int = 240, columns: int = 6
) -> None:
    """Write a sheet of records: mask yellow, truth cyan, box pink; each with its note and sentence."""
    tiles = []
    for record, truth, note in items:
        panel = Panel(read_image(root, record.image), focus(record), side)
        if truth is not None:
            panel.mask(truth, TRUTH_COLOR, fill=0.0)
        if record.mask is not None:
            panel.mask(mask_of(record.mask), MASK_COLOR)
        for target in record.targets:
            panel.box(target.oriented_box or target.box, BOX_COLOR)
        sentence = record.expression.text if record.expression else "(no sentence)"
        tiles.append(captioned(panel.pixels, [sentence, f"{note}  {record.id}"], 76))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = io.BytesIO()
    tile(tiles, columns).save(picture, format="PNG")
    write_durably(path, picture.getvalue())
