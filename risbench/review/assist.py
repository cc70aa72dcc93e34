"""`risbench review assist`: a box or point drawn on the labelling page comes back as a mask of the workspace's model.

Label Studio calls it as a machine-learning backend: /health, /setup, /predict, with basic authentication.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from risbench.core.errors import EnvironmentLacks, InputError, TryAgainLater, missing_extra
from risbench.core.imagery import read_raster
from risbench.core.reading import open_to_read
from risbench.core.record import Box, Record
from risbench.core.storage import locked
from risbench.core.workspace import Workspace, read_records
from risbench.formats.brush import encode_brush
from risbench.review.client import NotThere
from risbench.review.desk import Desk
from risbench.review.page import VERIFY, is_ours, project_title
from risbench.review.server import ASSIST_HOST
from risbench.review.studio import Studio
from risbench.review.web import need_web, serving

USER: Final = "risbench"
_TITLE: Final = "risbench assist"
# A point has no extent: around one that lies outside the given box, this much of the picture is looked at.
_POINT_SIDE_PX: Final = 64.0
# Pictures at hand: as many as people work at once; SAM's embedding of one takes 4 MB.
_PICTURES: Final = 16
# How often it is looked whether a push has made further projects.
_LOOK_AGAIN_S: Final = 20.0


@contextlib.contextmanager
def assisting(workspace: Path | str = ".", *, host: str = ASSIST_HOST, port: int = 0) -> Iterator[dict[str, Any]]:
    """Hold the backend for the time of a `with`, connected to every annotator's project, those that come meanwhile included.

    Raises:
        EnvironmentLacks: the review or sam extra is not installed, or the server refuses the backend.
        InputError: no server is known, or nobody has a project yet.
        OptionError: the address cannot be used.
        TryAgainLater: another assistant serves this workspace, or the server does not answer.
    """
    need_web()
    for package in ("torch", "segment_anything"):
        if util.find_spec(package) is None:
            raise missing_extra(package.replace("_", "-"), "sam")
    from risbench.review.assist_app import application

    desk = Desk(Workspace.open(workspace))
    studio = Studio.of(desk)
    place = desk.root / "assist"
    place.mkdir(exist_ok=True)
    with locked(place, "review assist"):
        projects, warnings = _projects(desk, studio)
        secret, helper = secrets.token_urlsafe(24), Helper(desk)
        with serving(application(helper, secret), host, port) as url:
            connected: list[int] = []
            end = threading.Event()
            follower = threading.Thread(target=_follow, args=(desk, studio, connected, url, secret, end), daemon=True)
            try:
                for project in projects:
                    _connect(studio, project, url, secret)
                    connected.append(project)
                follower.start()
                yield {"url": url, "model": helper.name, "projects": projects, "warnings": warnings}
            finally:
                end.set()
                if follower.is_alive():
                    follower.join()
                for project in connected:
                    # the server or the project is gone already: the next run takes back what is left
                    with contextlib.suppress(TryAgainLater, InputError):
                        _disconnect(studio, project)


def _follow(desk: Desk, studio: Studio, connected: list[int], url: str, secret: str, end: threading.Event) -> None:
    """Connect the projects that a push makes while the assistant runs; a server that does not answer is asked again."""
    while not end.wait(_LOOK_AGAIN_S):
        with contextlib.suppress(TryAgainLater, InputError, EnvironmentLacks):
            for project in _projects(desk, studio)[0]:
                if project not in connected:
                    _connect(studio, project, url, secret)
                    connected.append(project)


def _projects(desk: Desk, studio: Studio) -> tuple[list[int], list[str]]:
    """Return the annotators' projects that are there, and what to say of those that are not."""
    found, warnings = [], []
    for person in desk.annotators():
        if person.project is None:
            continue
        try:
            ours = is_ours(studio.project(person.project), project_title(desk, person, VERIFY))
        except NotThere:
            ours = False
        if ours:
            found.append(person.project)
        else:
            warnings.append(
                f"project {person.project} of {person.name} is gone from the server; `risbench review annotators renew {person.name}`"
            )
    if not found:
        raise InputError(f"{desk.root}: nobody has a project yet; run `risbench review push` first")
    return sorted(found), warnings


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


class Helper:
    """The workspace's model: its adapter, else the built-in one. One prompt at a time, the last pictures of everybody at hand."""

    def __init__(self, desk: Desk) -> None:
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
            with open_to_read(self._desk.workspace.image_path(record)) as file:
                pixels = read_raster(file, path).pixels
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
        raise InputError(f"{region.get('from_name')}: a box or point in percents of the picture is wanted") from None
    given = next(
        (target.box for target in record.targets if target.box[0] <= x <= target.box[2] and target.box[1] <= y <= target.box[3]), None
    )
    half = _POINT_SIDE_PX / 2
    around = (max(0.0, x - half), max(0.0, y - half), min(float(width), x + half), min(float(height), y + half))
    return given or around, (x, y)
