"""Draw the pictures of annotator_ui/guidelines.md from generated scenes: python docs/make_guidelines.py"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.core.draw import BOX_COLOR, MASK_COLOR, Panel, captioned, tile
from risbench.scenes.source import WORLDS
from risbench.scenes.world import Placed, Scene, draw_scene

FOLDER = Path(__file__).parents[1] / "annotator_ui" / "pictures"
SIDE = 300
Mask = NDArray[np.bool_]


def find(category: str, least: int = 1500, most: int = 30_000) -> tuple[Scene, Placed]:
    """Return the first scene that shows a clear object of a class."""
    for index in range(400):
        scene = draw_scene(WORLDS + 31, index)
        for item in scene.objects:
            rows, columns = np.nonzero(item.mask)
            inside = rows.size and rows.min() > 40 and columns.min() > 40 and rows.max() < 470 and columns.max() < 470
            if item.thing.category == category and least <= item.mask.sum() <= most and inside:
                return scene, item
    raise SystemExit(f"no clear {category} in 400 scenes")


def panel(scene: Scene, item: Placed, mask: Mask, lines: list[str], move: int = 0) -> object:
    """Return one captioned picture: the box given, and a mask."""
    rows, columns = np.nonzero(item.mask)
    box = (columns.min() - 3.0 + move, rows.min() - 3.0, columns.max() + 4.0 + move, rows.max() + 4.0)
    side = round(max(box[2] - box[0], box[3] - box[1]) * 1.5)
    x, y = round((box[0] + box[2]) / 2), round((box[1] + box[3]) / 2)
    view = Panel(scene.pixels, (x - side // 2, y - side // 2, x + side // 2, y + side // 2), SIDE)
    view.mask(mask, MASK_COLOR).box(tuple(map(float, box)), BOX_COLOR)  # type: ignore[arg-type]
    return captioned(view.pixels, lines, 74)


def shape(mask: Mask, way: int, pixels: int) -> Mask:
    """Return a mask grown or shrunk by so many pixels."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1, 2 * pixels + 1))
    return np.asarray(cv2.morphologyEx(mask.astype(np.uint8), way, kernel)).astype(bool)


def main() -> None:
    """Write mask.png and sentence.png."""
    FOLDER.mkdir(exist_ok=True)
    plane, ship, tank = find("airplane"), find("ship"), find("storage-tank", 700)
    cut = plane[1].mask.copy()
    cut[: int(np.median(np.nonzero(cut)[0]))] = False
    moved = np.roll(ship[1].mask, (9, 12), axis=(0, 1))
    shadow = tank[1].mask | np.roll(tank[1].mask, (10, 14), axis=(0, 1))
    tiles = [
        panel(*plane, plane[1].mask, ["accept: every edge is right", "to about two pixels; small steps do not matter"]),
        panel(*plane, shape(plane[1].mask, cv2.MORPH_DILATE, 6), ["fix: too large", "erase what is ground"]),
        panel(*plane, cut, ["fix: a part is missing", "draw it with the brush, or as an outline"]),
        panel(*ship, moved, ["fix: beside the object", "delete the mask and draw a new one"]),
        panel(*tank, shadow, ["fix: the shadow is not the object", "nor is water, smoke or a wake"]),
        panel(*ship, np.zeros_like(ship[1].mask), ["reject: nothing here can be what is meant", "the box lies on empty ground"], move=-105),
    ]
    tile(tiles, columns=3).save(FOLDER / "mask.png")  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
