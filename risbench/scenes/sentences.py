"""Sentences about generated objects, true of one object of the image and of no other: colour, size, position, relation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.scenes.canvas import SIDE_PX, Points, window_around
from risbench.scenes.thing import Thing

# One is called larger than another from this ratio of their areas on: what a reader can tell at a glance.
_CLEARLY: Final = 1.44
_APART_PX: Final = 30.0


@dataclass(frozen=True)
class Seen:
    """What a reader sees of an object: the thing, the corners of its oriented box (4, 2), its mask, its colour in the image."""

    thing: Thing
    corners: Points
    mask: NDArray[np.bool_]
    color: str


def describe(seen: Sequence[Seen], *, colors: bool) -> list[tuple[str | None, bool]]:
    """Return for every object the shortest sentence that is true of it alone, or None, and whether its class is alone.

    Without `colors` (grey or false-colour images) no sentence names one, nor where light and haze have made it another. A class
    that also shows as a part of other things (boats at a harbour) gets no sentence: a reader would count those, too.
    """
    image = _Image(seen)
    nouns = Counter(item.thing.noun for item in seen)
    told: list[tuple[str | None, bool]] = []
    for index, item in enumerate(seen):
        if item.thing.noun in image.shown:
            told.append((None, False))
            continue
        text = next((text for text, fits in image.candidates(index, colors) if np.count_nonzero(fits) == 1 and fits[index]), None)
        told.append((text, nouns[item.thing.noun] == 1))
    return told


def position_of(corners: Points) -> str | None:
    """Return the producer's word for where a box lies: corners by thirds, sides by .3 and .7, None in the middle."""
    low, high = corners.min(axis=0) / SIDE_PX, corners.max(axis=0) / SIDE_PX
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


def lies_at(position: str | None, word: str | None) -> bool:
    """Return whether a reader may say `word` of an object there: what is at the top-left is at the left, too."""
    return position == word if word is None or position is None else word in (position, *position.split("-"))


class _Image:
    """The facts of one image that sentences are made of."""

    def __init__(self, seen: Sequence[Seen]) -> None:
        self.seen = seen
        self.nouns = np.array([item.thing.noun for item in seen])
        self.shown = {category.replace("-", " ") for item in seen for category in item.thing.shows}
        self.colors = np.array([item.thing.color for item in seen])
        self.apparent = np.array([item.color for item in seen])
        self.positions = [position_of(item.corners) for item in seen]
        self.areas = np.array([float(cv2.countNonZero(item.mask.view(np.uint8)[window_around(item.corners)])) for item in seen])
        self.centres = np.array([item.corners.mean(axis=0) for item in seen]).reshape(-1, 2)
        counts = Counter(item.thing.noun for item in seen)
        self.anchors = [k for k, item in enumerate(seen) if counts[item.thing.noun] == 1 and item.thing.noun not in self.shown]
        self.beside: dict[str, list[tuple[str, NDArray[np.bool_]]]] = {}

    def candidates(self, index: int, colors: bool) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Yield (sentence, which objects it is true of), shortest first."""
        noun, color = self.nouns[index], self.colors[index]
        same = self.nouns == noun
        alike = same & ((self.colors == color) | (self.apparent == color))
        colors = colors and bool(self.apparent[index] == color)
        if np.count_nonzero(same) == 1:
            yield (f"The only {noun}, which is {color}" if colors else f"The only {noun} in the image"), same
            return
        if colors:
            yield f"The {color} {noun}", alike
        yield from self._by_size(index, same, f"The {{}} {noun} in the image")
        where = f" at the {self.positions[index]} of the image" if self.positions[index] else " near the center of the image"
        at = np.array([lies_at(position, self.positions[index]) for position in self.positions])
        yield f"The {noun}{where}", same & at
        if colors:
            yield f"The {color} {noun}{where}", alike & at
        yield from self._by_rank(index, same, f"The {{}} {noun}")
        if colors and np.count_nonzero(alike) > 1:
            yield from self._by_size(index, alike, f"The {{}} {color} {noun}")
            yield from self._by_rank(index, alike, f"The {{}} {color} {noun}")
        if noun not in self.beside:
            self.beside[noun] = list(self._by_neighbour(same, noun))
        yield from self.beside[noun]

    def _by_size(self, index: int, among: NDArray[np.bool_], text: str) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        others = among.copy()
        others[index] = False
        if not others.any():
            return
        word = None
        if self.areas[index] >= _CLEARLY * self.areas[others].max():
            word = "largest"
        elif self.areas[index] <= self.areas[others].min() / _CLEARLY:
            word = "smallest"
        if word:
            yield text.format(word), np.arange(len(self.seen)) == index

    def _by_rank(self, index: int, among: NDArray[np.bool_], text: str) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        others = among.copy()
        others[index] = False
        if not others.any():
            return
        x, y = self.centres[index].tolist()
        (left, top), (right, bottom) = self.centres[others].min(axis=0).tolist(), self.centres[others].max(axis=0).tolist()
        ahead = {"top-most": top - y, "bottom-most": y - bottom, "left-most": left - x, "right-most": x - right}
        for word, gap in ahead.items():
            if gap >= _APART_PX:
                yield text.format(word), np.arange(len(self.seen)) == index

    def _by_neighbour(self, same: NDArray[np.bool_], noun: str) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Yield relations to an object that is the only one of its class: closest to it, and beside it."""
        for other in self.anchors:
            anchor = self.nouns[other]
            far = np.hypot(*(self.centres - self.centres[other]).T)
            nearest = np.sort(far[same])
            if nearest[0] + _APART_PX <= nearest[1]:
                yield f"The {noun} closest to the {anchor}", same & (far <= nearest[0])
            offset = self.centres - self.centres[other]
            for word, axis, sign in (("left of", 0, -1), ("right of", 0, 1), ("above", 1, -1), ("below", 1, 1)):
                # "left of" holds for a reader only where it is mostly left, and for certain; near misses leave it unsaid.
                beside = same & (sign * offset[:, axis] > np.abs(offset[:, 1 - axis]))
                nearly = same & (sign * offset[:, axis] > 0)
                if beside.sum() == 1 and nearly.sum() == 1:
                    yield f"The {noun} {'to the ' if 'of' in word else ''}{word} the {anchor}", beside
