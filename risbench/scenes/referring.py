"""Scenes to refer in: several things of one class, so that only a sentence's colour, size, position or relation tells which is meant."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from risbench.core.classes import CLASSES
from risbench.core.imagery import encode_png
from risbench.core.masks import encode_rle
from risbench.core.storage import write_durably
from risbench.scenes.canvas import Random
from risbench.scenes.themes import MAKERS, THEMES, Theme
from risbench.scenes.world import SIDE_PX, Painter, Placed, Spot

# Things that stand alone, in numbers, at any angle; their themes say on what ground.
_MANY: Final = ("airplane", "ship", "vehicle", "storage-tank", "swimming-pool", "tennis-court", "helicopter", "basketball-court")
_THEMES: Final = tuple(theme for theme in THEMES if theme.focus[0] in _MANY and theme.water in ("none", "all"))
_SIZE_PX: Final = (72.0, 140.0)
_COUNT: Final = (4, 8)
DISTRACTORS: Final = 3
# These scenes are of worlds of their own: apart from those that the built-in model was trained on and those that `write_source` writes.
_WORLDS: Final = 2_000_000


class _Referring(Painter):
    """A scene with four to seven things of one class, and up to two of others that relations can name."""

    def __init__(self, random: Random, theme: Theme) -> None:
        super().__init__(random, theme)
        self.kind = next(name for name in theme.focus if name in _MANY)
        self.first = MAKERS[self.kind](random)
        self.metre_px = float(np.exp(random.uniform(*np.log(_SIZE_PX)))) / max(self.first.size)

    def arrange(self) -> list[Spot]:
        """Return what stands where."""
        random = self.random
        spots = self.single(self.first, tries=12)
        for _ in range(int(random.integers(*_COUNT)) - 1):
            thing = MAKERS[self.kind](random)
            for _ in range(6):
                if 0.5 * _SIZE_PX[0] < max(thing.size) * self.metre_px < 1.8 * _SIZE_PX[1]:
                    break
                thing = MAKERS[self.kind](random)
            spots += self.single(thing, tries=12)
        others = [name for name in self.theme.others if name != self.kind]
        for _ in range(int(random.integers(0, 3)) if others else 0):
            thing = MAKERS[others[int(random.integers(len(others)))]](random)
            if 24 < max(thing.size) * self.metre_px < 0.5 * SIDE_PX:
                spots += self.single(thing)
        return spots


def draw_referring(seed: int, index: int) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], list[Placed]]:
    """Return the pixels (512, 512, 3) of referring scene `index` of the world `seed` and the objects that can be referred to.

    Each of these has a sentence that is true of it alone, and at least three others of its class in the image. There may be none.
    """
    pixels, objects = draw_labelled(seed, index)
    counts = Counter(item.thing.category for item in objects)
    return pixels, [item for item in objects if item.sentence is not None and counts[item.thing.category] > DISTRACTORS]


def draw_labelled(seed: int, index: int) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], Sequence[Placed]]:
    """Return the pixels (512, 512, 3) of referring scene `index` of the world `seed` and all objects in it."""
    scene = _Referring(np.random.default_rng([_WORLDS + seed, index]), _THEMES[index % len(_THEMES)]).draw()
    return scene.pixels, scene.objects


def write_referring(
    folder: Path,
    seed: int,
    scenes: int,
    *,
    side: int = SIDE_PX,
    mapped: Callable[[Callable[[int], Any], Iterable[int]], Iterator[Any]] = map,
) -> dict[str, int]:
    """Write `scenes` scenes of a world as COCO with masks and expressions: images/ and instances.json.

    `side` is that of the images in pixels; masks are taken to it by nearest neighbours. `mapped` may spread the drawing over processes.
    The file is written last and durably: where it exists the folder is whole.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, (png, found) in enumerate(mapped(_Drawing(seed, side), range(scenes))):
        if not found:
            continue
        name = f"R{seed:03d}x{index:06d}.png"
        (folder / "images" / name).write_bytes(png)
        images.append({"id": len(images) + 1, "file_name": name, "width": side, "height": side})
        for row in found:
            annotations.append({"id": len(annotations) + 1, "image_id": len(images), "iscrowd": 0, **row})
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": index, "name": name} for index, name in enumerate(CLASSES, 1)],
    }
    write_durably(folder / "instances.json", json.dumps(content).encode())
    return {"images": len(images), "sentences": len(annotations)}


class _Drawing:
    """Draws one scene in whatever process."""

    def __init__(self, seed: int, side: int) -> None:
        self.seed, self.side = seed, side

    def __call__(self, index: int) -> tuple[bytes, list[Mapping[str, Any]]]:
        pixels, objects = draw_referring(self.seed, index)
        if self.side != pixels.shape[0]:
            pixels = cv2.resize(pixels, (self.side, self.side), interpolation=cv2.INTER_AREA).astype(np.uint8)
        return encode_png(pixels), [row for item in objects if (row := self._row(item)) is not None]

    def _row(self, item: Placed) -> dict[str, Any] | None:
        mask = item.mask.astype(np.uint8)
        if self.side != mask.shape[0]:
            mask = cv2.resize(mask, (self.side, self.side), interpolation=cv2.INTER_NEAREST).astype(np.uint8)
        if not mask.any():
            return None
        size, counts = encode_rle(mask.astype(bool))
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        return {
            "category_id": CLASSES.index(item.thing.category) + 1,
            "bbox": [int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1],
            "area": int(mask.sum()),
            "segmentation": {"size": list(size), "counts": counts},
            "expression": item.sentence,
        }
