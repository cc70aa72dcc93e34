"""What decides an ingest's output besides the rows: its options, and its inputs by content."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any, Final, Literal, get_args

from risbench.core.classes import CLASSES, to_class
from risbench.core.errors import InvalidRowError, OptionError
from risbench.core.storage import digest_of
from risbench.formats.source.rows import Row
from risbench.formats.source.scale import BOX_ORDERS, SCALES
from risbench.formats.source.tree import Entry, SourceTree
from risbench.ingest.fit import FitOption
from risbench.ingest.triage import MultiTarget, Triage, Uninformative

Exif = Literal["upright", "stored"]
_TEXT_SUFFIXES: Final = (".json", ".jsonl", ".txt", ".csv", ".xml", ".geojson", ".p", ".pkl", ".pickle")


def inputs_of(tree: SourceTree, files: Sequence[Entry], rows: Triage) -> dict[str, Any]:
    """Return what the output depends on: the annotation files by content, the images by name and size."""
    images = sorted({image for image, _ in rows.candidates})
    masks = sorted({candidate.row.mask.path for _, candidate in rows.candidates if candidate.row.mask and candidate.row.mask.path})
    named = {entry.path for entry in files}
    texts = [entry for entry in tree.entries if entry.path in named or entry.suffix in _TEXT_SUFFIXES]
    return {
        "annotations": digest_of([[entry.path, _content_hash(entry)] for entry in texts]),
        "annotation_files": len(files),
        "images": digest_of([[path, tree.by_path[path].size] for path in images]),
        "image_files": len(images),
        "masks": digest_of([[path, _content_hash(tree.by_path[path])] for path in masks]),
    }


def _content_hash(entry: Entry) -> str:
    """Return the sha256 of a file, or why it cannot be used: that, too, decides what becomes of its rows.

    Raises:
        MissingRequirementError: the system fails to read it.
    """
    try:
        with entry.open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    except InvalidRowError as reason:
        return reason.code


def dataset_name(kind: str, rows: Sequence[Row]) -> str:
    """Return the data set's name: the one that the rows state, else the format."""
    stated = sorted({row.dataset for row in rows if row.dataset})
    return stated[0] if len(stated) == 1 else kind


def slug_of(name: str) -> str:
    """Return a name as it stands in ids and paths.

    Raises:
        OptionError: nothing is left of it.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")
    if not slug:
        raise OptionError(f"--name {name!r}: needs at least one letter or digit")
    return slug


def read_class_map(pairs: Sequence[str]) -> dict[str, str]:
    """Return the classes of --map-class by the source's names.

    Raises:
        OptionError: one is not NAME=CLASS.
    """
    mapped: dict[str, str] = {}
    for pair in pairs:
        source_name, separator, name = pair.rpartition("=")
        target = to_class(name) if separator else None
        if target is None or not source_name:
            raise OptionError(f"--map-class {pair}: write NAME=CLASS with CLASS one of {', '.join(CLASSES)}")
        mapped[source_name] = target
    return mapped


def check_scale(box_scale: str | None, box_order: str | None) -> None:
    """Check what the user says of the boxes' numbers.

    Raises:
        OptionError: it is none of the words.
    """
    for option, value, allowed in (("--box-scale", box_scale, SCALES), ("--box-order", box_order, BOX_ORDERS)):
        if value is not None and value not in allowed:
            raise OptionError(f"{option} {value}: must be one of {', '.join(allowed)}")


def check_options(fit: str, multi_target: str, uninformative: str, exif: str, limit: int | None) -> None:
    """Check the options that are one of a few words.

    Raises:
        OptionError: one is not.
    """
    for option, value, allowed in (
        ("--fit", fit, get_args(FitOption)),
        ("--multi-target", multi_target, get_args(MultiTarget)),
        ("--uninformative", uninformative, get_args(Uninformative)),
        ("--exif", exif, get_args(Exif)),
    ):
        if value not in allowed:
            raise OptionError(f"{option} {value}: must be one of {', '.join(allowed)}")
    if limit is not None and limit < 1:
        raise OptionError(f"--limit {limit}: must be at least 1")
