"""How fast scenes are drawn: images of 512 x 512 a second with their masks and sentences, one process a core.

    python experiments/scenes_rate.py [SHEET.png]

With a name, a hundred of them are laid on a sheet to look at.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import cv2
import numpy as np

from risbench.scenes.world import draw_scene

SCENES = 420


def draw(first: int) -> tuple[int, int, int]:
    """Draw every second scene from `first` on; return scenes, objects, sentences."""
    cv2.setNumThreads(1)
    drawn = [draw_scene(1, index) for index in range(first, SCENES, 2)]
    return len(drawn), sum(len(item.objects) for item in drawn), sum(one.sentence is not None for item in drawn for one in item.objects)


if __name__ == "__main__":
    with ProcessPoolExecutor(2, initializer=draw_scene, initargs=(0, 0)) as pool:
        list(pool.map(draw, (SCENES - 40, SCENES - 39)))  # both processes started, textures made
        for _ in range(5):
            began = time.monotonic()
            counts = np.array(list(pool.map(draw, (0, 1)))).sum(axis=0)
            seconds = time.monotonic() - began
            made = f"{counts[0]} scenes, {counts[1]} objects, {counts[2]} sentences"
            print(f"{made} in {seconds:.2f} s on 2 of {os.cpu_count()} cores: {counts[0] / seconds:.0f} images/s")
    if len(sys.argv) > 1:
        tiles = [cv2.resize(draw_scene(2, index).pixels, (200, 200), interpolation=cv2.INTER_AREA) for index in range(100)]
        sheet = np.vstack([np.hstack(tiles[row : row + 10]) for row in range(0, 100, 10)])
        cv2.imwrite(sys.argv[1], sheet[..., ::-1])
