"""How well images of the same ground are found when their names say nothing: recall by shared part, other pairs, milliseconds.

    python experiments/ground_shown_twice.py [--side 512] [--among 0]

Of every real scene (NWPU VHR-10's images, DOTA's) two windows at random places, each compressed to JPEG on its own at quality 40, 60,
75 or 90. Pairs that are found and were not cut from one file are printed: NWPU VHR-10 holds several images of one place. `--among N`
hides them among the corners of N more windows, of the same files turned and scaled.
"""

from __future__ import annotations

import argparse
import random
import time

import cv2
import numpy as np
from common import REFER, SHARED, need_data

from risbench.core.imagery import Pixels
from risbench.core.overlap import Corners, alike, corners_of, overlap_of


def compressed(pixels: Pixels, quality: int) -> Pixels:
    """Return the image after a JPEG encoder."""
    done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return np.asarray(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), dtype=np.uint8)


def strangers(count: int) -> list[Corners]:
    """Return the corners of windows of the real files, turned by right angles, mirrored and scaled."""
    made: list[Corners] = []
    for scale in (0.6, 0.8, 1.25, 1.5, 1.8, 1.0):
        for path in sorted((REFER / "images").glob("*.jpg")):
            scene = cv2.resize(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), None, fx=scale, fy=scale)
            for turn in range(1 if scale == 1 else 0, 8):
                turned = np.ascontiguousarray(np.rot90(scene, turn % 4) if turn < 4 else np.rot90(scene, turn % 4)[:, ::-1])
                for y in range(0, max(1, turned.shape[0] - 400), 512):
                    for x in range(0, max(1, turned.shape[1] - 400), 512):
                        if len(made) == count:
                            return made
                        made.append(corners_of(turned[y : y + 512, x : x + 512]))
    return made


def main(side: int, among: int) -> None:
    draw = random.Random(0)
    images: list[Pixels] = []
    names: list[str] = []
    true: dict[tuple[int, int], tuple[float, tuple[int, int]]] = {}
    for path in sorted((REFER / "images").glob("*.jpg")) + sorted((SHARED / "dota" / "images").glob("*.png")):
        scene = cv2.imread(str(path))
        height, width = scene.shape[:2]
        size = min(side, height, width)
        corners = [(draw.randint(0, width - size), draw.randint(0, height - size)) for _ in range(2)]
        for x, y in corners:
            images.append(compressed(scene[y : y + size, x : x + size], draw.choice((40, 60, 75, 90))))
            names.append(path.stem)
        shift = (corners[1][0] - corners[0][0], corners[1][1] - corners[0][1])
        shared = max(0, size - abs(shift[0])) * max(0, size - abs(shift[1]))
        if shared:
            true[len(images) - 2, len(images) - 1] = (shared / size**2, shift)
    began = time.monotonic()
    found = [corners_of(image) for image in images]
    each = (time.monotonic() - began) / len(images)
    found += strangers(among)
    began = time.monotonic()
    pairs = alike(found, [f"{min(index, len(images))}" for index in range(len(found))])
    looked = time.monotonic() - began
    pairs = [pair for pair in pairs if max(pair) < len(images)]
    began = time.monotonic()
    hits = {pair: hit for pair in pairs if (hit := overlap_of(pair, found, images.__getitem__)) is not None}
    proved = time.monotonic() - began
    others = f" among {len(found) - len(images):,} others" if among else ""
    print(f"{len(images):,} windows of {side} px at most{others}, {len(true)} pairs share ground by construction")
    for low, high in ((0, 0.05), (0.05, 0.1), (0.1, 0.2), (0.2, 0.4), (0.4, 1.01)):
        of = [pair for pair, (share, _) in true.items() if low <= share < high]
        if of:
            print(f"  shared part {low:.2f} to {min(high, 1):.2f}: {sum(pair in hits for pair in of)} of {len(of)} found")
    wrong = sum(bool(np.abs(np.subtract(hits[pair].shift, shift)).max() > 1) for pair, (_, shift) in true.items() if pair in hits)
    print(f"  found at a wrong shift: {wrong}")
    across = [pair for pair in hits if pair not in true]
    print(f"  found across files: {len(across)}")
    for pair in across:
        print(f"    {names[pair[0]]} and {names[pair[1]]}: share {hits[pair].share:.3f}, correlation {hits[pair].correlation:.4f}")
    print(f"corners {1000 * each:.1f} ms an image; alike {looked:.2f} s for all; proof {1000 * proved / max(1, len(pairs)):.1f} ms a pair")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--among", type=int, default=0)
    given = parser.parse_args()
    need_data()
    main(given.side, given.among)
