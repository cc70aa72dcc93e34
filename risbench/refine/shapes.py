"""What each class looks like from above, as a parametric outline fitted to soft evidence and to the box.

Seen from above most classes have one outline up to size and angle: a court is a rectangle of known proportions, a
tank a disc, a ship a long oval. A box and an angle nearly fix such an outline. `fit_superellipse` and
`fit_planform` search for the outline that explains the evidence best:

    score = expected IoU with the evidence + edge weight * colour step across the outline
            - box weight * (squared distance of its extent from the box + squared log-aspect error) / 2

Exponents and aspects are dimensions of the things themselves (court sizes by their rule books); the weights were
set on half of the images of one real set and confirmed on the other half (experiments/results/masks.txt).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from risbench.refine.crops import Crop

Floats = NDArray[np.floating[Any]]
BOX_SPREAD: Final = 0.06
MAX_EDGE_STEP: Final = 40.0


@dataclass(frozen=True)
class Shape:
    """The outline of a class: |x/l|^exponent + |y/s|^exponent <= 1, l/s log-normal about `aspect`.

    `edge`, `colour` and `box` weigh the colour step across the outline, the colour models against GrabCut's labels
    in the evidence, and the box. `votes` are the shares of (outline, banded GrabCut, first GrabCut) in the mask;
    `grow` scales the voted outline, for outlines that fit the bright body of the object and miss its rim.
    """

    exponent: float
    aspect: float
    aspect_spread: float
    edge: float = 0.5
    colour: float = 0.15
    box: float = 0.03
    votes: tuple[float, float, float] = (0.4, 0.3, 0.3)
    grow: float = 1.0


_DISC: Final = (1 / 3, 1 / 3, 1 / 3)
ANY_SHAPE: Final = Shape(4, 1.6, 0.5, votes=(0.1, 0.3, 0.6))
SHAPES: Final[dict[str, Shape]] = {
    "vehicle": Shape(6, 2.1, 0.15, edge=0.2, colour=0.4, box=0.05, votes=(0.6, 0.2, 0.2), grow=1.06),
    "ship": Shape(4, 4.5, 0.3, votes=(0.2, 0.5, 0.3)),
    "bridge": Shape(20, 3.5, 0.4, edge=0.2, colour=0.5, votes=(0.5, 0.3, 0.2)),
    "overpass": Shape(20, 3.5, 0.4, edge=0.2, colour=0.5, votes=(0.5, 0.3, 0.2)),
    # Moored boats repeat along a harbor, so the strongest edges lie inside it.
    "harbor": Shape(20, 2.4, 0.4, edge=0.0, colour=0.5, votes=(0.5, 0.3, 0.2)),
    "tennis-court": Shape(20, 2.1, 0.2),
    "basketball-court": Shape(20, 1.8, 0.15),
    "soccer-ball-field": Shape(20, 1.55, 0.2),
    "ground-track-field": Shape(4, 1.9, 0.2),
    "baseball-diamond": Shape(2.5, 1.1, 0.1, votes=(0.1, 0.3, 0.6)),
    "storage-tank": Shape(2, 1.03, 0.05, votes=_DISC),
    "roundabout": Shape(2, 1.05, 0.1, votes=_DISC),
    "helipad": Shape(2, 1.05, 0.1, votes=_DISC),
}


@dataclass(frozen=True)
class Outline:
    """A fitted outline as a mask of the crop, with what is needed to redraw it larger."""

    mask: NDArray[np.uint8]
    half_width: float
    grown: NDArray[np.uint8]


def _sample(image: NDArray[Any], x: Floats, y: Floats) -> NDArray[Any]:
    columns = np.clip(np.rint(x - 0.5).astype(np.int32), 0, image.shape[1] - 1)
    rows = np.clip(np.rint(y - 0.5).astype(np.int32), 0, image.shape[0] - 1)
    found: NDArray[Any] = image[rows, columns]
    return found


def _pair_steps() -> Floats:
    """Return the 50 directions of the search: each of five parameters alone, and each two together, both ways."""
    one = np.eye(5)
    pairs = [a * one[i] + b * one[j] for i in range(5) for j in range(i) for a in (1, -1) for b in (1, -1)]
    return np.vstack([one, -one, *pairs])


_STEPS: Final = _pair_steps()


def _climb(start: Floats, best: float, step: Floats, score: Callable[[Floats], Floats], rounds: int) -> tuple[Floats, float]:
    """Return the best (centre x, centre y, angle, half length, half width) near `start`: best neighbour, else half the step."""
    for _ in range(rounds):
        neighbours = start + _STEPS * step
        scores = score(neighbours)
        if scores.max() > best:
            best, start = float(scores.max()), neighbours[scores.argmax()]
        else:
            step = step * 0.5
    return start, best


def _penalty(
    low_x: Floats, high_x: Floats, low_y: Floats, high_y: Floats, ratio: Floats, box: Floats, aspect: float, spread: float
) -> Floats:
    width, height = box[2] - box[0], box[3] - box[1]
    gaps = np.stack([(low_x - box[0]) / width, (high_x - box[2]) / width, (low_y - box[1]) / height, (high_y - box[3]) / height], axis=1)
    penalty: Floats = 0.5 * ((gaps / BOX_SPREAD) ** 2).sum(axis=1) + 0.5 * ((np.log(np.abs(ratio)) - np.log(aspect)) / spread) ** 2
    return penalty


def _edge_step(lab: Floats, inner: tuple[Floats, Floats], outer: tuple[Floats, Floats]) -> Floats:
    step = np.linalg.norm(_sample(lab, *outer) - _sample(lab, *inner), axis=2)
    result: Floats = np.minimum(step, MAX_EDGE_STEP).mean(axis=1) / MAX_EDGE_STEP
    return result


_GRID: Final = (np.linspace(-1, 1, 25)[:-1] + 1 / 24).astype(np.float64)
_RIM: Final = np.linspace(0, 2 * np.pi, 64, endpoint=False)


def fit_superellipse(crop: Crop, evidence: Floats, shape: Shape) -> Outline:
    """Return the superellipse of a class that best explains `evidence` (height, width, 0-1) and the crop's box."""
    power, box = shape.exponent, crop.box
    grid_x, grid_y = (axis.ravel() for axis in np.meshgrid(_GRID, _GRID))
    inside = np.abs(grid_x) ** power + np.abs(grid_y) ** power <= 1
    grid_x, grid_y, area_share = grid_x[inside], grid_y[inside], 4 * float(inside.mean())
    radius = (np.abs(np.cos(_RIM)) ** power + np.abs(np.sin(_RIM)) ** power) ** (-1 / power)
    rim_x, rim_y = radius * np.cos(_RIM), radius * np.sin(_RIM)
    lab = cv2.GaussianBlur(crop.lab, (0, 0), 1).astype(np.float32)
    total = float(evidence.sum())

    def extent(angle: Floats, length: Any, width: Any) -> tuple[Floats, Floats]:
        dual, cos, sin = power / (power - 1), np.abs(np.cos(angle)), np.abs(np.sin(angle))
        return ((length * cos) ** dual + (width * sin) ** dual) ** (1 / dual), ((length * sin) ** dual + (width * cos) ** dual) ** (
            1 / dual
        )

    def score(parameters: Floats) -> Floats:
        x, y, angle, length, width = (column[:, None] for column in parameters.T)
        cos, sin = np.cos(angle), np.sin(angle)

        def spread(px: Floats, py: Floats, offset: float) -> tuple[Floats, Floats]:
            a, b = (length + offset) * px, (width + offset) * py
            return x + a * cos - b * sin, y + a * sin + b * cos

        mean = _sample(evidence, *spread(grid_x, grid_y, 0)).mean(axis=1)
        area = (length * width)[:, 0] * area_share
        overlap = area * mean / (total + area - area * mean)
        edge = _edge_step(lab, spread(rim_x, rim_y, -3), spread(rim_x, rim_y, 3)) if shape.edge else 0.0
        half_x, half_y = extent(angle[:, 0], length[:, 0], width[:, 0])
        cx, cy = x[:, 0], y[:, 0]
        ratio = length[:, 0] / width[:, 0]
        miss = _penalty(cx - half_x, cx + half_x, cy - half_y, cy + half_y, ratio, box, shape.aspect, shape.aspect_spread)
        result: Floats = overlap + shape.edge * edge - shape.box * miss
        return result

    angles = np.arange(36) * np.pi / 36
    aspects = shape.aspect * np.exp(shape.aspect_spread * np.array([-1.5, -0.75, 0, 0.75, 1.5]))
    angles, aspects = (axis.ravel() for axis in np.meshgrid(angles, aspects[aspects >= 1]))
    width, height = box[2] - box[0], box[3] - box[1]
    half_x, half_y = extent(angles, 1.0, 1 / aspects)
    length = (half_x * width + half_y * height) / (half_x**2 + half_y**2) / 2
    middle = np.ones_like(length)
    starts = np.stack([middle * (box[0] + box[2]) / 2, middle * (box[1] + box[3]) / 2, angles, length, length / aspects], axis=1)
    scores = score(starts)
    start = starts[scores.argmax()]
    step = np.array([0.05 * width, 0.05 * height, np.pi / 48, 0.07 * start[3], 0.07 * start[4]])
    fitted, _ = _climb(start, float(scores.max()), step, score, rounds=8)
    mask = _draw_superellipse(fitted, power, crop.shape)
    grown = mask if shape.grow == 1.0 else _draw_superellipse(fitted * [1, 1, 1, shape.grow, shape.grow], power, crop.shape)
    return Outline(mask, float(np.abs(fitted[3:]).min()), grown)


def _draw_superellipse(fitted: Floats, power: float, shape: tuple[int, int]) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    cos, sin = np.cos(fitted[2]), np.sin(fitted[2])
    along = (columns - fitted[0]) * cos + (rows - fitted[1]) * sin
    across = -(columns - fitted[0]) * sin + (rows - fitted[1]) * cos
    drawn: NDArray[np.uint8] = (np.abs(along / fitted[3]) ** power + np.abs(across / fitted[4]) ** power <= 1).astype(np.uint8)
    return drawn


def _planform(root: float, tip_front: float, tip_rear: float, wing_rear: float, fuselage: float) -> Floats:
    """Return the outline of an aircraft, nose at x = 1, tail at -1, wing tips at y = 1 and -1."""
    half = [
        (1, 0),
        (0.95, fuselage * 0.6),
        (0.82, fuselage),
        (root, fuselage * 1.05),
        (tip_front, 0.98),
        (tip_front - 0.06, 1.0),
        (tip_rear, 1.0),
        (wing_rear, 0.35),
        (wing_rear - 0.03, fuselage),
        (-0.62, fuselage * 0.85),
        (-0.7, fuselage * 0.8),
        (-0.88, 0.36),
        (-1, 0.36),
        (-0.97, 0.08),
        (-1, 0.03),
    ]
    return np.array([*half, *[(x, -y) for x, y in half[::-1][:-1]]], dtype=np.float64)


@dataclass(frozen=True)
class _Planform:
    points: Floats
    inner: Floats
    rim: Floats
    normals: Floats
    area_share: float


def _prepare(points: Floats, grid: int = 96) -> _Planform:
    centres = np.linspace(-1, 1, grid + 1)[:-1] + 1 / grid
    x, y = np.meshgrid(centres, centres)
    drawn = np.zeros((grid, grid), np.uint8)
    cv2.fillPoly(drawn, [np.rint((points + 1) * grid / 2 - 0.5).astype(np.int32)], 1)
    inner = np.stack([x[drawn > 0], y[drawn > 0]], axis=1)
    rim, normals = [], []
    following = np.roll(points, -1, axis=0)
    outward = 1.0 if np.sum(points[:, 0] * following[:, 1] - following[:, 0] * points[:, 1]) > 0 else -1.0
    for a, b in zip(points, following, strict=True):
        length = float(np.hypot(*(b - a)))
        count = max(1, int(length / 0.08))
        along = (np.arange(count) + 0.5) / count
        rim.append(a + (b - a) * along[:, None])
        direction = (b - a) / length
        normals.append(outward * np.tile([direction[1], -direction[0]], (count, 1)))
    step = max(1, len(inner) // 300)
    return _Planform(points, inner[::step], np.vstack(rim), np.vstack(normals), 4 * float((drawn > 0).mean()))


# Swept airliner, straight-winged propeller aircraft, forward wing, delta.
_PLANFORMS: Final = tuple(
    _prepare(_planform(*values))
    for values in (
        (0.35, -0.28, -0.42, -0.12, 0.105),
        (0.3, 0.0, -0.15, -0.12, 0.105),
        (0.25, 0.2, 0.02, -0.05, 0.11),
        (0.15, -0.45, -0.6, -0.3, 0.105),
    )
)
_PLANFORM_ASPECT: Final = (1.08, 0.12)


def fit_planform(crop: Crop, evidence: Floats) -> Outline:
    """Return the aircraft outline that best explains `evidence` (height, width, 0-1) and the crop's box."""
    lab = cv2.GaussianBlur(crop.lab, (0, 0), 1).astype(np.float32)
    best: tuple[float, Floats, _Planform] | None = None
    for planform in _PLANFORMS:
        found = _fit_one_planform(planform, crop.box, evidence, lab, None if best is None else best[0] - 0.08)
        if found is not None and (best is None or found[1] > best[0]):
            best = (found[1], found[0], planform)
    assert best is not None, "the first planform is always fitted"
    points = _place_planform(best[1], best[2].points)
    mask = np.zeros(crop.shape, np.uint8)
    cv2.fillPoly(mask, [np.rint((points - 0.5) * 16).astype(np.int32)], 1, shift=4)
    return Outline(mask, float(np.abs(best[1][3:]).min()), mask)


def _place_planform(fitted: Floats, points: Floats) -> Floats:
    cos, sin = np.cos(fitted[2]), np.sin(fitted[2])
    along, across = fitted[3] * points[:, 0], fitted[4] * points[:, 1]
    return np.stack([fitted[0] + along * cos - across * sin, fitted[1] + along * sin + across * cos], axis=1)


def _fit_one_planform(
    planform: _Planform, box: Floats, evidence: Floats, lab: Floats, worth_refining: float | None
) -> tuple[Floats, float] | None:
    width, height, total = box[2] - box[0], box[3] - box[1], float(evidence.sum())
    aspect, spread = _PLANFORM_ASPECT

    def score(parameters: Floats) -> Floats:
        x, y, angle, length, span = (column[:, None] for column in parameters.T)
        cos, sin = np.cos(angle), np.sin(angle)

        def place(points: Floats) -> tuple[Floats, Floats]:
            a, b = length * points[:, 0], span * points[:, 1]
            return x + a * cos - b * sin, y + a * sin + b * cos

        mean = _sample(evidence, *place(planform.inner)).mean(axis=1)
        area = (length * span)[:, 0] * planform.area_share
        overlap = area * mean / (total + area - area * mean)
        rim_x, rim_y = place(planform.rim)
        out_x = 2 * (planform.normals[:, 0] * cos - planform.normals[:, 1] * sin)
        out_y = 2 * (planform.normals[:, 0] * sin + planform.normals[:, 1] * cos)
        edge = _edge_step(lab, (rim_x - out_x, rim_y - out_y), (rim_x + out_x, rim_y + out_y))
        px, py = place(planform.points)
        ratio = length[:, 0] / span[:, 0]
        miss = _penalty(px.min(axis=1), px.max(axis=1), py.min(axis=1), py.max(axis=1), ratio, box, aspect, spread)
        result: Floats = overlap + 0.5 * edge - 0.02 * miss
        return result

    angles, aspects = (
        axis.ravel() for axis in np.meshgrid(np.arange(48) * 2 * np.pi / 48, aspect * np.exp(spread * np.array([-1.0, 0.0, 1.0])))
    )
    points = planform.points
    x = np.cos(angles)[:, None] * points[:, 0] - np.sin(angles)[:, None] * points[:, 1] / aspects[:, None]
    y = np.sin(angles)[:, None] * points[:, 0] + np.cos(angles)[:, None] * points[:, 1] / aspects[:, None]
    span_x, span_y = np.ptp(x, axis=1), np.ptp(y, axis=1)
    length = (span_x * width + span_y * height) / (span_x**2 + span_y**2)
    centre_x = (box[0] + box[2]) / 2 - length * (x.max(axis=1) + x.min(axis=1)) / 2
    centre_y = (box[1] + box[3]) / 2 - length * (y.max(axis=1) + y.min(axis=1)) / 2
    starts = np.stack([centre_x, centre_y, angles, length, length / aspects], axis=1)
    scores = score(starts)
    if worth_refining is not None and scores.max() < worth_refining:
        return None
    start = starts[scores.argmax()]
    step = np.array([0.04 * width, 0.04 * height, np.pi / 48, 0.06 * start[3], 0.06 * start[4]])
    return _climb(start, float(scores.max()), step, score, rounds=6)
