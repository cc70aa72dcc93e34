"""Whole scenes: grounds, objects that do not touch, exact masks, and sentences that are true and unique in their image."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.scenes.ground import Random, blend, finish, paint_ground, paint_road, paint_trees, polygon
from risbench.scenes.objects import KINDS, Kind, Points, Thing, draw_thing, outline, paint_thing

SIDE_PX: Final = 512
_SUPERSAMPLE: Final = 2
_THEMES: Final = {
    "airfield": ("airplane", "vehicle"),
    "marina": ("ship",),
    "depot": ("storage-tank", "vehicle"),
    "park": ("tennis-court", "basketball-court", "swimming-pool", "vehicle"),
    "town": ("vehicle", "swimming-pool"),
}


@dataclass(frozen=True)
class Placed:
    """One object in the image: its true mask (512, 512), oriented box (4, 2) and sentence (None where nothing tells it apart)."""

    thing: Thing
    mask: NDArray[np.bool_]
    corners: NDArray[np.float64]
    sentence: str | None
    is_unique: bool
    position: str | None


@dataclass(frozen=True)
class Scene:
    """A 512 x 512 image, what is on it, and its ground sample distance in metres."""

    pixels: NDArray[np.uint8]
    objects: tuple[Placed, ...]
    metres_per_pixel: float


def draw_scene(seed: int, index: int) -> Scene:
    """Return scene number `index` of the world `seed`; the same numbers give the same pixels."""
    random = np.random.default_rng([seed, index])
    theme = list(_THEMES)[index % len(_THEMES)]
    kinds = [kind for kind in KINDS if kind.category in _THEMES[theme]]
    side, metre_px = SIDE_PX * _SUPERSAMPLE, _SUPERSAMPLE / _metres_per_pixel(theme, random)
    base = {"airfield": "concrete", "marina": "water", "depot": "soil", "park": "grass", "town": "grass"}[theme]
    canvas = paint_ground(random, side, side, base)
    roads, taken = _paint_surroundings(random, canvas, theme, metre_px)
    sun = random.uniform(-1, 1, 2) * 0.8
    roofs = taken.copy()
    placed: list[tuple[Thing, Points]] = []
    for _ in range(int(random.integers(5, 12))):
        thing = draw_thing(random, _weighted(random, kinds))
        found = _find_place(random, thing, taken if thing.category == "vehicle" else taken | roads, metre_px)
        if found is None:
            continue
        turn, centre = found

        def place(points: Points, turn: Points = turn, centre: Points = centre) -> Points:
            return points @ turn.T * metre_px + centre

        points = place(outline(thing))
        paint_thing(random, canvas, thing, place, metre_px, sun)
        cv2.fillPoly(taken, [np.round(points).astype(np.int32)], 255)
        placed.append((thing, points / _SUPERSAMPLE))
    trees = 0 if base in ("water", "concrete") else int(random.integers(10, 50))
    paint_trees(random, canvas, trees, (2.0 * metre_px, 4.5 * metre_px), (taken | roads | roofs) > 0)
    pixels = finish(random, canvas, (SIDE_PX, SIDE_PX))
    return Scene(pixels, tuple(_describe(placed)), round(_SUPERSAMPLE / metre_px, 4))


def _metres_per_pixel(theme: str, random: Random) -> float:
    low, high = {"airfield": (0.30, 0.42), "marina": (0.16, 0.26), "depot": (0.22, 0.32), "park": (0.24, 0.34), "town": (0.10, 0.16)}[theme]
    return float(random.uniform(low, high))


def _weighted(random: Random, kinds: list[Kind]) -> Kind:
    return kinds[int(random.integers(len(kinds)))]


def _paint_surroundings(
    random: Random, canvas: NDArray[np.float32], theme: str, metre_px: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw what objects stand among; return where roads are, and where nothing may stand (roofs, piers), each 0 or 255."""
    side = canvas.shape[0]
    roads, blocked = np.zeros((side, side), np.uint8), np.zeros((side, side), np.uint8)
    if theme == "airfield":
        for _ in range(3):
            x = random.uniform(0, side, 2)
            direction = random.uniform(-1, 1, 2)
            direction /= np.hypot(*direction)
            normal = np.array([-direction[1], direction[0]]) * 0.25 * metre_px
            strip = np.array(
                [x - direction * side - normal, x + direction * side - normal, x + direction * side + normal, x - direction * side + normal]
            )
            blend(canvas, polygon(canvas.shape, strip), (186, 160, 60), 0.6)
        joints = (np.arange(side) % int(8 * metre_px) < 2).astype(np.uint8) * 255
        blend(canvas, np.repeat(joints[None, :], side, axis=0), (120, 120, 116), 0.25)
        blend(canvas, np.repeat(joints[:, None], side, axis=1), (120, 120, 116), 0.25)
        return roads, blocked
    if theme == "marina":
        for _ in range(2):
            y = random.uniform(0.1, 0.9) * side
            end = random.uniform(0.4, 1.0) * side
            pier = np.array([(0, y), (end, y), (end, y + 3 * metre_px), (0, y + 3 * metre_px)])
            blocked |= polygon(canvas.shape, pier)
            blend(canvas, polygon(canvas.shape, pier), (150, 140, 122))
        return roads, blocked
    for _ in range(int(random.integers(1, 3))):
        roads |= paint_road(random, canvas, random.uniform(7, 11) * metre_px)
    for _ in range({"town": 5, "depot": 2, "park": 1}[theme]):
        blocked |= _paint_roof(random, canvas, metre_px)
    return roads, blocked


def _paint_roof(random: Random, canvas: NDArray[np.float32], metre_px: float) -> NDArray[np.uint8]:
    """Draw one gabled roof with its shadow and return where it is."""
    side = canvas.shape[0]
    angle, centre = random.uniform(0, np.pi), random.uniform(0, side, 2)
    a, b = random.uniform(5, 9) * metre_px, random.uniform(3.5, 5.5) * metre_px
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = np.array([(-a, -b), (a, -b), (a, b), (-a, b)]) @ turn.T + centre
    blend(canvas, polygon(canvas.shape, corners + 3.0 * metre_px * np.array([0.5, 0.5])), (16, 18, 22), 0.4)
    tone = np.array([(150, 96, 78), (120, 118, 116), (176, 160, 138)][int(random.integers(3))]) + random.normal(0, 8, 3)
    blend(canvas, polygon(canvas.shape, corners), tone)
    ridge = np.array([(-a, -b), (a, -b), (a, 0), (-a, 0)]) @ turn.T + centre
    blend(canvas, polygon(canvas.shape, ridge), tone * 0.82)
    return polygon(canvas.shape, corners)


def _find_place(random: Random, thing: Thing, taken: NDArray[np.uint8], metre_px: float) -> tuple[Points, Points] | None:
    side = taken.shape[0]
    body = outline(thing) * metre_px
    for _ in range(40):
        angle = random.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turned = body @ turn.T
        reach = np.abs(turned).max(axis=0) + 8
        if (2 * reach > side).any():
            return None
        centre = random.uniform(reach, side - reach)
        spot = np.zeros_like(taken)
        cv2.fillPoly(spot, [np.round(turned * 1.15 + centre).astype(np.int32)], 255)
        spot = np.asarray(cv2.dilate(spot, np.ones((13, 13), np.uint8)), dtype=np.uint8)
        if not (taken & spot).any():
            return turn, centre
    return None


def _describe(placed: list[tuple[Thing, Points]]) -> list[Placed]:
    """Return the objects with the shortest sentence that is true of each and of no other object in the image."""
    positions = [_position(points) for _, points in placed]
    nouns = Counter(thing.noun for thing, _ in placed)
    sizes = _relative_sizes(placed)
    described = []
    for index, (thing, points) in enumerate(placed):
        sentence = next((text for text, test in _sentences(index, placed, positions, sizes) if sum(test) == 1), None)
        mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
        cv2.fillPoly(mask, [np.round((points - 0.5) * 16).astype(np.int32)], 1, shift=4)
        corners = np.asarray(cv2.boxPoints(cv2.minAreaRect(points.astype(np.float32))), dtype=np.float64)
        described.append(Placed(thing, mask > 0, corners, sentence, nouns[thing.noun] == 1, positions[index]))
    return described


def _position(points: Points) -> str | None:
    """Return the producer's word for where a box lies: corners by thirds, sides by .3 and .7, None in the middle."""
    low, high = points.min(axis=0) / SIDE_PX, points.max(axis=0) / SIDE_PX
    vertical = "top" if high[1] < 0.33 else "bottom" if low[1] > 0.66 else None
    horizontal = "left" if high[0] < 0.33 else "right" if low[0] > 0.66 else None
    if vertical and horizontal:
        return f"{vertical}-{horizontal}"
    centre = (low + high) / 2
    if centre[0] < 0.3 or centre[0] > 0.7:
        return "left" if centre[0] < 0.3 else "right"
    if centre[1] < 0.3 or centre[1] > 0.7:
        return "top" if centre[1] < 0.3 else "bottom"
    return None


def _lies_at(position: str | None, word: str | None) -> bool:
    """Return whether a reader may say `word` of an object there: what is at the top-left is at the left, too."""
    return position == word if word is None or position is None else word in (position, *position.split("-"))


def _relative_sizes(placed: list[tuple[Thing, Points]]) -> list[str | None]:
    """Return largest or smallest where an object is 1.44 x or .64 x every other's area of its noun."""
    words: list[str | None] = []
    for index, (thing, _) in enumerate(placed):
        others = [other.length * other.width for place, (other, _) in enumerate(placed) if place != index and other.noun == thing.noun]
        area = thing.length * thing.width
        words.append(
            None if not others else "largest" if area >= 1.44 * max(others) else "smallest" if area <= 0.64 * min(others) else None
        )
    return words


def _sentences(
    index: int, placed: list[tuple[Thing, Points]], positions: list[str | None], sizes: list[str | None]
) -> list[tuple[str, list[bool]]]:
    """Return candidate sentences for an object with, for every object of the image, whether it fits too."""
    thing, position = placed[index][0], positions[index]
    same = [other.noun == thing.noun for other, _ in placed]
    color = [fits and other.color == thing.color for fits, (other, _) in zip(same, placed, strict=True)]
    at = [fits and _lies_at(positions[place], position) for place, fits in enumerate(same)]
    both = [fits and _lies_at(positions[place], position) for place, fits in enumerate(color)]
    where = f" at the {position} of the image" if position else " near the center of the image"
    candidates = (
        [(f"The {thing.color} {thing.noun}", color)] if sum(same) > 1 else [(f"The only {thing.noun}, which is {thing.color}", same)]
    )
    if sizes[index]:
        candidates.append(
            (f"The {sizes[index]} {thing.noun} in the image", [fits and sizes[place] == sizes[index] for place, fits in enumerate(same)])
        )
    candidates += [(f"The {thing.noun}{where}", at), (f"The {thing.color} {thing.noun}{where}", both)]
    for name, axis, sign in (("top-most", 1, 1), ("bottom-most", 1, -1), ("left-most", 0, 1), ("right-most", 0, -1)):
        reach = [sign * (points.mean(axis=0)[axis]) for _, points in placed]
        first = [
            fits and all(reach[place] + 30 <= reach[other] for other, also in enumerate(same) if also and other != place)
            for place, fits in enumerate(same)
        ]
        if first[index]:
            candidates.append((f"The {name} {thing.noun}", first))
    return candidates
