"""Which scene an image was cut from. Splits are made by scene, so that neighbouring windows never part.

Digits at the end of a name make a window only where they are of a known producer: cameras, video frames and tiles of other
programs number pictures of different places the same way (docs/decisions/0014).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, Final

from risbench.core.errors import OptionError, printable

# P0003_0002 (VRSBench and RISBench of DOTA), 01154_0000 (of DIOR), S0003_0002 (our generated scenes), each with a referent's number
# P0003_0002_1 (RISBench); P0003__1__824___0 (DOTA devkit); P0003_0_800_0_800 (iSAID devkit); NAME_0002_h0123456789 (our releases).
_WINDOW_NAMES: Final = (
    re.compile(r"^(?P<scene>[PS]\d{4,5}|\d{5})_\d{4}(?:_\d{1,3})?$"),
    re.compile(r"^(?P<scene>.+?)__\d+(?:\.\d+)?__-?\d+___-?\d+$"),
    re.compile(r"^(?P<scene>.+?)(?:_\d{4})?_h[0-9a-f]{10}(?:-\w+)?$"),
)
_ISAID_NAME: Final = re.compile(r"^(?P<scene>.+?)_(\d+)_(\d+)_(\d+)_(\d+)$")
_FEWEST_ISAID_PX: Final = 64
SCENE_RULES: Final = ("auto", "image", "folder")


def scene_of(file_name: str) -> str:
    """Return the scene by a known producer's way of naming windows: what stands before the window's number, else the whole stem."""
    stem = PurePosixPath(file_name).stem
    for pattern in _WINDOW_NAMES:
        found = pattern.match(stem)
        if found is not None:
            return found["scene"]
    ranges = _ISAID_NAME.match(stem)
    if ranges is not None:
        left, right, top, bottom = (int(value) for value in ranges.groups()[1:])
        if right - left == bottom - top >= _FEWEST_ISAID_PX:
            return ranges["scene"]
    return stem


def is_window_name(file_name: str) -> bool:
    """Return whether the file is named as a window of a larger scene by a known producer."""
    return scene_of(file_name) != PurePosixPath(file_name).stem


@dataclass(frozen=True)
class SceneRule:
    """What a scene is: `auto` by known producers' names, `image` each image, `folder` each folder, else a regular expression.

    A regular expression is searched in the image's path in the source; its group `scene`, else its first group, names the scene.
    An image in which it is not found is a scene of its own.
    """

    rule: str = "auto"
    _pattern: re.Pattern[str] | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        """Compile the rule.

        Raises:
            OptionError: it is no regular expression, or has no group.
        """
        if self.rule in SCENE_RULES:
            return
        allowed = f"it must be {', '.join(SCENE_RULES)}, or a regular expression with a group (?P<scene>...)"
        try:
            pattern = re.compile(self.rule)
        except re.error as error:
            raise OptionError(f"--scene {printable(self.rule)}: {allowed}; {error}") from None
        if pattern.groups == 0:
            raise OptionError(f"--scene {printable(self.rule)}: {allowed}; it has no group")
        object.__setattr__(self, "_pattern", pattern)

    @cached_property
    def _group(self) -> str | int:
        assert self._pattern is not None
        return "scene" if "scene" in self._pattern.groupindex else 1

    def scene(self, path: str, stem: str) -> str:
        """Return the scene of an image by its path in the source; `stem` is its own name, with folders where others are named alike."""
        if self.rule == "auto":
            return scene_of(path) if is_window_name(path) else stem
        if self.rule == "folder":
            return str(PurePosixPath(path).parent)
        found = self._pattern.search(path) if self._pattern is not None else None
        return (found[self._group] or stem) if found is not None else stem

    def is_window(self, path: str) -> bool:
        """Return whether an image is a window that was cut from a larger scene, and is kept as it is.

        With a regular expression it is one whose name holds its scene's and more: a folder that names the scene (a flight, a place)
        holds photos of any size.
        """
        if self._pattern is not None:
            found = self._pattern.search(path)
            in_name = found is not None and found.start(self._group) > path.rfind("/")
            return in_name and self.scene(path, "") not in ("", PurePosixPath(path).stem)
        return self.rule != "image" and is_window_name(path)

    def said(self, stems: Mapping[str, str]) -> dict[str, Any]:
        """Return what was assumed of images, given by path with their own names, with an example.

        Raises:
            OptionError: a regular expression is found in none of them.
        """
        scenes: dict[str, list[str]] = {}
        paths = sorted(stems)
        for path in paths:
            scenes.setdefault(self.scene(path, stems[path]), []).append(path)
        if self._pattern is not None and paths and not any(self._pattern.search(path) for path in paths):
            raise OptionError(f"--scene {printable(self.rule)}: is found in none of the {len(paths):,} images, such as {min(paths)}")
        result: dict[str, Any] = {"rule": self.rule, "images": len(paths), "scenes": len(scenes), "example": None}
        if not scenes:
            return {**result, "said": "scene: no image"}
        largest, members = min(scenes.items(), key=lambda item: (-len(item[1]), not self.is_window(item[1][0]), item[0]))
        result["example"] = {"image": members[0], "scene": largest, "images": len(members)}
        return {**result, "said": self._said(members[0], largest, len(members), len(scenes), len(paths))}

    def _said(self, image: str, scene: str, members: int, scenes: int, images: int) -> str:
        how = {"auto": "from the name", "image": "every image is its own", "folder": "from the folder"}.get(self.rule, f"by {self.rule}")
        if self.rule == "auto" and scenes == images and not self.is_window(image):
            how = "every image is its own"
        change = "" if self.rule != "auto" else "; --scene says it otherwise"
        all_of = f"{_counted(scenes, 'scene')} of {_counted(images, 'image')}"
        return f"scene: {how}, e.g. {PurePosixPath(image).name} -> {scene} ({_counted(members, 'image')}); {all_of}{change}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
