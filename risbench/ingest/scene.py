"""Which scene an image was cut from. Splits are made by scene, so that neighbouring windows never part."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

# P0003_0002, with a referent's name P0003_0002_1 or P0003_0002_h0123456789 (VRSBench, RISBench and ours),
# P0003__1__824___0 (DOTA devkit), P0003_0_800_0_800 (iSAID devkit).
_WINDOW_NAMES = (
    re.compile(r"^(?P<scene>.+?)__\d+(?:\.\d+)?__-?\d+___-?\d+$"),
    re.compile(r"^(?P<scene>.+?)_\d+_\d+_\d+_\d+$"),
    re.compile(r"^(?P<scene>.+?)(?:_\d{4})?_h[0-9a-f]{10}(?:-\w+)?$"),
    re.compile(r"^(?P<scene>.+?)_\d{4}_\d{1,3}$"),
    re.compile(r"^(?P<scene>.+?)_\d{4,6}$"),
)


def scene_of(file_name: str) -> str:
    """Return the scene: the part of the file name before the window's number, else the whole stem."""
    stem = PurePosixPath(file_name).stem
    for pattern in _WINDOW_NAMES:
        found = pattern.match(stem)
        if found is not None:
            return found["scene"]
    return stem


def is_window_name(file_name: str) -> bool:
    """Return whether the file is named as a window of a larger scene."""
    return scene_of(file_name) != PurePosixPath(file_name).stem
