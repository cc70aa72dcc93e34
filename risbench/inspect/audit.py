"""`risbench audit`: a workspace's masks against true ones."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from risbench.core.draw import write_sheet
from risbench.core.errors import InputError, InvalidRowError, printable, typed
from risbench.core.geometry import size_of
from risbench.core.masks import mask_of
from risbench.core.metrics import bootstrap_interval, boundary_iou, mask_iou
from risbench.core.progress import Progress
from risbench.core.reading import read_json
from risbench.core.record import Record
from risbench.core.truth import TWO_OVERLAP
from risbench.core.workspace import REFINE, Workspace, read_records
from risbench.formats.coco import plain_id
from risbench.formats.truth import Truth

THRESHOLDS: Final = (0.5, 0.7, 0.8, 0.9)
_WORST: Final = 24


@dataclass(frozen=True)
class Score:
    """One scored record."""

    record: Record
    iou: float
    boundary: float
    truth_area: float
    truth: NDArray[np.bool_] | None


def audit(
    *,
    truth: Path | str,
    workspace: Path | str = ".",
    links: Path | str | None = None,
    round_number: int | None = None,
    sheet: Path | str | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Score masks against COCO instances and return means with 95 % intervals (bootstrap, whole images drawn).

    `links` maps `source_key` to annotation id (or a list of ids for several targets). Without it a record is scored against the
    annotation of its image and class that its box means (`core/truth`); one whose box means none, or one of two, is not scored but
    counted. A record without a mask scores 0. The worst cases are drawn to `sheet`, by default `audit/worst.png` in the workspace.

    Raises:
        InputError: truth or links cannot be read, or nothing matches.
    """
    opened = Workspace.open(workspace)
    folder = opened.latest() if round_number is None else opened.stage(REFINE) / f"round-{round_number}"
    if not (folder / "run.json").exists():
        raise InputError(f"{folder}: there is no such finished round")
    records = list(read_records(folder))
    known = Truth(Path(truth), records)
    matcher = _Matcher(known, _load_links(Path(links)) if links else None)
    scores: list[Score] = []
    with Progress("audit", len(records), quiet=quiet) as progress:
        for record in records:
            ids = matcher.match(record)
            if ids:
                try:
                    scores.append(_score(record, ids, known))
                except InvalidRowError as reason:
                    matcher.not_scored[reason.code] += 1
            progress.advance(1)
    if not scores:
        reasons = ", ".join(f"{code} {count:,}" for code, count in sorted(matcher.not_scored.items()))
        sizes = "".join(f"; {line}" for line in known.said_of_sizes())
        raise InputError(f"{truth}: none of the workspace's {len(records):,} records matches an annotation: {reasons}{sizes}")
    result = {**_summary(scores), "not_scored": dict(sorted(matcher.not_scored.items())), "ambiguous": matcher.ambiguous}
    result["sizes"] = known.said_of_sizes()
    result["links_without_record"] = matcher.unused_links(records)
    worst = sorted(scores, key=lambda score: (score.iou, score.record.id))[:_WORST]
    result["worst"] = [{"id": score.record.id, "iou": round(score.iou, 4)} for score in worst]
    path = Path(sheet) if sheet is not None else opened.root / "audit" / "worst.png"
    write_sheet(path, opened.root, [(score.record, score.truth, f"{score.iou:.2f}") for score in worst])
    result["sheet"] = str(path)
    return result


def _load_links(path: Path) -> dict[str, list[Any]]:
    try:
        value = read_json(path)
    except OSError as error:
        raise InputError(f"--links {path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"--links {path}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"--links {path}: must be a JSON object that maps source_key to annotation id")
    links = {str(key): ids if isinstance(ids, list) else [ids] for key, ids in value.items()}
    for key, ids in links.items():
        if not ids or any(plain_id(one) is None for one in ids):
            raise InputError(f"--links {path}: {printable(key)} = {printable(ids)}: must be an annotation id or a list of them")
    return links


class _Matcher:
    """Finds the annotations that a record means, and keeps what it could not find."""

    def __init__(self, truth: Truth, links: Mapping[str, list[Any]] | None) -> None:
        self.not_scored: Counter[str] = Counter()
        self.ambiguous: list[str] = []
        self._links, self._truth = links, truth

    def match(self, record: Record) -> list[Any]:
        """Return the ids of the annotations that the record's targets are; empty and counted where there are none."""
        if self._links is None:
            return self._by_overlap(record)
        key = record.source.source_key
        if key not in self._links:
            self.not_scored["no_link"] += 1
            return []
        found = [self._truth.find(value) for value in self._links[key]]
        missing = [value for value, one in zip(self._links[key], found, strict=True) if one is None]
        if missing:
            raise InputError(f"--links: {printable(key)} = {typed(missing[0])}: {self._truth.path} has no annotation of this id")
        return found

    def _by_overlap(self, record: Record) -> list[Any]:
        matches = self._truth.matches(record)
        failed = next((match for match in matches if match.key is None), None)
        if failed is None:
            return [match.key for match in matches]
        self.not_scored[failed.reason] += 1
        if failed.reason == TWO_OVERLAP:
            (one, overlap), (other, next_overlap) = failed.best
            self.ambiguous.append(f"{record.id}: annotations {one} and {other} overlap its box by {overlap:.2f} and {next_overlap:.2f}")
        return []

    def unused_links(self, records: Sequence[Record]) -> int:
        """Return how many links name no record of the workspace."""
        if self._links is None:
            return 0
        keys = {record.source.source_key for record in records}
        return sum(key not in keys for key in self._links)


def _score(record: Record, ids: Sequence[Any], known: Truth) -> Score:
    truth = np.zeros((record.image.height, record.image.width), bool)
    for value in ids:
        truth |= known.mask_in_record(record, known.by_id[value])
    if record.mask is not None and record.mask.size != truth.shape:
        raise InvalidRowError("mask_of_other_size", "mask.size", record.mask.size, f"the image is {truth.shape}")
    if record.mask is None:
        return Score(record, 0.0, 0.0, float(truth.sum()), truth)
    mask = mask_of(record.mask)
    return Score(record, mask_iou(mask, truth), boundary_iou(mask, truth), float(truth.sum()), truth)


def _summary(scores: Sequence[Score]) -> dict[str, Any]:
    ious, boundaries = np.array([score.iou for score in scores]), np.array([score.boundary for score in scores])
    images = [score.record.image.path for score in scores]
    shares = {str(threshold): (ious >= threshold).astype(float) for threshold in THRESHOLDS}
    return {
        "n": len(scores),
        "images": len(set(images)),
        "mean_iou": float(ious.mean()),
        "mean_iou_interval": bootstrap_interval(ious.tolist(), images),
        "boundary_iou": float(boundaries.mean()),
        "boundary_iou_interval": bootstrap_interval(boundaries.tolist(), images),
        "share": {key: float(values.mean()) for key, values in shares.items()},
        "share_interval": {key: bootstrap_interval(values.tolist(), images) for key, values in shares.items()},
        "without_mask": sum(score.record.mask is None for score in scores),
        "by": {
            "class": _grouped(scores, (score.record.category.name for score in scores)),
            "size": _grouped(scores, (size_of(score.truth_area) for score in scores)),
            "box_tier": _grouped(scores, (score.record.targets[0].box_precision for score in scores)),
            "engine": _grouped(scores, (score.record.mask.engine if score.record.mask else "none" for score in scores)),
        },
    }


def _grouped(scores: Sequence[Score], names: Iterable[str]) -> dict[str, Any]:
    groups: dict[str, list[float]] = defaultdict(list)
    for score, name in zip(scores, names, strict=True):
        groups[name].append(score.iou)
    return {
        name: {"n": len(values), "mean_iou": float(np.mean(values)), "share_0.8": float((np.array(values) >= 0.8).mean())}
        for name, values in sorted(groups.items())
    }
