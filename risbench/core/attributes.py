"""The 8 attribute kinds of an expression, from the source's fields or else from the sentence by word lists.

The paper names category, colour, shape, location, size, relative position and relative size and speaks of 8
kinds; the eighth here is uniqueness (docs/decisions/0003).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Final

from risbench.core.classes import find_class
from risbench.core.record import Attribute, Attributes

COLORS: Final = (
    "white",
    "black",
    "gray",
    "grey",
    "silver",
    "red",
    "blue",
    "green",
    "yellow",
    "orange",
    "brown",
    "tan",
    "beige",
    "teal",
    "navy",
    "olive",
    "maroon",
    "purple",
    "pink",
    "cyan",
    "turquoise",
    "gold",
    "golden",
    "cream",
    "khaki",
    "dark",
    "light-colored",
    "colorful",
)
SHAPES: Final = (
    "rectangular",
    "square",
    "circular",
    "round",
    "oval",
    "elliptical",
    "curved",
    "straight",
    "l-shaped",
    "t-shaped",
    "u-shaped",
    "kidney-shaped",
    "triangular",
    "cylindrical",
    "diamond-shaped",
    "fan-shaped",
    "cross-shaped",
    "elongated",
    "irregular",
    "long",
    "narrow",
    "wide",
)
SIZES: Final = ("tiny", "small", "medium-sized", "medium", "large", "big", "huge", "massive", "giant")
RELATIVE_SIZES: Final = (
    "smallest",
    "largest",
    "biggest",
    "longest",
    "shortest",
    "widest",
    "smaller",
    "larger",
    "bigger",
    "longer",
    "shorter",
)

# One pattern a kind, the longest word first, so that "medium-sized" wins over "medium".
_WORDS: Final = {
    kind: re.compile(rf"(?<![\w-])(?:{'|'.join(sorted(words, key=lambda word: (-len(word), word)))})(?![\w-])")
    for kind, words in (("color", COLORS), ("shape", SHAPES), ("size", SIZES), ("relative_size", RELATIVE_SIZES))
}
_VERTICAL, _HORIZONTAL = "top|bottom|upper|lower", "left|right"
_MOST = re.compile(rf"\b(?:{_VERTICAL}|{_HORIZONTAL})[- ]?most\b|\b(?:leftmost|rightmost|topmost|bottommost|uppermost|lowermost)\b")
_CORNER = re.compile(rf"\b(?:{_VERTICAL})[- ](?:{_HORIZONTAL}|middle|center)\b")
_EDGE = re.compile(rf"\b(?:at|on|in|near|towards?|of) (?:the )?((?:far )?(?:{_VERTICAL}|{_HORIZONTAL}|center|centre|middle))\b")
_RELATION = re.compile(
    r"\b(?:next to|close to|closest to|nearest to|nearest|near|beside|between|adjacent to|adjacent|left of|right of|above|below|behind|"
    r"in front of|surrounded by|farthest from|opposite|among|parallel to|across from|inside|connected to)\b"
)
_UNIQUE = re.compile(r"\b(?:only|sole|single|lone|unique)\b")


def attributes_of(category: str, sentence: str | None, fields: Mapping[str, str]) -> Attributes:
    """Return the attribute kinds of one triplet; a source's field wins over the sentence."""
    return _attributes_of(category, sentence, tuple(fields.items()))


@functools.lru_cache(maxsize=1 << 12)  # very many objects of one image may share a sentence, or have none
def _attributes_of(category: str, sentence: str | None, fields: tuple[tuple[str, str], ...]) -> Attributes:
    found: dict[str, Attribute | None] = {"category": Attribute(value=category, origin="field")}
    if sentence:
        if find_class(sentence) is not None and "category" not in dict(fields):
            found["category"] = Attribute(value=category, origin="sentence")
        found.update({kind: Attribute(value=value, origin="sentence") for kind, value in _tag(sentence).items()})
    found.update({kind: Attribute(value=value, origin="field") for kind, value in fields if value})
    return Attributes(**found)


def _tag(sentence: str) -> dict[str, str]:
    text = sentence.casefold()
    tags: dict[str, str] = {}
    for kind in _WORDS:
        value = _first_word(text, kind)
        if value is not None:
            tags[kind] = value
    most, corner, edge, relation = _MOST.search(text), _CORNER.search(text), _EDGE.search(text), _RELATION.search(text)
    if corner is not None or (edge is not None and most is None):
        tags["absolute_position"] = (corner[0] if corner else edge[1] if edge else "").replace(" ", "-")
    if most is not None or relation is not None:
        tags["relative_position"] = most[0] if most else relation[0] if relation else ""
    if _UNIQUE.search(text):
        tags["uniqueness"] = "unique"
    return tags


def _first_word(text: str, kind: str) -> str | None:
    found = _WORDS[kind].search(text)
    return found[0] if found else None
