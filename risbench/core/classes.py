"""The 26 classes of RISBench and the one table that maps every source's spelling onto them.

Source: VRSBench/RISBench class list; DOTA-v2, DIOR, iSAID, NWPU VHR-10, xView and RRSIS-D spellings.
"""

from __future__ import annotations

import functools
import re
from typing import Final

CLASSES: Final[tuple[str, ...]] = (
    "airplane",
    "airport",
    "baseball-diamond",
    "basketball-court",
    "bridge",
    "chimney",
    "container-crane",
    "dam",
    "expressway-service-area",
    "expressway-toll-station",
    "golffield",
    "ground-track-field",
    "harbor",
    "helicopter",
    "helipad",
    "overpass",
    "roundabout",
    "ship",
    "soccer-ball-field",
    "stadium",
    "storage-tank",
    "swimming-pool",
    "tennis-court",
    "trainstation",
    "vehicle",
    "windmill",
)

_ALIASES: Final[dict[str, tuple[str, ...]]] = {
    "airplane": ("plane", "aeroplane", "aircraft", "jet", "fixed wing aircraft"),
    "baseball-diamond": ("baseball field", "baseballfield", "baseball court"),
    "basketball-court": ("basketball field",),
    "container-crane": ("crane",),
    "expressway-service-area": ("service area", "expresswayservicearea", "highway service area"),
    "expressway-toll-station": ("toll station", "expresswaytollstation", "highway toll station", "toll booth"),
    "golffield": ("golf field", "golf course", "golfcourse"),
    "ground-track-field": ("track field", "running track", "athletic field", "athletics field"),
    "harbor": ("harbour", "dock", "pier", "port"),
    "overpass": ("over pass", "flyover"),
    "roundabout": ("traffic circle", "rotary"),
    "ship": ("boat", "vessel", "yacht", "sailboat"),
    "soccer-ball-field": ("soccer field", "football field", "soccer ball court", "football pitch", "soccer pitch"),
    "storage-tank": ("tank", "oil tank", "storage silo"),
    "swimming-pool": ("pool",),
    "trainstation": ("train station", "railway station", "rail station"),
    "vehicle": ("car", "small vehicle", "large vehicle", "truck", "bus", "van", "lorry", "automobile", "small car"),
    "windmill": ("wind mill", "wind turbine"),
    "helipad": ("heli pad", "helicopter pad"),
}


def _squash(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


_BY_SQUASHED: Final[dict[str, str]] = {_squash(spelling): name for name in CLASSES for spelling in (name, *_ALIASES.get(name, ()))}

# Every word or phrase that names a class in a sentence, longest first, so that "tennis court" wins over "court".
CLASS_PHRASES: Final[tuple[tuple[str, str], ...]] = tuple(
    sorted(
        {(spelling.replace("-", " "), name) for name in CLASSES for spelling in (name, *_ALIASES.get(name, ()))}
        | {("train station", "trainstation"), ("golf field", "golffield"), ("soccer field", "soccer-ball-field")},
        key=lambda pair: (-len(pair[0]), pair[0]),
    )
)


@functools.lru_cache(maxsize=4096)
def to_class(source_name: str) -> str | None:
    """Return the RISBench class of a source's class name, or None where it is none of the 26.

    Case, hyphens, underscores, spaces and a plural s do not matter.
    """
    squashed = _squash(source_name)
    return _BY_SQUASHED.get(squashed) or _BY_SQUASHED.get(squashed.removesuffix("s"))


_CLASS_OF: Final = dict(CLASS_PHRASES)
# CLASS_PHRASES has the longest first, and of alternatives that start at one place the first wins.
_ANY_CLASS: Final = re.compile(rf"\b({'|'.join(re.escape(phrase) for phrase, _ in CLASS_PHRASES)})(?:s|es)?\b")


def find_class(sentence: str) -> tuple[str, str] | None:
    """Return (phrase, class) of the first class that the sentence names, the longest phrase where several start there."""
    found = _ANY_CLASS.search(re.sub(r"[-_]", " ", sentence.casefold()))
    return (found[1], _CLASS_OF[found[1]]) if found else None
