"""The record: the only thing that stages exchange, one JSON object per line.

Coordinates are pixels of `image`, x right and y down, origin at the top-left
corner of the top-left pixel. Boxes are (x_min, y_min, x_max, y_max), max exclusive.
docs/record.md defines every field; a test fails when one is missing there.
"""

from __future__ import annotations

import math
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from risbench.core.errors import InputError
from risbench.core.pixels import MAX_PIXELS
from risbench.core.rle import filled_runs

SCHEMA_VERSION: Final = 1

Precision = Literal["exact", "corner", "coord", "token"]
Fit = Literal["keep", "window", "pad"]
ReviewStatus = Literal["unreviewed", "triaged", "accepted", "corrected", "consensus", "adjudicated", "rejected"]
Split = Literal["train", "val", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "val", "test")

# Statuses that say "a person looked at this mask and stands by it".
REVIEWED: Final[frozenset[str]] = frozenset({"accepted", "corrected", "consensus", "adjudicated"})
# The mask passed on a triage sheet of twenty: somebody glanced at it, nobody verified it.
TRIAGED: Final = "triaged"
# Statuses of records that nobody has decided on; a later round may give them another mask.
UNDECIDED: Final[frozenset[str]] = frozenset({"unreviewed", TRIAGED})


Number = FiniteFloat
Box = tuple[Number, Number, Number, Number]
Point = tuple[Number, Number]
Quad = tuple[Point, Point, Point, Point]
Affine = tuple[Number, Number, Number, Number, Number, Number]


def is_singular(affine: tuple[float, ...]) -> bool:
    """Return whether a map (a, b, c, d, e, f) has no inverse: it gives pixels no size."""
    a, b, _, d, e, _ = affine
    determinant = a * e - b * d
    return not math.isfinite(determinant) or abs(determinant) < 1e-30


class Frozen(BaseModel):
    """Base of all parts of a record: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceRow(Frozen):
    """Where one row of a source stands."""

    file: str
    source_key: str


class Source(Frozen):
    """Where the record comes from."""

    dataset: str
    file: str
    source_key: str
    object_id: str | None = None
    licence: str | None = None
    split: str | None = None
    merged: tuple[SourceRow, ...] = ()


class ImageRef(Frozen):
    """The image of the record, as it lies in the workspace."""

    path: str
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    sha256: str
    source_path: str
    scene: str
    perceptual_hash: str
    metres_per_pixel: Number | None = None
    crs: str | None = None
    transform: Affine | None = None

    @model_validator(mode="after")
    def _can_be_decoded(self) -> ImageRef:
        if self.width * self.height > MAX_PIXELS:
            raise ValueError(f"an image of {self.width} x {self.height} px: at most {MAX_PIXELS:,} pixels are decoded")
        return self


class Placement(Frozen):
    """How the source image was brought to `image`; `affine` maps pixels of `image` to pixels of the source image."""

    fit: Fit
    source_width: int = Field(gt=0)
    source_height: int = Field(gt=0)
    affine: Affine

    @model_validator(mode="after")
    def _map_has_an_inverse(self) -> Placement:
        if is_singular(self.affine):
            raise ValueError(f"the map {self.affine} has no inverse")
        return self


class Category(Frozen):
    """One of the 26 classes, and what the source called it."""

    name: str
    source_name: str


class Repair(Frozen):
    """One named change made to a box."""

    rule: str
    detail: str


class Target(Frozen):
    """One object that the sentence means."""

    object_id: str | None = None
    box: Box
    oriented_box: Quad | None = None
    box_given: Box
    box_precision: Precision
    repairs: tuple[Repair, ...] = ()

    @model_validator(mode="after")
    def _box_has_area(self) -> Target:
        x_min, y_min, x_max, y_max = self.box
        if not (x_min < x_max and y_min < y_max):
            raise ValueError(f"box {self.box} has no area")
        return self


class Attribute(Frozen):
    """The value of one attribute kind and where it was read."""

    value: str
    origin: Literal["field", "sentence"]


class Attributes(Frozen):
    """The 8 attribute kinds; null where neither the source's fields nor the sentence say."""

    category: Attribute | None = None
    color: Attribute | None = None
    shape: Attribute | None = None
    size: Attribute | None = None
    absolute_position: Attribute | None = None
    relative_position: Attribute | None = None
    relative_size: Attribute | None = None
    uniqueness: Attribute | None = None


class Expression(Frozen):
    """The sentence. `is_true` and `is_unique` are a reviewer's verdict in this image; null before review."""

    text: str
    origin: str
    is_true: bool | None = None
    is_unique: bool | None = None


class Mask(Frozen):
    """The triplet's mask, the union over its targets, as COCO run-length encoding (column-major, compressed).

    Its runs fill `size` exactly, and no image has more pixels than a mask may have.
    """

    size: tuple[int, int]
    counts: str
    engine: str
    weights_sha256: str | None = None
    round: int = Field(ge=0)
    scores: dict[str, Number] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _runs_fill_the_size(self) -> Mask:
        try:
            filled_runs(*self.size, self.counts)
        except InputError as error:
            raise ValueError(str(error)) from None
        return self


class Review(Frozen):
    """What people decided about the mask."""

    status: ReviewStatus = "unreviewed"
    votes: dict[str, int] = Field(default_factory=dict)
    agreement: Number | None = None
    reviewers: tuple[str, ...] = ()


class Problem(Frozen):
    """Why a stage holds the record back; it stays in the data and export counts it by code."""

    stage: str
    code: str
    detail: str


class Record(Frozen):
    """One triplet: a sentence, what it refers to, and its mask, in one image."""

    schema_version: Literal[1] = SCHEMA_VERSION
    id: str
    source: Source
    image: ImageRef
    placement: Placement
    category: Category
    targets: tuple[Target, ...]
    attributes: Attributes = Attributes()
    expression: Expression | None = None
    mask: Mask | None = None
    review: Review = Field(default_factory=Review)
    split: Split | None = None
    problems: tuple[Problem, ...] = ()

    def with_problem(self, stage: str, code: str, detail: str) -> Record:
        """Return this record with one more problem."""
        return self.model_copy(update={"problems": (*self.problems, Problem(stage=stage, code=code, detail=detail))})

    def to_line(self) -> str:
        """Return the record as one line of JSON without the newline."""
        return self.model_dump_json()
