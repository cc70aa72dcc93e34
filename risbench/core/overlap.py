"""Images that show the same ground: corners with binary codes, hashed in bands, voted by shift, and proved on the pixels.

Windows of one scene that overlap hold the same pixels at another place, whatever they are called and however often they were
compressed again. A corner (Shi and Tomasi 1994) is described by which of 192 pairs of smoothed pixels around it is brighter (the
test of BRIEF, Calonder et al. 2010). Corners of which one of six bands of 48 bits is equal, and not in many images, are candidates;
candidates of two images that agree on a shift are votes; the pair counts when the grey values of what they share are correlated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.core.imagery import Pixels
from risbench.core.record import Placement

CORNERS: Final = 256  # of 512 x 512 pixels, in proportion of others, at most four times as many
BANDS: Final = 6
VOTES_WANTED: Final = 3
CORRELATION_WANTED: Final = 0.9
SHARED_PX_FROM: Final = 32 * 32
_REACH_PX: Final = 12
_MOST_ALIKE: Final = 8
_MOST_CHAINED: Final = 64
_MOST_TRIED: Final = 3
_MOST_COUNTED: Final = 32
_MOST_ENLARGED: Final = 4
CORNER = np.dtype([("x", "<i2"), ("y", "<i2"), ("code", "<u4", (BANDS,))])
Corners = NDArray[np.void]


@dataclass(frozen=True)
class Overlap:
    """Two images that show the same ground: pixel (x, y) of the second is pixel (x + shift[0], y + shift[1]) of the first.

    `share` is the part of the smaller image that both show, `correlation` that of the grey values there.
    """

    first: int
    second: int
    shift: tuple[int, int]
    share: float
    correlation: float


def _pairs_of_points() -> NDArray[np.int64]:
    """Return (192, 2, 2) offsets, fixed for ever: they decide what is stored."""
    draw = np.random.default_rng(20241008)
    return np.clip(np.rint(draw.normal(0, _REACH_PX / 2.5, (32 * BANDS, 2, 2))), -_REACH_PX, _REACH_PX).astype(np.int64)


_POINTS: Final = _pairs_of_points()


def at_source_scale(pixels: Pixels, placement: Placement) -> Pixels:
    """Return what an image (height, width, 3) shows of its source, in the source's own pixels, so that what two show can be compared.

    Scenes of several sizes that were scaled to 512 differ in scale; more than four-fold is left as it is.
    """
    scale, _, left, _, _, top = placement.affine
    width = min(pixels.shape[1], max(1, round((placement.source_width - left) / scale)))
    height = min(pixels.shape[0], max(1, round((placement.source_height - top) / scale)))
    shown = pixels[:height, :width]
    if scale == 1 or not 1 / _MOST_ENLARGED <= scale <= _MOST_ENLARGED:
        return shown
    return np.asarray(cv2.resize(shown, (max(1, round(width * scale)), max(1, round(height * scale)))), dtype=np.uint8)


def corners_of(pixels: Pixels) -> Corners:
    """Return the codes of an image's strongest corners; none where it has no structure or is hardly larger than a code."""
    height, width = pixels.shape[:2]
    if min(height, width) <= 2 * _REACH_PX + 2:
        return np.zeros(0, CORNER)
    grey = _smoothed(pixels, 2.0)
    inside = np.zeros_like(grey)
    inside[_REACH_PX:-_REACH_PX, _REACH_PX:-_REACH_PX] = 255
    most = round(CORNERS * min(4.0, max(1.0, height * width / 512**2)))
    found = cv2.goodFeaturesToTrack(grey, most, 0.005, 6, mask=inside, blockSize=5)
    if found is None:
        return np.zeros(0, CORNER)
    places = found[:, 0].astype(np.int64)
    values = grey[places[:, None, None, 1] + _POINTS[None, :, :, 1], places[:, None, None, 0] + _POINTS[None, :, :, 0]]
    bits = values[:, :, 0] > values[:, :, 1]
    corners = np.zeros(len(places), CORNER)
    corners["x"], corners["y"] = places[:, 0], places[:, 1]
    corners["code"] = np.packbits(bits, axis=1).reshape(len(places), BANDS, 4).copy().view("<u4")[..., 0]
    return corners


def alike(corners: Sequence[Corners], scenes: Sequence[str], advance: Callable[[int], None] = lambda _: None) -> list[tuple[int, int]]:
    """Return the pairs of images (sorted) of which three corners or more share a band of their codes and agree on a shift.

    `scenes` names the scene of every image; pairs of one scene are not looked for, as they lie in one split anyway. `advance` is called
    with 1 after each of the six bands.
    """
    names = {scene: number for number, scene in enumerate(sorted(set(scenes)))}
    scene = np.array([names[name] for name in scenes], np.int32)
    image = np.repeat(np.arange(len(corners), dtype=np.int32), [len(found) for found in corners])
    lefts, rights = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    for band in range(BANDS):
        for left, right in _same_code(corners, band):
            apart = scene[image[left]] != scene[image[right]]
            lefts.append(left[apart])
            rights.append(right[apart])
        advance(1)
    left, right = np.concatenate(lefts), np.concatenate(rights)
    del lefts, rights  # tens of millions where there are tens of thousands of images
    pair = image[left].astype(np.int64) * len(corners) + image[right]  # corners are in order of images: left is of the lower one
    # Most pairs of images have one corner alike, by chance.
    wanted = np.append(_repeated(np.sort(pair), VOTES_WANTED), -1)
    several = wanted[np.searchsorted(wanted[:-1], pair)] == pair
    del pair
    matches = np.unique(np.stack([left[several], right[several]], axis=1), axis=0)
    left, right = matches[:, 0], matches[:, 1]
    pairs, which = np.unique(image[left].astype(np.int64) * len(corners) + image[right], return_inverse=True)
    x, y = (np.concatenate([*(found[axis] for found in corners), np.zeros(0, np.int16)]).astype(np.int64) for axis in ("x", "y"))
    agreed = np.zeros(len(pairs), bool)
    for phase in (0, 2):  # two grids, so that votes of one shift are not parted by a line
        cell = (((x[left] - x[right] + phase) // 4 + 2**14) << 15) + (y[left] - y[right] + phase) // 4 + 2**14
        votes = _repeated(np.sort((which.astype(np.int64) << 30) + cell), VOTES_WANTED)
        agreed[votes >> 30] = True
    return [(int(first), int(second)) for first, second in zip(*np.divmod(pairs[agreed], max(1, len(corners))), strict=True)]


def _same_code(corners: Sequence[Corners], band: int) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """Yield corners (lower index, higher index) that agree in one band and the half of the next."""
    low, high = (np.concatenate([*(found["code"][:, of % BANDS] for found in corners), np.zeros(0, "<u4")]) for of in (band, band + 1))
    code = (low.astype(np.uint64) << np.uint64(16)) | (high >> np.uint32(16))
    order = np.argsort(code, kind="stable").astype(np.int32)
    code = code[order]
    starts = np.flatnonzero(np.concatenate([[True], code[1:] != code[:-1]])) if len(code) else np.zeros(0, np.int64)
    sizes = np.diff(np.append(starts, len(code)))
    sizes = np.repeat(sizes, sizes)
    for step in range(1, _MOST_ALIKE):
        # a code that more corners share is of ground that many windows show, or of none in particular: a chain is enough to group them
        same = (code[step:] == code[:-step]) & (sizes[step:] <= (_MOST_CHAINED if step == 1 else _MOST_ALIKE))
        yield order[:-step][same], order[step:][same]


def _repeated(ordered: NDArray[np.int64], least: int) -> NDArray[np.int64]:
    """Return the values that a sorted array has `least` times or more, once each."""
    late = ordered[least - 1 :]
    return np.asarray(np.unique(late[late == ordered[: len(late)]]), dtype=np.int64)


def overlap_of(pair: tuple[int, int], corners: Sequence[Corners], read: Callable[[int], Pixels]) -> Overlap | None:
    """Return how two images overlap, or None where they do not: no shift, or other grey values there.

    `read` returns the image (height, width, 3) of an index; it is asked only where the corners agree on a shift.
    """
    first, second = pair
    shifts = _shifts(corners[first], corners[second])
    if not shifts:
        return None
    one, other = (_smoothed(read(index), 1.0) for index in pair)
    proofs = [proof for shift in shifts if (proof := _proof(first, second, one, other, shift)) is not None]
    return max(proofs, key=lambda proof: (proof.correlation, proof.share)) if proofs else None


def _smoothed(pixels: Pixels, sigma: float) -> NDArray[np.uint8]:
    return np.asarray(cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (0, 0), sigma), dtype=np.uint8)


def _shifts(one: Corners, other: Corners) -> list[tuple[int, int]]:
    """Return the shifts that three corners or more agree on, most votes first, at most three."""
    bits = [corners["code"].astype(np.uint32) for corners in (one, other)]
    distance = np.bitwise_count(bits[0][:, None, :] ^ bits[1][None, :, :]).sum(axis=2, dtype=np.uint8)
    left, right = np.nonzero(distance <= 32 * BANDS // 5)
    steps = np.stack([one["x"][left].astype(np.int64) - other["x"][right], one["y"][left].astype(np.int64) - other["y"][right]], axis=1)
    kinds, counts = np.unique(steps, axis=0, return_counts=True)
    found: list[tuple[int, int, int]] = []
    for x, y in kinds[np.argsort(-counts, kind="stable")[:_MOST_COUNTED]].tolist():
        near = (np.abs(steps - (x, y)) <= 1).all(axis=1)
        votes = min(len(np.unique(left[near])), len(np.unique(right[near])))
        if votes >= VOTES_WANTED:
            found.append((-votes, x, y))
    return [(x, y) for _, x, y in sorted(found)[:_MOST_TRIED]]


def _proof(first: int, second: int, one: NDArray[np.uint8], other: NDArray[np.uint8], shift: tuple[int, int]) -> Overlap | None:
    """Return the overlap at a shift, or at one beside it, where the grey values agree."""
    best: Overlap | None = None
    for x in range(shift[0] - 1, shift[0] + 2):
        for y in range(shift[1] - 1, shift[1] + 2):
            height = min(one.shape[0], other.shape[0] + y) - max(0, y)
            width = min(one.shape[1], other.shape[1] + x) - max(0, x)
            if min(height, width) <= 0 or height * width < SHARED_PX_FROM:
                continue
            here = one[max(0, y) : max(0, y) + height, max(0, x) : max(0, x) + width].astype(np.float32)
            there = other[max(0, -y) : max(0, -y) + height, max(0, -x) : max(0, -x) + width].astype(np.float32)
            here, there = here - here.mean(), there - there.mean()
            norm = float(np.linalg.norm(here)) * float(np.linalg.norm(there))
            correlation = float(np.vdot(here, there)) / norm if norm > 0 else 0.0
            if correlation >= CORRELATION_WANTED and (best is None or correlation > best.correlation):
                share = height * width / min(one.size, other.size)
                best = Overlap(first, second, (x, y), round(share, 4), round(correlation, 4))
    return best
