"""`risbench review assist`: a box or point drawn on the labelling page comes back as a mask of the workspace's model.

Label Studio calls it as a machine-learning backend: /health, /setup, /predict, with basic authentication.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from risbench.core.errors import InputError, TryAgainLater, missing_extra
from risbench.core.imagery import read_raster
from risbench.core.record import Box, Record
from risbench.core.workspace import Workspace, read_records
from risbench.formats.brush import encode_brush
from risbench.review.desk import Desk
from risbench.review.server import ASSIST_HOST
from risbench.review.studio import Studio
from risbench.review.web import need_web, serving

USER: Final = "risbench"
_TITLE: Final = "risbench assist"
# A point has no extent: around one that lies outside the given box, this much of the picture is looked at.
_POINT_SIDE_PX: Final = 64.0


@contextlib.contextmanager
def assisting(workspace: Path | str = ".", *, host: str = ASSIST_HOST, port: int = 0) -> Iterator[dict[str, Any]]:
    """Hold the backend for the time of a `with`, connected to every annotator's project.

    Raises:
        EnvironmentLacks: the review or sam extra is not installed, or the server refuses the backend.
        InputError: no server is known, or nobody has a project yet.
        OptionError: the address cannot be used.
    """
    need_web()
    for package in ("torch", "segment_anything"):
        if util.find_spec(package) is None:
            raise missing_extra(package.replace("_", "-"), "sam")
    from risbench.review.assist_app import application

    desk = Desk(Workspace.open(workspace))
    studio = Studio.of(desk)
    projects = sorted(person.project for person in desk.annotators() if person.project is not None)
    if not projects:
        raise InputError(f"{desk.root}: nobody has a project yet; run `risbench review push` first")
    secret, helper = secrets.token_urlsafe(24), Helper(desk)
    with serving(application(helper, secret), host, port) as url:
        try:
            for project in projects:
                _connect(studio, project, url, secret)
            yield {"url": url, "model": helper.name, "projects": projects}
        finally:
            with contextlib.suppress(TryAgainLater):  # the server is gone already: the next run takes back what is left
                for project in projects:
                    _disconnect(studio, project)


def _connect(studio: Studio, project: int, url: str, secret: str) -> None:
    _disconnect(studio, project)
    body = {
        "project": project,
        "url": url,
        "title": _TITLE,
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": USER,
        "basic_auth_pass": secret,
    }
    studio.change("POST", "/api/ml/", {**body, "is_interactive": True})


def _disconnect(studio: Studio, project: int) -> None:
    """Take back what an earlier run left."""
    for row in studio.get("/api/ml/", project=project):
        if row["title"] == _TITLE:
            studio.change("DELETE", f"/api/ml/{row['id']}")


@dataclass
class _Loaded:
    """The image that the model looks at."""

    path: str
    size: tuple[int, int]


class Helper:
    """The workspace's model: its adapter, else the built-in one. One prompt at a time."""

    def __init__(self, desk: Desk) -> None:
        self._desk, self._lock = desk, threading.Lock()
        self._predictor, self.name = _predictor(desk.workspace)
        self._records: dict[str, Record] = {}
        self._keys: dict[str, str] = {}
        self._loaded = _Loaded("", (0, 0))

    def answer(self, task: Mapping[str, Any], drawn: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the mask that the last drawn box or point asks for, as a brush region; none where nothing was drawn.

        Raises:
            InputError: the task is none of this workspace, or what was drawn is damaged.
        """
        from risbench.sam.predictor import SamPrompt

        asked = [region for region in drawn if region.get("from_name") in ("ask_box", "ask_point")]
        if not asked:
            return []
        record = self._record(task)
        with self._lock:
            height, width = self._load(record)
            box, point = _prompt(asked[-1], record, height, width)
            found = self._predictor.predict([SamPrompt(box, None, [(*point, 1)] if point else ())])
        mask: NDArray[np.bool_] = found.logits[0] > 0
        if not mask.any():
            return []
        value = {"format": "rle", "rle": encode_brush(mask), "brushlabels": ["object"]}
        size = {"original_width": width, "original_height": height, "image_rotation": 0}
        return [
            {"type": "brushlabels", "from_name": "mask", "to_name": "image", **size, "value": value, "score": float(found.predicted_iou[0])}
        ]

    def _record(self, task: Mapping[str, Any]) -> Record:
        key = str((task.get("data") or {}).get("key"))
        if key not in self._keys:
            self._keys = {item.key: item.record for item in self._desk.queue()}
            self._records = {record.id: record for record in read_records(self._desk.workspace.latest())}
        record = self._records.get(self._keys.get(key, ""))
        if record is None:
            raise InputError(f"task {task.get('id')}: is none of this workspace")
        return record

    def _load(self, record: Record) -> tuple[int, int]:
        if record.image.path != self._loaded.path:
            with open(self._desk.workspace.image_path(record), "rb") as file:
                pixels = read_raster(file, record.image.path).pixels
            self._predictor.load(pixels)
            self._loaded = _Loaded(record.image.path, (int(pixels.shape[0]), int(pixels.shape[1])))
        return self._loaded.size


def _predictor(workspace: Workspace) -> tuple[Any, str]:
    """Return the workspace's model ready for prompts, and what to call it."""
    from risbench.sam.adapter_file import COMPACT_BASE, base_beside, load_adapted, load_whole_adapted, read_adapter
    from risbench.sam.builtin import load_builtin
    from risbench.sam.compact_predictor import CompactPredictor
    from risbench.sam.pasam import PasamPredictor

    path = workspace.adapter()
    if path is None:
        return CompactPredictor(load_builtin("cpu")[0], views=1), "builtin"
    if read_adapter(path)[0].whole:
        return PasamPredictor(load_whole_adapted(path, base_beside(path), "cpu")[0]), f"adapter {workspace.settings.adapter}"
    own = path.parent / COMPACT_BASE
    model, _ = load_adapted(path, "cpu", own if own.is_file() else None)
    return CompactPredictor(model, views=1), f"adapter {workspace.settings.adapter}"


def _prompt(region: Mapping[str, Any], record: Record, height: int, width: int) -> tuple[Box, tuple[float, float] | None]:
    """Return the box to look at and the point in it, in pixels, of what was drawn (Label Studio has percents)."""
    value = region.get("value") or {}
    try:
        x, y = float(value["x"]) * width / 100, float(value["y"]) * height / 100
        if region["from_name"] == "ask_box":
            right, bottom = x + float(value["width"]) * width / 100, y + float(value["height"]) * height / 100
            box = (max(0.0, x), max(0.0, y), min(float(width), right), min(float(height), bottom))
            if not (box[0] < box[2] and box[1] < box[3]):
                raise ValueError
            return box, None
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{region.get('from_name')}: a box or point in percents of the picture is wanted") from None
    given = next(
        (target.box for target in record.targets if target.box[0] <= x <= target.box[2] and target.box[1] <= y <= target.box[3]), None
    )
    half = _POINT_SIDE_PX / 2
    around = (max(0.0, x - half), max(0.0, y - half), min(float(width), x + half), min(float(height), y + half))
    return given or around, (x, y)
