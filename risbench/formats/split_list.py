"""Frozen split lists: a CSV with the columns scene and split, as every release holds one (split.csv)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path

from risbench.core.errors import InputError, printable
from risbench.core.record import SPLITS, Split


def read_frozen(path: Path) -> dict[str, Split]:
    """Return scene to split from a CSV with columns scene and split.

    Raises:
        InputError: a column is missing, a split is none of the three, or a scene stands in two.
    """
    frozen: dict[str, Split] = {}
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text file (byte {error.start} is not UTF-8); it must be a CSV of scene,split") from None
    table = csv.DictReader(io.StringIO(content, newline=""))
    if not {"scene", "split"} <= set(table.fieldnames or ()):
        raise InputError(f"{path}: needs the columns scene and split; it has {printable(', '.join(table.fieldnames or ()) or 'none')}")
    for number, row in enumerate(table, 2):
        name = next((split for split in SPLITS if split == row["split"]), None)
        if name is None:
            raise InputError(f"{path}: line {number}: split = {printable(row['split'])}: must be one of {', '.join(SPLITS)}")
        if frozen.get(row["scene"], name) != name:
            raise InputError(f"{path}: line {number}: scene {printable(row['scene'])} stands in {frozen[row['scene']]} and in {name}")
        frozen[row["scene"]] = name
    return frozen


def write_frozen(scenes: Mapping[str, Split]) -> str:
    """Return the CSV of a split, to be frozen and used again."""
    return "scene,split\n" + "".join(f"{_quoted(scene)},{scenes[scene]}\n" for scene in sorted(scenes))


def _quoted(scene: str) -> str:
    return '"' + scene.replace('"', '""') + '"' if re.search(r'[,"\n\r]', scene) else scene
