"""The sheets of the triage page: which masks are on them, their pictures, and what is stored of an answer."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from risbench.core.errors import InputError, OptionError, printable
from risbench.core.masks import mask_digest, mask_of
from risbench.core.record import UNDECIDED, Record
from risbench.core.risk import risks
from risbench.core.storage import digest_of
from risbench.core.workspace import Workspace, read_records
from risbench.formats.split_list import SplitList, read_split_list
from risbench.review.rules.gold import known_answer
from risbench.review.store.review_store import ReviewStore, append_lines
from risbench.review.store.triage_votes import read_triage_votes

TILES: Final = 20
_TILE_PX: Final = 260
_INSET_PX: Final = 52
_MASK_INK: Final = (0, 184, 217)
_BOX_INK: Final = (224, 64, 154)


def training_list(split: Path) -> SplitList:
    """Return a frozen split list (`split.csv` of a release, or a list in manifests/splits) that names something for training.

    Raises:
        InputError: it cannot be read or is none, or has nothing for training.
    """
    try:
        found = read_split_list(split)
    except OSError as error:
        raise InputError(f"--split {split}: cannot be read ({error.strerror})") from error
    if "train" not in found.splits.values():
        raise InputError(f"--split {split}: has no training scene")
    return found


class Triage:
    """The sheets of one sitting. A sheet that was answered is stored at once and never comes again."""

    def __init__(self, desk: ReviewStore, person: str, split: Path, share: float) -> None:
        """Choose the share of lowest risk among undecided masks of training scenes that nobody has been given yet.

        Raises:
            OptionError: the share lies out of bounds.
            InputError: there is no such person or split list, or nothing is left to look at.
        """
        if not 0 < share <= 1:
            raise OptionError(f"--share {share}: must lie between 0 and 1")
        if refused := desk.annotator(person).gets_no_work:
            raise InputError(refused)
        self._desk, self._person, self._lock = desk, person, threading.Lock()
        self._served: set[int] = set()
        records = list(read_records(desk.workspace.latest()))
        self._records = {record.id: record for record in records}
        self._digests: dict[str, str] = {}
        chosen = self._chosen(records, training_list(split), share)
        if not chosen:
            raise InputError(
                f"{desk.workspace.root}: nothing to triage: no undecided mask of a training scene is left that is not out already"
            )
        sheets = [chosen[start : start + TILES] for start in range(0, len(chosen), TILES)]
        people = sorted(one.name for one in desk.annotators())
        first = people.index(person) * len(sheets) // len(people)  # all at once begin at different sheets
        self.sheets = sheets[first:] + sheets[:first]

    def _chosen(self, records: Sequence[Record], trained: SplitList, share: float) -> list[str]:
        out = {item.record for item in self._desk.queue() if not item.withdrawn}
        risk, glances = risks(records), read_triage_votes(self._desk)
        able = []
        for record in records:
            wanted = record.mask is not None and not record.problems and record.expression is not None
            if not wanted or record.review.status not in UNDECIDED or known_answer(record) or record.id in out:
                continue
            if trained.of(record) == "train":
                able.append(record)
        able.sort(key=lambda record: (risk[record.id], record.id))
        lowest = able[: round(share * len(able))]
        for record in lowest:
            assert record.mask is not None, "chosen above"
            self._digests[record.id] = mask_digest(mask_of(record.mask))
        fresh = [record for record in lowest if not ((seen := glances.get(record.id)) and seen.mask == self._digests[record.id])]
        # like stands beside like: a wrong one shows
        return [record.id for record in sorted(fresh, key=lambda record: (record.category.name, risk[record.id], record.id))]

    def sheet_id(self, names: Sequence[str]) -> str:
        """Return what a sheet is called: other masks make another sheet."""
        return digest_of([[name, self._digests[name]] for name in names])[:16]

    def next(self) -> dict[str, Any]:
        """Return the first sheet that is not answered, as the page wants it."""
        with self._lock:
            glances = read_triage_votes(self._desk)
            # somebody else may have looked at it meanwhile
            while self.sheets and all((seen := glances.get(name)) and seen.mask == self._digests[name] for name in self.sheets[0]):
                self.sheets.pop(0)
            self._served = set()
            names = self.sheets[0] if self.sheets else []
        if not names:
            return {"id": "", "left": 0, "tiles": []}
        texts = [record.expression.text if (record := self._records[name]).expression else "" for name in names]
        tiles = [{"number": number, "text": text} for number, text in enumerate(texts)]
        return {"id": self.sheet_id(names), "left": len(self.sheets), "tiles": tiles}

    def answer(self, sheet: str, doubted: Sequence[int], seconds: float) -> None:
        """Store what somebody made of a sheet; the same answer sent twice is stored once.

        Raises:
            InputError: it is not the sheet on the screen, names tiles that it does not have, or lets pass what was not looked at.
        """
        with self._lock:
            names = self.sheets[0] if self.sheets else []
            if not names or sheet != self.sheet_id(names):
                raise InputError(f"sheet {printable(sheet)}: is not the one on the screen; load the page again")
            if not all(type(number) is int and 0 <= number < len(names) for number in doubted):
                raise InputError(f"doubted = {printable(doubted)}: must be numbers of tiles, 0 to {len(names) - 1}")
            if unseen := sorted(set(range(len(names))) - self._served - set(doubted)):
                raise InputError(f"tiles {unseen} of sheet {sheet}: were not on the screen; load the page again, or doubt them")
            each = round(min(max(float(seconds), 0.0), 3600.0) / len(names), 3)
            lines = [
                json.dumps(
                    {
                        "record": name,
                        "mask": self._digests[name],
                        "person": self._person,
                        "sheet": sheet,
                        "doubted": k in doubted,
                        "seconds": each,
                    },
                    sort_keys=True,
                )
                for k, name in enumerate(names)
            ]
            append_lines(self._desk.root / "triage.jsonl", lines)
            self.sheets.pop(0)

    def tile(self, sheet: str, number: int) -> bytes:
        """Return the picture of a tile of the sheet on the screen, as JPEG.

        Raises:
            InputError: it is not the sheet on the screen, or has no such tile.
        """
        with self._lock:
            names, served = self.sheets[0] if self.sheets else [], self._served
        if not names or sheet != self.sheet_id(names):
            raise InputError(f"sheet {printable(sheet)}: is not the one on the screen; load the page again")
        if not 0 <= number < len(names):
            raise InputError(f"tile {number}: the sheet has {len(names)}")
        picture = _picture(self._desk.workspace, self._records[names[number]])
        served.add(number)  # of this sheet, though another may be on the screen by now
        return picture


def _locate(canvas: NDArray[np.uint8], low: NDArray[np.float64], high: NDArray[np.float64], width: int, height: int) -> None:
    """Draw where in the image the object lies, small in the corner: many sentences speak of it."""
    import cv2

    scale = _INSET_PX / max(width, height)
    right, bottom = round(width * scale), round(height * scale)
    corner = np.array([_TILE_PX - right - 4, _TILE_PX - bottom - 4])
    canvas[corner[1] : corner[1] + bottom, corner[0] : corner[0] + right] = 255
    cv2.rectangle(canvas, tuple((corner - 1).tolist()), tuple((corner + (right, bottom)).tolist()), (60, 60, 60), 1)
    first, second = ((corner + np.array(place) * scale).round().astype(int) for place in (low, high))
    cv2.rectangle(canvas, tuple(first.tolist()), tuple(np.maximum(second, first + 2).tolist()), _BOX_INK, -1)


def _picture(workspace: Workspace, record: Record) -> bytes:
    """Return a square view of a record: its box pink, its mask outlined and faintly filled, with as much around it."""
    import cv2

    assert record.mask is not None, "only masks are triaged"
    pixels = workspace.read_image(record)
    mask = mask_of(record.mask).astype(np.uint8)
    low = np.min([target.box[:2] for target in record.targets], axis=0)
    high = np.max([target.box[2:] for target in record.targets], axis=0)
    half = max(24.0, float((high - low).max())) * 0.9
    scale = _TILE_PX / (2 * half)
    x, y = (low + high) / 2
    place = np.array([[scale, 0, _TILE_PX / 2 - scale * x], [0, scale, _TILE_PX / 2 - scale * y]])
    size = (_TILE_PX, _TILE_PX)
    view = cv2.warpAffine(pixels, place, size, flags=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR, borderValue=(40, 40, 40))
    large = cv2.warpAffine(mask * 255, place, size, flags=cv2.INTER_LINEAR) > 127
    shown = view.astype(np.float32)
    shown[large] = 0.75 * shown[large] + 0.25 * np.array(_MASK_INK, dtype=np.float32)
    canvas = np.ascontiguousarray(shown.round().astype(np.uint8))
    rims = cv2.findContours(large.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]
    cv2.drawContours(canvas, rims, -1, _MASK_INK, 1, cv2.LINE_AA)
    for target in record.targets:
        corners = (np.array(target.box).reshape(2, 2) * scale + place[:, 2]).round().astype(int)
        cv2.rectangle(canvas, tuple(corners[0].tolist()), tuple(corners[1].tolist()), _BOX_INK, 1, cv2.LINE_AA)
    _locate(canvas, low, high, record.image.width, record.image.height)
    out = io.BytesIO()
    Image.fromarray(canvas).save(out, format="JPEG", quality=90)
    return out.getvalue()
