"""Tables as pandas DataFrames: of records, and of what the reporting commands return (`--csv`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from risbench.core.masks import mask_area
from risbench.core.record import Record
from risbench.core.storage import write_durably

_BOX = ("x_min", "y_min", "x_max", "y_max")
_TRIPLET = (
    *("id", "dataset", "image", "width", "height", "scene", "category", "sentence", "split", "targets", *_BOX, "mask_area_px"),
    *("engine", "review_status", "agreement", "licence", "metres_per_pixel", "problems"),
)
_OBJECT = ("record", "number", "object_id", "image", "category", *_BOX, "oriented", "box_precision", "repairs")
_EXPRESSION = ("record", "image", "category", "text", "words", "origin", "is_true", "is_unique")


def triplets_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Return a row per record: what it is of, the box around its targets in pixels, its mask's area, what people decided."""
    rows = []
    for record in records:
        boxes = [target.box for target in record.targets]
        around = [min(box[axis] for box in boxes) for axis in (0, 1)] + [max(box[axis] for box in boxes) for axis in (2, 3)]
        rows.append(
            {
                "id": record.id,
                "dataset": record.source.dataset,
                "image": record.image.path,
                "width": record.image.width,
                "height": record.image.height,
                "scene": record.image.scene,
                "category": record.category.name,
                "sentence": record.expression.text if record.expression is not None else None,
                "split": record.split,
                "targets": len(record.targets),
                **dict(zip(_BOX, around, strict=True)),
                "mask_area_px": mask_area(record.mask) if record.mask is not None else None,
                "engine": record.mask.engine if record.mask is not None else None,
                "review_status": record.review.status,
                "agreement": record.review.agreement,
                "licence": record.source.licence,
                "metres_per_pixel": record.image.metres_per_pixel,
                "problems": ", ".join(problem.code for problem in record.problems),
            }
        )
    frame = pd.DataFrame(rows, columns=list(_TRIPLET))
    return frame.astype({"mask_area_px": "Int64"})


def objects_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Return a row per target: its box in pixels, whether it has an oriented one, and how exact the source was."""
    rows = [
        {
            "record": record.id,
            "number": number,
            "object_id": target.object_id,
            "image": record.image.path,
            "category": record.category.name,
            **dict(zip(_BOX, target.box, strict=True)),
            "oriented": target.oriented_box is not None,
            "box_precision": target.box_precision,
            "repairs": ", ".join(repair.rule for repair in target.repairs),
        }
        for record in records
        for number, target in enumerate(record.targets)
    ]
    return pd.DataFrame(rows, columns=list(_OBJECT))


def expressions_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Return a row per sentence, with a reviewer's verdict where there is one."""
    rows = [
        {
            "record": record.id,
            "image": record.image.path,
            "category": record.category.name,
            "text": record.expression.text,
            "words": len(record.expression.text.split()),
            "origin": record.expression.origin,
            "is_true": record.expression.is_true,
            "is_unique": record.expression.is_unique,
        }
        for record in records
        if record.expression is not None
    ]
    return pd.DataFrame(rows, columns=list(_EXPRESSION))


def stats_frame(result: Mapping[str, Any]) -> pd.DataFrame:
    """Return the figures of `stats`: table, figure, value, and the paper's where there is one."""
    rows: list[tuple[str, str, Any, Any]] = [("Table I", name, value, None) for name, value in result["table_1"].items()]
    rows += [("sentences", name, *pair) for name, pair in result["sentences"].items()]
    rows += [("attributes", name, value, None) for name, value in result["attributes"].items()]
    rows.append(("masks", "with mask", result["with_mask"], None))
    return pd.DataFrame(rows, columns=["table", "figure", "value", "paper"])


def audit_frame(result: Mapping[str, Any]) -> pd.DataFrame:
    """Return the scores of `audit`: one row for all masks, then one for each class, size, box tier and engine."""
    low, high = result["mean_iou_interval"]
    whole = {"by": "all", "group": "all", "n": result["n"], "mean_iou": result["mean_iou"], "share_0.8": result["share"]["0.8"]}
    rows = [{**whole, "mean_iou_low": low, "mean_iou_high": high, "boundary_iou": result["boundary_iou"]}]
    rows += [{"by": by, "group": name, **row} for by, groups in result["by"].items() for name, row in groups.items()]
    return pd.DataFrame(rows)


def status_frame(result: Mapping[str, Any]) -> pd.DataFrame:
    """Return the score cards of `review status`, a row per annotator."""
    return pd.DataFrame([{"annotator": name, **card} for name, card in result["annotators"].items()])


def _figures(figures: Mapping[str, Any]) -> dict[str, float]:
    cells: dict[str, float] = {}
    for name, found in figures.items():
        if isinstance(found, Mapping) and "interval" in found:
            cells |= {name: found["value"], f"{name} low": found["interval"][0], f"{name} high": found["interval"][1]}
    return cells


def evaluate_frame(result: Mapping[str, Any]) -> pd.DataFrame:
    """Return the figures of `evaluate`, as shares with 95 % intervals: one row for all samples, then one for each slice."""
    rows = [{"by": "all", "group": "all", "n": result["n"], **_figures(result["figures"])}]
    rows += [
        {"by": by, "group": name, "n": row["n"], **_figures(row)} for by, groups in result["slices"].items() for name, row in groups.items()
    ]
    return pd.DataFrame(rows)


def benchmark_frame(result: Mapping[str, Any]) -> pd.DataFrame:
    """Return the table of `benchmark`, figures in percent: a row per model, papers' rows behind them, or of `compare` a row per release."""
    if "rows" not in result:
        both = [(name, {metric: 100 * value for metric, value in result["figures"][name].items()}) for name in ("A", "B")]
        return pd.DataFrame([{"trained on": result[name], "samples": result["training"][name], **figures} for name, figures in both])
    rows = []
    for row in result["rows"]:
        low, high = (100 * bound for bound in row["interval"])
        figures = {metric: 100 * value for metric, value in row["figures"].items()}
        interval = {"mIoU low": low, "mIoU high": high}
        rows.append(
            {"name": row["name"], "of": "measured", "parameters": row["parameters"], "seeds": len(row["seeds"]), **figures, **interval}
        )
    rows += [{"name": row["model"], "of": "published", **{key: row[key] for key in row if key != "model"}} for row in result["published"]]
    return pd.DataFrame(rows)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, in UTF-8, whole or not at all.

    Raises:
        MissingRequirementError: the file cannot be written.
    """
    write_durably(path, frame.to_csv(index=False, lineterminator="\n").encode())
