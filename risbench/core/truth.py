"""The one rule that matches a box with a true object: audits score by it, instances are linked by it, adapters learn by it.

Why these bounds: docs/decisions/0016-one-matching-rule.md.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from risbench.core.geometry import box_iou
from risbench.core.record import Box

# A box that overlaps an object by less is most likely of another object, or of none that the truth holds.
MIN_IOU: Final = 0.3
# The next best object must overlap it by that much less, or nobody can tell which of the two it means.
MARGIN: Final = 0.1

NO_OVERLAP: Final = "no_true_object_overlaps"
TWO_OVERLAP: Final = "two_true_objects_overlap"
SAME_OBJECT: Final = "two_targets_of_one_true_object"
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Match(Generic[Key]):
    """What a box means: the `key` of the true object, or None with the code of the reason; `best` are the two that overlap it most."""

    key: Key | None
    reason: str = ""
    best: tuple[tuple[Key, float], ...] = ()


def match_box(box: Box, objects: Iterable[tuple[Key, Box]]) -> Match[Key]:
    """Return the true object that a box means: the one it overlaps most, by an IoU of at least .3 and of .1 more than the next.

    `objects` are (key, extent), in the pixels of `box`; where the truth states a class, those of the record's class only.
    """
    found = [(key, overlap) for key, other in objects if (overlap := box_iou(box, other)) > 0]
    best = tuple(sorted(found, key=lambda pair: (-pair[1], str(pair[0])))[:2])
    if not best or best[0][1] < MIN_IOU:
        return Match(None, NO_OVERLAP, best)
    if len(best) > 1 and best[0][1] - best[1][1] < MARGIN:
        return Match(None, TWO_OVERLAP, best)
    return Match(best[0][0], best=best)


def match_boxes(boxes: Sequence[Box], objects: Iterable[tuple[Key, Box]]) -> list[Match[Key]]:
    """Return the match of every box of one record; two boxes of one record never mean the same object, and then neither is matched."""
    here = list(objects)
    matches = [match_box(box, here) for box in boxes]
    keys = [match.key for match in matches if match.key is not None]
    return [Match(None, SAME_OBJECT, match.best) if match.key is not None and keys.count(match.key) > 1 else match for match in matches]
