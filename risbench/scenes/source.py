"""A generated world written as a VRSBench folder, with the box noise of each tier and the truth as COCO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from risbench.core.classes import CLASSES
from risbench.core.imagery import encode_png
from risbench.core.masks import encode_rle
from risbench.scenes.world import SIDE_PX, Placed, draw_scene

# Written worlds begin at this seed: those below are what the built-in model was trained on (train-builtin --seed).
WORLDS: Final = 1_000_000


def write_source(folder: Path | str, seed: int, scenes: int, windows: int = 2, noise: float = 0.05) -> dict[str, int]:
    """Write Images/, Annotations/, VRSBench_EVAL_referring.json, VRSBench_train.json, truth.json and links.json.

    Every scene has `windows` windows. A third of the rows come in all three of VRSBench's forms, the rest only as
    EVAL rows with token boxes, whose edges carry errors of `noise` of the box's sides, outward more than inward.
    """
    folder = Path(folder)
    for name in ("Images", "Annotations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng([seed, 1_000_003])
    rows: list[dict[str, Any]] = []
    train: list[dict[str, Any]] = []
    links: dict[str, int] = {}
    truth: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": index, "name": name} for index, name in enumerate(CLASSES, 1)],
    }
    for scene in range(scenes):
        for window in range(windows):
            drawn = draw_scene(WORLDS + seed, scene * windows + window)
            name = f"S{scene:04d}_{window:04d}.png"
            (folder / "Images" / name).write_bytes(encode_png(drawn.pixels))
            truth["images"].append({"id": len(truth["images"]) + 1, "file_name": name, "width": SIDE_PX, "height": SIDE_PX})
            objects = []
            for number, item in enumerate(drawn.objects):
                truth["annotations"].append(_annotation(len(truth["annotations"]) + 1, len(truth["images"]), item))
                if item.sentence is None:
                    continue
                corners = _noisy(random, item.corners, noise)
                tokens = _tokens(corners)
                key = len(rows)
                links[str(key)] = len(truth["annotations"])
                three_forms = random.random() < 1 / 3
                row = {
                    "image_id": name,
                    "question": f"{item.sentence}.",
                    "ground_truth": tokens,
                    "dataset": "RSBench",
                    "question_id": key,
                    "type": "ref",
                    "unique": item.is_unique,
                    "obj_cls": item.thing.category,
                    "obj_ids": [number],
                    "size_group": "",
                }
                rows.append(row)
                if three_forms:
                    objects.append(_object(number, item, corners))
                    prompt = f"<image>\n[refer] give me the location of <p> {item.sentence} </p>"
                    train.append(
                        {
                            "id": "generated",
                            "image": name,
                            "conversations": [{"from": "human", "value": prompt}, {"from": "gpt", "value": tokens}],
                        }
                    )
            if objects:
                value = {"caption": "", "objects": objects, "qa_pairs": [], "image": name}
                (folder / "Annotations" / f"{Path(name).stem}.json").write_text(json.dumps(value, indent=1), encoding="utf-8")
    train.append(
        {
            "id": "generated",
            "image": "S0000_0000.png",
            "conversations": [{"from": "human", "value": "<image>\n[vqa] How many vehicles are there?"}, {"from": "gpt", "value": "3"}],
        }
    )
    files: tuple[tuple[str, Any], ...] = (
        ("VRSBench_EVAL_referring.json", rows),
        ("VRSBench_train.json", train),
        ("truth.json", truth),
        ("links.json", links),
    )
    for file, content in files:
        (folder / file).write_text(json.dumps(content), encoding="utf-8")
    return {"images": len(truth["images"]), "objects": len(truth["annotations"]), "rows": len(rows)}


def _annotation(number: int, image: int, item: Placed) -> dict[str, Any]:
    size, counts = encode_rle(item.mask)
    rows, columns = np.flatnonzero(item.mask.any(axis=1)), np.flatnonzero(item.mask.any(axis=0))
    box = [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]
    return {
        "id": number,
        "image_id": image,
        "category_id": CLASSES.index(item.thing.category) + 1,
        "bbox": box,
        "iscrowd": 0,
        "area": int(item.mask.sum()),
        "segmentation": {"size": list(size), "counts": counts},
    }


def _noisy(random: np.random.Generator, corners: Any, noise: float) -> Any:
    """Return the corners in shares of the image, stretched and moved as people's boxes are."""
    centre = corners.mean(axis=0)
    scale = 1 + random.normal(noise, noise)
    moved = (corners - centre) * scale + centre + random.normal(0, noise, 2) * np.ptp(corners, axis=0)
    return moved / SIDE_PX


def _tokens(corners: Any) -> str:
    low, high = corners.min(axis=0), corners.max(axis=0)
    return "{" + "".join(f"<{int(100 * value)}>" for value in (*low, *high)) + "}"


def _object(number: int, item: Placed, corners: Any) -> dict[str, Any]:
    low, high = np.clip(corners.min(axis=0), 0, 1), np.clip(corners.max(axis=0), 0, 1)
    return {
        "obj_id": number,
        "referring_sentence": f"{item.sentence}.",
        "obj_cls": item.thing.category,
        "is_unique": item.is_unique,
        "obj_position": item.position or "",
        "obj_rel_position": "",
        "obj_size": "",
        "obj_rel_size": "",
        "flag": False,
        "obj_corner": [float(np.float32(value)) for value in corners.ravel()],
        "obj_coord": [round(float(value), 2) for value in (*low, *high)],
    }
