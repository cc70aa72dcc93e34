"""What people answered, as it lies on the desk: one JSON line an answer in `answers/<project>.jsonl`, newest word only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter

from risbench.core.errors import InputError, InvalidRowError, printable
from risbench.core.geometry import polygon_mask
from risbench.core.masks import decode_rle, encode_rle
from risbench.core.rle import filled_runs
from risbench.core.storage import write_durably
from risbench.formats.brush import decode_brush
from risbench.review.store.review_store import ReviewStore
from risbench.review.store.stored import PULL, RESTORE, Number, Seconds, Text, read_rows

Verdict = Literal["accept", "fix", "reject", "unsure"]
VERDICTS: Final = ("accept", "fix", "reject", "unsure")
CANDIDATES: Final = ("A", "B", "C", "D")
Sentence = Literal["", "true and unique", "ambiguous", "wrong"]
Side = Annotated[int, Field(gt=0, le=1 << 20)]
FINALS: Final = (*CANDIDATES, "drawn", "reject")
AUDITS: Final = ("drawn", "cannot tell")
SENTENCES: Final = ("true and unique", "ambiguous", "wrong")
NOT_JUDGED: Final = "not judged"
# Brush edges come back anti-aliased; this and less is not of the object.
ALPHA_OVER: Final = 127
# A text that somebody pastes into the field for a better sentence.
_LONGEST_SENTENCE: Final = 1000


@dataclass(frozen=True)
class Answer:
    """One person's answer to one item. `size` and `counts` are the mask as COCO RLE, None where there is none (rejected).

    `sentence` is empty where the person chose nothing: then it is not judged. `changed` says whether the mask is another than the one
    shown; `lead_time_s` is what the page measured, reading included.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    key: Text
    record: Text
    annotator: Text
    task: Number
    annotation: Number
    updated: Text
    verdict: Verdict
    sentence: Sentence
    better: str
    size: tuple[Side, Side] | None
    counts: str | None
    changed: bool
    lead_time_s: Seconds | None

    def mask(self) -> NDArray[np.bool_] | None:
        """Return the mask (height, width)."""
        return decode_rle(self.size, self.counts) if self.size is not None and self.counts is not None else None


_ANSWER: Final = TypeAdapter(Answer)


def read_answers(desk: ReviewStore) -> list[Answer]:
    """Return all answers, by project and task.

    Raises:
        InputError: a file is damaged.
    """
    return [answer for path in sorted((desk.root / "answers").glob("*.jsonl")) for answer in answers_in(path)]


def answers_in(path: Path) -> list[Answer]:
    """Return one project's answers; none where nothing was pulled yet.

    Raises:
        InputError: the file is damaged.
    """
    set_aside = not path.stem.isdigit()  # of a project that is gone: no pull brings it back
    return read_rows(path, _ANSWER, RESTORE if set_aside else PULL, check=_wrong_mask)


def _wrong_mask(answer: Answer) -> str | None:
    """Return what is wrong with an answer's mask, None where it can be decoded."""
    if (answer.size is None) != (answer.counts is None):
        return "size and counts go together"
    if answer.size is None or answer.counts is None:
        return "a mask is missing, which the verdict needs" if answer.verdict in ("accept", "fix") else None
    try:
        filled_runs(*answer.size, answer.counts)
    except InputError as error:
        return str(error)
    return None


def check_size(answer: Answer, size: tuple[int, int], whose: str) -> None:
    """Pass an answer whose mask has this size (height, width), or that has none; `whose` is it that has it.

    Raises:
        InputError: the answer's mask has another, as in a damaged file: masks of two sizes cannot be compared.
    """
    if answer.size is not None and answer.size != size:
        found, there = (f"{width} x {height}" for height, width in (answer.size, size))
        mend = f"{RESTORE}, or remove that folder and run `risbench review pull` again"
        raise InputError(
            f"record {printable(answer.record)}: {answer.annotator}'s mask is {found} pixels, {whose} {there}; "
            f"the answers in review/answers are damaged or of another workspace: {mend}"
        )


def write_answers(path: Path, answers: Iterable[Answer]) -> None:
    """Store one project's answers, ordered by task."""
    ordered = sorted(answers, key=lambda answer: (answer.task, answer.annotation))
    write_durably(path, "".join(json.dumps(asdict(answer), sort_keys=True) + "\n" for answer in ordered).encode())


def read_annotation(row: Mapping[str, Any], shown: NDArray[np.bool_]) -> dict[str, Any]:
    """Return verdict, sentence, mask and time of an annotation as Label Studio exports it; `shown` (height, width) is where it began.

    The mask is the union of all brush strokes, outlines and filled boxes. A "fix" that changed nothing stays what the person said.

    Raises:
        InvalidRowError: no verdict, a damaged mask, one of another size, or none where one is needed.
    """
    result = row.get("result")
    if not isinstance(result, list) or not all(isinstance(item, dict) for item in result):
        raise InvalidRowError("no_result", "result", result, "it must be a list of regions and choices")
    verdict = "unsure" if row.get("was_cancelled") else _choice(result, "verdict", VERDICTS)
    if verdict is None:
        raise InvalidRowError("no_verdict", "verdict", None, f"it must be one of {', '.join(VERDICTS)}")
    # what is left of a rejected mask means nothing
    mask = np.zeros(shown.shape, dtype=bool) if verdict == "reject" else _mask(result, shown.shape)
    if verdict in ("accept", "fix") and not mask.any():
        raise InvalidRowError("mask_empty", "mask", 0, f"the verdict is {verdict}, and then a mask has at least one pixel")
    counts = encode_rle(mask)[1] if mask.any() else None
    lead = row.get("lead_time")
    return {
        "verdict": verdict,
        "sentence": _choice(result, "sentence", SENTENCES) or "",  # who chooses nothing has not judged it
        "better": _text(result, "better"),
        "size": (int(shown.shape[0]), int(shown.shape[1])) if counts is not None else None,
        "counts": counts,
        "changed": bool(counts is not None and not np.array_equal(mask, shown)),
        "lead_time_s": float(lead) if isinstance(lead, int | float) and 0 <= lead < 1e7 else None,
    }


def read_expert(row: Mapping[str, Any], shown: NDArray[np.bool_]) -> dict[str, Any]:
    """Return an expert's decision in the form of `read_annotation`: the candidate chosen, as the expert left it, or what was drawn.

    Raises:
        InvalidRowError: no choice, a damaged mask, one of another size, or none where one is needed.
    """
    result = row.get("result")
    if not isinstance(result, list) or not all(isinstance(item, dict) for item in result):
        raise InvalidRowError("no_result", "result", result, "it must be a list of regions and choices")
    final = _choice(result, "final", FINALS)
    if final is None:
        raise InvalidRowError("no_verdict", "final", None, f"it must be one of {', '.join(FINALS)}")
    candidates = [item for item in result if item.get("from_name") == "candidates"]
    if final in CANDIDATES:
        values = [(item, item.get("value")) for item in candidates]
        chosen = [item for item, value in values if isinstance(value, dict) and value.get("brushlabels") == [final]]
    else:
        chosen = [item for item in result if item not in candidates]
    choices = [{"from_name": "verdict", "value": {"choices": ["reject" if final == "reject" else "fix"]}}]
    choices += [item for item in result if item.get("from_name") in ("sentence", "better")]
    regions = [item for item in chosen if str(item.get("type")).endswith("labels")]
    found = read_annotation({"result": [*choices, *regions], "lead_time": row.get("lead_time")}, shown)
    # an expert who says nothing of the sentence leaves it to the others
    return {**found, "sentence": _choice(result, "sentence", SENTENCES) or ""}


def read_audit(row: Mapping[str, Any], shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """Return the mask (height, width) that an auditor drew, None where they could not tell what the sentence means.

    Raises:
        InvalidRowError: no choice, nothing drawn, a damaged mask, or one of another size.
    """
    result = row.get("result")
    if not isinstance(result, list) or not all(isinstance(item, dict) for item in result):
        raise InvalidRowError("no_result", "result", result, "it must be a list of regions and choices")
    said = _choice(result, "audit", AUDITS)
    if said is None and not row.get("was_cancelled"):
        raise InvalidRowError("no_verdict", "audit", None, f"it must be one of {', '.join(AUDITS)}")
    if said != "drawn":
        return None
    mask = _mask(result, shape)
    if not mask.any():
        raise InvalidRowError("mask_empty", "mask", 0, "what is drawn has at least one pixel")
    return mask


def _choice(result: list[dict[str, Any]], name: str, known: tuple[str, ...]) -> Any:
    for item in result:
        if item.get("from_name") == name and isinstance(item.get("value"), dict):
            chosen = item["value"].get("choices")
            if not isinstance(chosen, list) or len(chosen) != 1 or chosen[0] not in known:
                raise InvalidRowError("unknown_choice", name, chosen, f"it must be one of {', '.join(known)}")
            return chosen[0]
    return None


def _text(result: list[dict[str, Any]], name: str) -> str:
    for item in result:
        if item.get("from_name") == name and isinstance(item.get("value"), dict):
            lines = item["value"].get("text")
            lines = [lines] if isinstance(lines, str) else lines
            if isinstance(lines, list) and all(isinstance(line, str) for line in lines):
                return " ".join(" ".join(lines).split())[:_LONGEST_SENTENCE]
            raise InvalidRowError("no_text", name, lines, "it must be text")
    return ""


def _mask(result: list[dict[str, Any]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    height, width = int(shape[0]), int(shape[1])
    union = np.zeros((height, width), dtype=bool)
    for item in result:
        kind, value = item.get("type"), item.get("value")
        if kind not in ("brushlabels", "polygonlabels", "rectanglelabels") or not isinstance(value, dict):
            continue
        if kind == "rectanglelabels" and value.get("rectanglelabels") == ["given box"]:
            continue
        if (item.get("original_width"), item.get("original_height")) != (width, height):
            said = f"{item.get('original_width')} x {item.get('original_height')}"
            raise InvalidRowError("mask_wrong_size", "original_width", said, f"the image is {width} x {height}")
        if kind == "brushlabels":
            try:
                union |= decode_brush(value.get("rle") or [], height, width) > ALPHA_OVER
            except InputError as error:
                raise InvalidRowError("mask_damaged", "rle", "a list", str(error)) from None
        else:
            union |= polygon_mask(_corners(kind, value, height, width), height, width)
    return union


def _corners(kind: str, value: Mapping[str, Any], height: int, width: int) -> NDArray[np.float64]:
    """Return a shape's corners in pixels; Label Studio has them in percents, and turns boxes about their first corner."""
    try:
        if kind == "polygonlabels":
            corners = np.array(value["points"], dtype=np.float64).reshape(-1, 2) * (width / 100, height / 100)
        else:
            x, y, wide, high = (float(value[name]) / 100 for name in ("x", "y", "width", "height"))
            turn = np.deg2rad(float(value.get("rotation", 0)))
            if not np.isfinite([x, y, wide, high, turn]).all():
                raise ValueError
            square = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * (wide * width, high * height)
            corners = square @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + (x * width, y * height)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise InvalidRowError("shape_damaged", kind, printable(str(dict(value)), 80), "corners in percents are wanted") from None
    if len(corners) < 3 or not np.isfinite(corners).all() or np.abs(corners).max() > 10 * max(height, width):
        raise InvalidRowError("shape_damaged", kind, len(corners), "three or more finite corners on the image are wanted")
    return corners
