"""VRSBench's three forms: per-image JSON, LLaVA train conversations, and EVAL rows.

Box tokens are `int(100 * v)`, truncated toward zero, so the value lies half a step further out: decode with
+0.5 (and -0.5 for negative tokens). Measured against true masks: mean box IoU .72 raw, .80 with the half step.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Final

from risbench.core.errors import InvalidRowError, shortened
from risbench.core.geometry import quad_bounds, quad_from_flat
from risbench.core.record import Box
from risbench.formats.source.format import Format, Look, Verdict, each, file_by_file
from risbench.formats.source.lenient_json import Json5Budget, load_json, parse_json
from risbench.formats.source.rows import GivenBox, Item, Refused, Row, SetAside, guarded, key_text, numbers, stated_split, text
from risbench.formats.source.text import decoded
from risbench.formats.source.tree import Entry

DATASET: Final = "VRSBench"
LICENCE: Final = "text CC-BY-4.0; images DOTA (academic use) or DIOR (CC BY-NC)"
TOKEN_QUANTUM: Final = 0.01
_MAX_PROMPT_CHARACTERS: Final = 2000
# float32 corners are exact to a fraction of a pixel, coords are rounded to 2 decimals, tokens cut to 2.
_TOKEN_GROUP = re.compile(r"\{\s*<\s*(-?\d{1,6})\s*>\s*<\s*(-?\d{1,6})\s*>\s*<\s*(-?\d{1,6})\s*>\s*<\s*(-?\d{1,6})\s*>\s*\}")
_BETWEEN_GROUPS = re.compile(r"(?:\s|,|;|and|<delim>)*", re.IGNORECASE)
_TASK_TAG = re.compile(r"^\s*(?:<image>|<img>.*?</img>)?\s*\[(\w+)\]\s*", re.DOTALL)
_LISTED_BOX = re.compile(r"[\[({]\s*\d{1,4}(?:\.\d{1,8})?(?:\s*,\s*\d{1,4}(?:\.\d{1,8})?){3}\s*[\])}]")
_PARAGRAPH = re.compile(r"<p>(.*?)</p>", re.DOTALL)
_PROMPTS = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        r"^(?:from|in|based on) (?:this|the) image,? (?:please )?tell me the location of (.*?)[\s?.]*$",
        r"^(?:please )?give me the (?:location|bounding box|position) of (.*?)[\s?]*$",
        r"^could you tell me the location (?:for|of) (.*?)[\s?]*$",
        r"^(?:please )?(?:provide|output|detect) the (?:location|bounding box(?:es)?|position|coordinates) of (.*?)[\s?]*$",
        r"^where can (?:i|we) (?:locate|find) (?:the )?(.*?)[\s?]*$",
        r"^where (?:is|are) (.*?)[\s?]*$",
        r"^the location of (.*?) is[\s:?]*$",
    )
)


def looks_like_vrsbench(head: str) -> bool:
    """Return whether the first characters of a JSON file are those of one of the three forms."""
    return (
        ('"image_id"' in head and '"question"' in head)
        or ('"conversations"' in head and '"image"' in head)
        or ('"objects"' in head and ("obj_c" in head or '"obj_id"' in head))
        or ('"image"' in head and '"expression"' in head and '"boxes_0_100_xyxy"' in head)
    )


def read_vrsbench(entry: Entry) -> Iterator[Item]:
    """Yield the rows of one JSON or JSONL file of any of the three forms.

    Raises:
        InvalidRowError: the file as a whole cannot be read, or is of none of the forms.
    """
    if entry.suffix == ".jsonl":
        yield from _read_lines(entry)
        return
    value = load_json(entry)
    if isinstance(value, dict):
        if "objects" not in value:
            raise InvalidRowError("unknown_layout", "file", entry.path, "a JSON object must have 'objects' and 'image'")
        yield from _read_per_image(value, entry)
        return
    if not isinstance(value, list):
        raise InvalidRowError("unknown_layout", "file", entry.path, "it must hold a list of rows or one object with 'objects'")
    for index, row in enumerate(value):
        yield from _read_listed(row, index, entry)


def _read_lines(entry: Entry) -> Iterator[Item]:
    budget = Json5Budget()
    for index, line in enumerate(decoded(entry.read(), entry.path, "surrogateescape").split("\n")):
        if not line.strip():
            continue
        try:
            row = parse_json(line, f"{entry.path}: line {index + 1}", budget)
        except InvalidRowError as reason:
            yield Refused(entry.path, str(index), f"line {index + 1}", reason, line)
            continue
        yield from _read_listed(row, index, entry)


def _read_listed(row: Any, index: int, entry: Entry) -> Iterator[Item]:
    if not isinstance(row, dict):
        reason = InvalidRowError("unknown_layout", f"row {index}", row, "a row must be a JSON object")
        yield Refused(entry.path, str(index), f"row {index}", reason, shortened(row))
    elif "objects" in row:
        yield from _read_per_image(row, entry)
    elif "conversations" in row:
        yield from _read_conversation(row, index, entry)
    elif "boxes_0_100_xyxy" in row:
        yield _row_of(_boxes_row, row, index, entry, f"{entry.stem}#{index}")
    else:
        key = row.get("question_id")
        # Rows without a key of their own are named by file and place, so that no other file's keys are mistaken for theirs.
        yield _row_of(_eval_row, row, index, entry, f"{entry.stem}#{index}" if key is None else key_text(key))


def _row_of(reader: Callable[..., Item], row: Mapping[str, Any], index: int, entry: Entry, key: str) -> Item:
    return guarded(partial(reader, row, index, entry, key), entry.path, key, f"row {index}", partial(_raw, row))


def _raw(row: Any) -> str:
    try:
        return json.dumps(row, sort_keys=True, default=repr)
    except (ValueError, RecursionError):
        return shortened(row)


def _eval_row(row: Mapping[str, Any], index: int, entry: Entry, key: str) -> Item:
    kind = row.get("type", "ref")
    if kind not in ("ref", "refer", "referring"):
        return SetAside(entry.path, key, f"row {index}", "not_referring", f"type is {kind!r}")
    image = text(row, "image_id")
    corner = corner_box(row["obj_corner"]) if row.get("obj_corner") is not None else None
    boxes: list[GivenBox] = []
    if corner is None or row.get("ground_truth") is not None:
        boxes = [GivenBox(box, "token", True, quantum=TOKEN_QUANTUM) for box in parse_tokens(text(row, "ground_truth"), "ground_truth")]
    if corner is not None and len(boxes) <= 1:
        boxes = [corner]
    unique = row.get("unique")
    fields = {"uniqueness": "unique" if unique else "not unique"} if isinstance(unique, bool) else {}
    dataset = row.get("dataset")
    return Row(
        file=entry.path,
        source_key=key,
        locator=f"row {index}",
        dataset=dataset if isinstance(dataset, str) and dataset not in ("", "RSBench") else DATASET,
        image=image,
        category=text(row, "obj_cls"),
        boxes=tuple(boxes),
        sentence=text(row, "question"),
        sentence_origin="eval:question",
        split=_stated_split(entry),
        fields=fields,
        licence=_licence(image) if dataset in (None, "RSBench", DATASET) else None,
    )


def _boxes_row(row: Mapping[str, Any], index: int, entry: Entry, key: str) -> Item:
    given = row["boxes_0_100_xyxy"]
    if not isinstance(given, list) or not given:
        raise InvalidRowError("wrong_length", "boxes_0_100_xyxy", given, "it must be a list of boxes of 4 numbers")
    boxes = []
    for place, values in enumerate(given):
        x_min, y_min, x_max, y_max = numbers(values, 4, f"boxes_0_100_xyxy[{place}]")
        boxes.append(GivenBox(decode_tokens(x_min, y_min, x_max, y_max), "token", True, quantum=TOKEN_QUANTUM))
    return Row(
        file=entry.path,
        source_key=key,
        locator=f"line {index + 1}",
        dataset="",
        image=text(row, "image"),
        category=text(row, "category"),
        boxes=tuple(boxes),
        sentence=text(row, "expression"),
        sentence_origin="expression",
    )


def _read_conversation(row: Mapping[str, Any], index: int, entry: Entry) -> Iterator[Item]:
    """Yield one item per question and answer; VRSBench has one pair a row, other LLaVA files have several."""
    turns, key = row["conversations"], f"{entry.stem}#{index}"
    if not isinstance(turns, list) or len(turns) <= 2:
        yield _row_of(_train_row, row, index, entry, key)
        return
    for start in range(0, len(turns), 2):
        pair = {**row, "conversations": turns[start : start + 2]}
        yield _row_of(_train_row, pair, index, entry, key if start == 0 else f"{key}.{start // 2}")


def _train_row(row: Mapping[str, Any], index: int, entry: Entry, key: str) -> Item:
    turns = row["conversations"]
    if not isinstance(turns, list) or len(turns) < 2 or not all(isinstance(turn, dict) for turn in turns):
        raise InvalidRowError("unknown_layout", "conversations", turns, "it must be a list of at least two turns")
    question, answer = text(turns[0], "value"), text(turns[1], "value")
    if len(question) > _MAX_PROMPT_CHARACTERS:
        bound = f"it has {len(question):,} characters; at most {_MAX_PROMPT_CHARACTERS:,}"
        raise InvalidRowError("sentence_too_long", "conversations[0].value", question, bound)
    tag = _TASK_TAG.match(question)
    if tag is None or tag[1].lower() != "refer":
        _check_no_box(answer)
        return SetAside(entry.path, key, f"row {index}", "not_referring", f"task is [{tag[1]}]" if tag else "no task tag")
    sentence = sentence_of_prompt(question[tag.end() :])
    boxes = tuple(GivenBox(box, "token", True, quantum=TOKEN_QUANTUM) for box in parse_tokens(answer, "conversations[1].value"))
    return Row(
        file=entry.path,
        source_key=key,
        locator=f"row {index}",
        dataset=DATASET,
        image=text(row, "image"),
        category="",
        boxes=boxes,
        sentence=sentence,
        sentence_origin="train:conversation",
        split=_stated_split(entry),
        licence=_licence(text(row, "image")),
    )


def _check_no_box(answer: str) -> None:
    """Check that the answer of a row without [refer] is no box: such a row would refer, in a form that is not read.

    Raises:
        InvalidRowError: it holds four numbers in brackets, or a box in tokens.
    """
    found = _LISTED_BOX.search(answer[:20_000])
    if found is None:
        return
    values = [float(value) for value in re.findall(r"\d+(?:\.\d+)?", found[0])]
    scale = "shares of the sides" if max(values) <= 1.5 else "hundredths, thousandths or pixels"
    wanted = "a row that refers begins with [refer], and its box is {<x1><y1><x2><y2>} in hundredths"
    bound = f"the answer holds a box as a list of {scale}, which is not read; {wanted}"
    raise InvalidRowError("unknown_box_form", "conversations[1].value", found[0], bound)


def _read_per_image(value: Mapping[str, Any], entry: Entry) -> Iterator[Item]:
    objects, image = value["objects"], value.get("image")
    if not isinstance(objects, list) or not isinstance(image, str):
        raise InvalidRowError("unknown_layout", "image", image, "'objects' must be a list and 'image' a file name")
    stem = PurePosixPath(image).stem
    for index, row in enumerate(objects):
        key = f"{entry.stem}#{key_text(row.get('obj_id', index)) if isinstance(row, dict) else index}"
        locator = f"object {index}"
        if entry.suffix == ".json" and stem != entry.stem and not entry.name.startswith("VRSBench"):
            reason = InvalidRowError(
                "image_name_differs", "image", image, f"the annotation file is for {entry.stem!r}; its boxes may belong to either"
            )
            yield Refused(entry.path, key, locator, reason, _raw(row))
            continue
        make = partial(_object_row, row, image, key, locator, entry)
        yield guarded(make, entry.path, key, locator, partial(_raw, row))


def _object_row(row: Any, image: str, key: str, locator: str, entry: Entry) -> Item:
    if not isinstance(row, dict):
        raise InvalidRowError("unknown_layout", "objects", row, "an object must be a JSON object")
    object_id = key_text(row["obj_id"]) if isinstance(row.get("obj_id"), (int, str)) else None
    if row.get("obj_corner") is not None:
        box = corner_box(row["obj_corner"], object_id)
    elif row.get("obj_coord") is not None:
        x_min, y_min, x_max, y_max = numbers(row["obj_coord"], 4, "obj_coord")
        box = GivenBox((x_min, y_min, x_max, y_max), "coord", True, quantum=TOKEN_QUANTUM, object_id=object_id)
    else:
        raise InvalidRowError("missing_field", "obj_corner", None, "an object needs obj_corner or obj_coord")
    names = {
        "obj_position": "absolute_position",
        "obj_rel_position": "relative_position",
        "obj_size": "size",
        "obj_rel_size": "relative_size",
    }
    fields = {kind: str(row[name]).strip().replace("largeest", "largest") for name, kind in names.items() if row.get(name)}
    if isinstance(row.get("is_unique"), bool):
        fields["uniqueness"] = "unique" if row["is_unique"] else "not unique"
    sentence = row.get("referring_sentence")
    if sentence is not None and not isinstance(sentence, str):
        raise InvalidRowError("not_a_string", "referring_sentence", sentence, "it must be a string")
    return Row(
        file=entry.path,
        source_key=key,
        locator=locator,
        dataset=DATASET,
        image=image,
        category=text(row, "obj_cls"),
        boxes=(box,),
        sentence=sentence or "",
        sentence_origin="annotation:referring_sentence",
        split=_stated_split(entry),
        object_id=object_id,
        fields=fields,
        licence=_licence(image),
        flagged=bool(row.get("flag")),
    )


def _licence(image: str) -> str:
    """Return what applies to a row: its text is VRSBench's, its image DOTA's (P0003_0002.png) or DIOR's (00003_0002.png)."""
    name = PurePosixPath(image).name
    if re.match(r"P\d{4}_", name):
        return "text CC-BY-4.0; image DOTA, academic use only"
    return "text CC-BY-4.0; image DIOR, CC BY-NC" if re.match(r"\d{5}_", name) else LICENCE


def _stated_split(entry: Entry) -> str | None:
    """Return the producer's part: train, or eval, whose images and annotations it calls val."""
    split = stated_split(entry.path)
    return "eval" if split == "val" else split


def corner_box(value: Any, object_id: str | None = None) -> GivenBox:
    """Return the oriented box of 8 shares x1, y1 ... x4, y4; they are not clipped and may lie outside 0-1.

    Raises:
        InvalidRowError: not 8 finite numbers.
    """
    quad = quad_from_flat(numbers(value, 8, "obj_corner"))
    return GivenBox(quad_bounds(quad), "corner", True, quad=quad, object_id=object_id)


def parse_tokens(value: str, field: str) -> list[Box]:
    """Return the boxes (shares of the image's sides) in `{<x1><y1><x2><y2>}` groups.

    Raises:
        InvalidRowError: the text holds anything but such groups.
    """
    boxes: list[Box] = []
    position = 0
    stripped = value[:20_000].strip()
    while position < len(stripped):
        group = _TOKEN_GROUP.match(stripped, position)
        if group is None:
            raise InvalidRowError("broken_tokens", field, value, "it must hold boxes written {<x1><y1><x2><y2>}")
        x_min, y_min, x_max, y_max = (float(token) for token in group.groups())
        boxes.append(decode_tokens(x_min, y_min, x_max, y_max))
        between = _BETWEEN_GROUPS.match(stripped, group.end())
        position = between.end() if between else group.end()
    if not boxes:
        raise InvalidRowError("broken_tokens", field, value, "it must hold boxes written {<x1><y1><x2><y2>}")
    return boxes


def decode_tokens(x_min: float, y_min: float, x_max: float, y_max: float) -> Box:
    """Return the box of four tokens in shares of the image's sides, half a step away from zero."""
    first, second, third, fourth = ((token + (0.5 if token >= 0 else -0.5)) / 100 for token in (x_min, y_min, x_max, y_max))
    return (first, second, third, fourth)


def sentence_of_prompt(prompt: str) -> str:
    """Return the sentence inside a train question: between <p> and </p>, else what the known prompt forms wrap."""
    paragraph = _PARAGRAPH.search(prompt)
    if paragraph is not None:
        return paragraph[1].strip()
    stripped = prompt.strip()
    for pattern in _PROMPTS:
        found = pattern.match(stripped)
        if found is not None:
            return found[1].strip()
    return stripped


def _verdict(look: Look) -> Verdict:
    if looks_like_vrsbench(look.json_head) or look.entry.name.lower().startswith("vrsbench"):
        return 0.7
    # A broken per-image annotation still has to be refused by name, not passed over.
    path = look.entry.path.lower()
    if path.split("/")[0].startswith("annotations") or "/annotations" in path:
        return 0.1
    return 'no "image_id" with "question", "image" with "conversations" or "boxes_0_100_xyxy", or "objects" with "obj_id"'


FORMATS: Final = Format(
    name="vrsbench",
    summary="VRSBench: per-image JSON, train conversations, EVAL rows; the forms of one object become one record with the best box",
    suffixes=(".json", ".jsonl"),
    detect=each(_verdict),
    read=file_by_file(lambda entry, _: read_vrsbench(entry), scaled=True),
    rank=50,
    scaled="vrsbench",
)
