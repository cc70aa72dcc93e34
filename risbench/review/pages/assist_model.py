"""The model behind the assistant: a drawn box or point in, a mask as a brush region out."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from risbench.core.errors import InputError
from risbench.core.record import Box, Record
from risbench.core.workspace import Workspace, read_records
from risbench.formats.brush import encode_brush
from risbench.review.store.review_store import ReviewStore

USER: Final = "risbench"
# A point has no extent: around one that lies outside the given box, this much of the picture is looked at.
_POINT_SIDE_PX: Final = 64.0
# Pictures at hand: as many as people work at once; SAM's embedding of one takes 4 MB.
_PICTURES: Final = 16


class Helper:
    """The workspace's model: its adapter, else the built-in one. One prompt at a time, the last pictures of everybody at hand."""

    def __init__(self, desk: ReviewStore) -> None:
        self._desk, self._lock = desk, threading.Lock()
        self._make, self.name = _predictor(desk.workspace)
        self._by_key: dict[str, Record] = {}
        self._loaded: OrderedDict[str, tuple[Any, tuple[int, int]]] = OrderedDict()

    def answer(self, task: Mapping[str, Any], drawn: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the mask that the last drawn box or point asks for, as a brush region; none where nothing was drawn.

        Raises:
            InputError: the task is none of this workspace, or what was drawn is damaged.
        """
        from risbench.sam.predictor import SamPrompt

        asked = [region for region in drawn if region.get("from_name") in ("ask_box", "ask_point")]
        if not asked:
            return []
        with self._lock:
            record = self._record(task)
            predictor, (height, width) = self._load(record)
            box, point = _prompt(asked[-1], record, height, width)
            found = predictor.predict([SamPrompt(box, None, [(*point, 1)] if point else ())])
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
        if key not in self._by_key:  # a push came after the last look
            records = {record.id: record for record in read_records(self._desk.workspace.latest())}
            self._by_key = {item.key: records[item.record] for item in self._desk.queue() if item.record in records}
        if key not in self._by_key:
            raise InputError(f"task {task.get('id')}: is none of this workspace")
        return self._by_key[key]

    def _load(self, record: Record) -> tuple[Any, tuple[int, int]]:
        """Return a predictor that holds the record's image, and the image's (height, width)."""
        path = record.image.path
        if path not in self._loaded:
            pixels = self._desk.workspace.read_image(record)
            predictor = self._make()
            predictor.load(pixels)
            self._loaded[path] = predictor, (int(pixels.shape[0]), int(pixels.shape[1]))
            if len(self._loaded) > _PICTURES:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(path)
        return self._loaded[path]


def _predictor(workspace: Workspace) -> tuple[Callable[[], Any], str]:
    """Return what makes a predictor on the workspace's model, and what to call the model."""
    from risbench.sam.open import open_model, predictor_on

    path = workspace.adapter()
    model = open_model(path)[0]
    name = "builtin" if path is None else f"adapter {workspace.settings.adapter}"
    return lambda: predictor_on(model, views=1), name


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
        raise InputError(f"{region.get('from_name')}: it must be a box or point in percent of the picture") from None
    given = next(
        (target.box for target in record.targets if target.box[0] <= x <= target.box[2] and target.box[1] <= y <= target.box[3]), None
    )
    half = _POINT_SIDE_PX / 2
    around = (max(0.0, x - half), max(0.0, y - half), min(float(width), x + half), min(float(height), y + half))
    return given or around, (x, y)
