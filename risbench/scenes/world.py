"""Whole scenes: grounds, objects at any angle and scale, exact masks, and sentences that are true and unique in their image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.scenes.canvas import (
    SIDE_PX,
    Bytes,
    Canvas,
    Outlines,
    Points,
    Random,
    exact_mask,
    noise,
    outlines,
    ribbon,
    turned,
    window_around,
)
from risbench.scenes.sensor import expose
from risbench.scenes.sentences import Seen, describe, position_of
from risbench.scenes.surroundings import (
    cast_trees,
    curve,
    half_plane,
    mix_ground,
    paint_ground,
    paint_oddments,
    paint_parcels,
    paint_road,
    paint_trees,
)
from risbench.scenes.themes import MAKERS, THEMES, Theme
from risbench.scenes.thing import Layer, Thing, nearest_color
from risbench.scenes.works import building

__all__ = ["SIDE_PX", "Placed", "Scene", "draw_scene"]

_COARSE: Final = 4
_GSD: Final = (0.1, 30.0)
_FOCUS_PX: Final = (18.0, 360.0)
_MIN_SIDE_PX: Final = 9.0
_MIN_AREA_PX: Final = 48
_FEWEST_PX: Final = 12
_SURELY_PX: Final = 400.0
_MIN_VISIBLE: Final = 0.4


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
    """A 512 x 512 image, what is on it, and its ground sample distance in metres.

    `clutter` is of none of the 26 classes. Without `true_color` (grey, infrared) no sentence names a colour.
    """

    pixels: NDArray[np.uint8]
    objects: tuple[Placed, ...]
    metres_per_pixel: float
    clutter: tuple[Placed, ...]
    true_color: bool


@dataclass(frozen=True)
class Spot:
    """A thing and where it stands."""

    thing: Thing
    angle: float
    centre: Points

    @cached_property
    def _turn(self) -> Points:
        return turned(np.eye(2), self.angle)

    def place(self, points: Points, metre_px: float) -> Points:
        placed: Points = points @ (self._turn * metre_px) + self.centre
        return placed

    def hull(self, metre_px: float) -> Points:
        return self.place(self.thing.hull, metre_px)

    def outline(self, metre_px: float) -> list[Points]:
        return [self.place(part, metre_px) for part in self.thing.outline]

    def shape(self, parts: Sequence[Points], metre_px: float) -> Outlines:
        """Return parts of the thing as they lie on the canvas."""
        return outlines(parts, self._turn * metre_px, self.centre)


def draw_scene(seed: int, index: int) -> Scene:
    """Return scene number `index` of the world `seed`; the same numbers give the same pixels."""
    random = np.random.default_rng([seed, index])
    theme = THEMES[index % len(THEMES)]
    return Painter(random, theme).draw()


def _tier(thing: Thing) -> int:
    """Return 0 for what lies flat, 1 for what moves about on the ground, 2 for what is built upon it."""
    if thing.height == 0:
        return 0
    return 1 if thing.category in ("vehicle", "ship", "airplane", "helicopter") else 2


class Painter:
    """One scene while it is made. What stands in it, `arrange` says, which other kinds of scenes override."""

    def __init__(self, random: Random, theme: Theme) -> None:
        self.random, self.theme = random, theme
        self.taken: NDArray[np.uint8] = np.zeros((SIDE_PX // _COARSE, SIDE_PX // _COARSE), np.uint8)
        focus = MAKERS[theme.focus[int(random.integers(len(theme.focus)))]](random)
        target = float(np.exp(random.uniform(*np.log(_FOCUS_PX))))
        gsd = float(np.clip(max(focus.size) / target, *_GSD))
        self.metre_px = 1 / gsd
        self.first = focus
        self.grain: Bytes = noise(random, SIDE_PX, SIDE_PX, (1, 2)[int(random.integers(2))])
        direction = random.uniform(0, 2 * np.pi)
        self.sun = np.array([np.cos(direction), np.sin(direction)]) * random.uniform(0.25, 1.5)
        self.main_angle = random.uniform(0, np.pi)
        self.canvas = Canvas(paint_ground(random, theme.grounds[int(random.integers(len(theme.grounds)))]))

    def draw(self) -> Scene:
        random, theme, canvas = self.random, self.theme, self.canvas
        for _ in range((0, 0, 0, 1, 1, 1, 2)[int(random.integers(7))] if theme.water != "all" else 0):
            mix_ground(random, canvas, theme.grounds[int(random.integers(len(theme.grounds)))])
        if theme.water != "all":
            paint_parcels(random, canvas, theme.grounds, self.main_angle, int(random.integers(0, 9)), self.metre_px)
        spots = self.arrange()
        clutter = self._buildings()
        if theme.water == "coast":
            self._coast()
        roads = [
            curve(random, random.choice([0.0, 0.0, 0.03, 0.1])) for _ in range(int(random.integers(theme.roads[0], theme.roads[1] + 1)))
        ]
        if theme.water == "river":
            self._river(spots)
        for line in roads:
            paint_road(random, canvas, line, float(np.clip(random.uniform(4, 18) * self.metre_px, 2, 110)))
        self._paint(spots, clutter)
        pixels, look = expose(random, canvas.develop(self.grain))
        seen = [self._see(spot) for spot in spots]
        windows = [window_around(item.corners) for item in seen]
        masks = [item.mask.view(np.uint8)[window] for item, window in zip(seen, windows, strict=True)]
        colors = [nearest_color(np.asarray(cv2.mean(pixels[window], mask))[:3]) for window, mask in zip(windows, masks, strict=True)]
        known = [Seen(item.thing, item.corners, item.mask, color) for item, color in zip(seen, colors, strict=True)]
        told = describe(known, colors=look.true_color)
        objects = tuple(replace(item, sentence=text, is_unique=alone) for item, (text, alone) in zip(seen, told, strict=True))
        return Scene(pixels, objects, round(1 / self.metre_px, 4), tuple(self._see(spot) for spot in clutter), look.true_color)

    # -- where things stand

    def arrange(self) -> list[Spot]:
        """Return what stands where: the first thing, then singles and rows of what the theme has."""
        random, theme = self.random, self.theme
        spots = self.single(self.first, tries=12)
        for _ in range(int(random.integers(3, 9))):
            thing = MAKERS[theme.others[int(random.integers(len(theme.others)))]](random)
            sides = np.array(thing.size) * self.metre_px
            if max(sides) < _MIN_SIDE_PX or min(sides) < 3 or max(sides) > SIDE_PX * 0.9:
                continue
            spots += self._row(thing) if random.random() < theme.rows else self.single(thing)
        return spots

    def _angle(self) -> float:
        random = self.random
        if random.random() < 0.5:
            return float(self.main_angle + random.integers(4) * np.pi / 2)
        return float(random.uniform(0, 2 * np.pi))

    def single(self, thing: Thing, tries: int = 5) -> list[Spot]:
        """Return a thing in a free place, or nothing where none is found."""
        for _ in range(tries):
            margin = 0.0 if self.random.random() < 0.3 else 0.12
            spot = Spot(thing, self._angle(), self.random.uniform(margin, 1 - margin, 2) * SIDE_PX)
            if self._fits(spot):
                self._take([spot])
                return [spot]
        return []

    def _row(self, thing: Thing) -> list[Spot]:
        """Return a row or block of like things, side by side, with or without a gap."""
        random = self.random
        angle, centre = self._angle(), random.uniform(0.1, 0.9, 2) * SIDE_PX
        length, width = (side * self.metre_px for side in thing.size)
        across = width * random.uniform(1.0, 1.06) if random.random() < 0.4 else width * random.uniform(1.06, 1.7)
        along = length * random.uniform(1.02, 1.5)
        count, deep = int(random.integers(2, 9)), int(random.choice([1, 1, 2, 3]))
        spots = []
        for row in range(deep):
            for column in range(count):
                if random.random() < 0.12:
                    continue
                offset = turned(np.array([[(row - (deep - 1) / 2) * along, (column - (count - 1) / 2) * across]]), angle)[0]
                one = thing if (row == column == 0 or thing.category.endswith("court")) else self._like(thing)
                flip = np.pi if thing.category == "vehicle" and random.random() < 0.3 else 0.0
                spot = Spot(one, angle + flip, centre + offset)
                if self._fits(spot):
                    spots.append(spot)
        self._take(spots)
        return spots

    def _like(self, thing: Thing) -> Thing:
        """Return another thing of the same kind that fits into the same place of a row."""
        if thing.category in ("vehicle", "ship", "storage-tank"):
            other = MAKERS[thing.category](self.random)
            if all(0.7 * size < mine < 1.02 * size for mine, size in zip(other.size, thing.size, strict=True)):
                return other
        return thing

    def _coarse(self, spots: list[Spot], grow: float) -> NDArray[np.uint8]:
        drawn = np.zeros_like(self.taken)
        for spot in spots:
            hull = spot.hull(self.metre_px)
            middle = hull.mean(axis=0)
            cv2.fillConvexPoly(drawn, np.rint((hull - middle) * (1 + grow) / _COARSE + middle / _COARSE).astype(np.int32), 1)
        return drawn

    def _fits(self, spot: Spot) -> bool:
        """Return whether a spot is free, and enough of the thing lies in the image."""
        here = self._coarse([spot], -0.06)
        if not here.any() or (here & self.taken).any():
            return False
        points = spot.hull(self.metre_px)
        if (points > 2).all() and (points < SIDE_PX - 2).all():
            return self._shows(spot, cv2.contourArea(points.astype(np.float32)))
        area = cv2.contourArea(points.astype(np.float32))
        seen = float(here.sum()) * _COARSE**2
        return seen > max(_MIN_VISIBLE * area, _MIN_AREA_PX) and self._shows(spot, seen)

    def _shows(self, spot: Spot, hull_area: float) -> bool:
        """Return whether a spot's mask holds pixels enough; of a hull of 400 px even thin wings and blades do."""
        return hull_area > _SURELY_PX or int(exact_mask(spot.outline(self.metre_px)).sum()) >= _FEWEST_PX

    def _take(self, spots: list[Spot]) -> None:
        self.taken |= self._coarse(spots, 0.06)

    def _buildings(self) -> list[Spot]:
        random = self.random
        spots: list[Spot] = []
        for _ in range(int(random.integers(self.theme.buildings[0], self.theme.buildings[1] + 1))):
            thing = building(random)
            if 6 < max(thing.size) * self.metre_px < SIDE_PX * 0.7:
                spots += self.single(thing, tries=2)
        return spots

    # -- paint

    def _coast(self) -> None:
        random = self.random
        other = paint_ground(random, "concrete" if random.random() < 0.5 else "soil")
        land = half_plane(random, noise(random, SIDE_PX, SIDE_PX, 64), random.choice([0.0, 10.0]), (0.55, 0.9))
        self.canvas.lay((slice(0, SIDE_PX), slice(0, SIDE_PX)), land, other)

    def _river(self, spots: list[Spot]) -> None:
        random = self.random
        bridges = [spot for spot in spots if spot.thing.category == "bridge"]
        for spot in bridges:
            half = spot.thing.size[0] / 2 * self.metre_px * random.uniform(0.8, 1.0)
            line = curve(random, random.uniform(0, 0.05), spot.centre, spot.angle + np.pi / 2)
            color = np.array([(44, 70, 80), (62, 88, 74), (26, 38, 46), (112, 100, 78)][int(random.integers(4))]) + random.normal(0, 10, 3)
            if random.random() < 0.5:
                self.canvas.fill(outlines([ribbon(line, half * 1.08)]), color + 50, 0.6, 6)
            self.canvas.fill(outlines([ribbon(line, half)]), color, 1.0, 2)

    def _paint(self, spots: list[Spot], clutter: list[Spot]) -> None:
        random, canvas, every = self.random, self.canvas, [*spots, *clutter]
        if self.theme.water != "all" and random.random() < 0.7:
            paint_oddments(random, canvas, self.main_angle, int(random.integers(5, 60)))
        for spot in every:
            self._layers(spot, spot.thing.skirt)
        tiers = {tier: [spot for spot in every if _tier(spot.thing) == tier] for tier in range(3)}
        for spot in tiers[0]:
            self._layers(spot, spot.thing.layers)
        places, radii, reach = self._trees()
        strength, softness, sunny = random.uniform(0.25, 0.75), random.uniform(0.4, 1.0), random.random() < 0.85
        for tier in (1, 2):
            # what is tall shades what is low, and nothing shades what is tall
            if sunny:
                for spot in tiers[tier]:
                    top = self.sun * spot.thing.height * self.metre_px
                    canvas.cast(spot.shape(spot.thing.outline, self.metre_px), top, solid=spot.thing.solid)
                if tier == 2:
                    cast_trees(canvas, places, radii, reach)
                canvas.apply_shadow(strength, softness)
            for spot in tiers[tier]:
                self._layers(spot, spot.thing.layers)
        green = np.array([(58, 82, 44), (78, 92, 52), (44, 62, 40), (112, 96, 60)][int(random.integers(4))]) + random.normal(0, 8, 3)
        paint_trees(random, canvas, places, radii, green, self.sun)

    def _layers(self, spot: Spot, layers: Sequence[Layer]) -> None:
        shown = [layer for layer in layers if layer.points and layer.opacity > 0.03]
        if not shown:
            return
        whole = spot.shape([part for layer in shown for part in layer.points], self.metre_px)
        first = start = 0
        for layer in shown:
            parts = whole.parts[first : first + len(layer.points)]
            count = sum(map(len, parts))
            self.canvas.fill(Outlines(whole.every[start : start + count], parts), layer.color, layer.opacity, layer.grain)
            first, start = first + len(parts), start + count

    def _trees(self) -> tuple[Points, NDArray[np.float64], Points]:
        random = self.random
        radius = random.uniform(1.5, 5.0) * self.metre_px
        if not 1.5 < radius < 60 or self.theme.trees == 0 or random.random() < 0.2:
            return np.zeros((0, 2)), np.zeros(0), np.zeros(2)
        count = int(min(160, random.uniform(0, 1.3) * self.theme.trees * 0.25 * SIDE_PX**2 / (np.pi * radius**2)))
        places = random.uniform(0, SIDE_PX, (count, 2))
        draw = random.random()
        if draw < 0.4 and count > 4:
            heads = random.uniform(0, SIDE_PX, (1 + count // 14, 2))
            places = heads[random.integers(len(heads), size=count)] + random.normal(0, 3.0 * radius, (count, 2))
        elif draw < 0.7 and count > 4:
            # avenues and hedges
            lines = [curve(random, 0.04) for _ in range(1 + count // 40)]
            along = random.integers(0, 40, count)
            places = np.array([lines[k % len(lines)][step] for k, step in enumerate(along)]) + random.normal(0, 0.6 * radius, (count, 2))
            places += random.normal(0, SIDE_PX / 60, (count, 2))
        radii = radius * random.uniform(0.5, 1.3, count)
        cell = np.clip((places / _COARSE).astype(int), 0, SIDE_PX // _COARSE - 1)
        near = cv2.dilate(self.taken, np.ones((2 * int(radius / _COARSE) + 1,) * 2, np.uint8))
        free = near[cell[:, 1], cell[:, 0]] == 0
        return places[free], radii[free], self.sun * 1.2

    # -- the truth

    def _see(self, spot: Spot) -> Placed:
        points, mask = spot.hull(self.metre_px), exact_mask(spot.outline(self.metre_px))
        if not ((points > 0).all() and (points < SIDE_PX).all()):
            rims = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
            low = np.vstack(rims)[:, 0]
            points = np.vstack([low, low + 1])
        corners = np.asarray(cv2.boxPoints(cv2.minAreaRect(points.astype(np.float32))), dtype=np.float64)
        return Placed(spot.thing, mask, corners, None, False, position_of(corners))
