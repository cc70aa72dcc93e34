"""`risbench show`: one record, drawn with its whole history."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from risbench.core.draw import BOX_COLOR, GIVEN_COLOR, MASK_COLOR, Panel, captioned, focus, tile
from risbench.core.errors import InputError, printable
from risbench.core.geometry import invert_affine, map_box
from risbench.core.masks import mask_of
from risbench.core.record import Box, Record
from risbench.core.workspace import INGEST, REVIEW, Workspace, read_records

_SIDE_PX = 380


def show(identity: str, *, workspace: Path | str = ".", output: Path | str | None = None) -> dict[str, Any]:
    """Draw the record whose id is, or uniquely ends with, `identity`; return its history as lines and the picture's path.

    Raises:
        InputError: no such record, or several.
    """
    opened = Workspace.open(workspace)
    stages = [
        folder for folder in (opened.root / INGEST, *opened.finished_rounds(), opened.root / REVIEW) if (folder / "run.json").exists()
    ]
    if not stages:
        raise InputError(f"{opened.root}: no finished ingest here; run `risbench ingest SOURCE -w {opened.root}` first")
    name = _find(identity, stages[0])
    versions = [(folder, record) for folder in stages for record in read_records(folder) if record.id == name]
    path = Path(output) if output is not None else opened.root / "show" / f"{re.sub(r'[^A-Za-z0-9._-]+', '_', name)}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    _draw(opened, [(folder.relative_to(opened.root).as_posix(), record) for folder, record in versions], path)
    latest = versions[-1][1]
    history = [line for folder, record in versions for line in _history(folder.relative_to(opened.root).as_posix(), record)]
    return {"id": name, "history": history, "picture": str(path), "record": latest.model_dump(mode="json")}


def _find(identity: str, folder: Path) -> str:
    ids = [record.id for record in read_records(folder)]
    if identity in ids:
        return identity
    found = [name for name in ids if name.endswith(identity)] if identity else []
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"show {printable(identity)}: {len(found)} ids end so, such as {', '.join(found[:3])}; give more of it")
    near = [name for name in ids if identity in name][:3] or ids[:3]
    raise InputError(f"show {printable(identity)}: there is no such record; ids look like {', '.join(near)}")


def _draw(workspace: Workspace, versions: list[tuple[str, Record]], path: Path) -> None:
    first = versions[0][1]
    pixels = workspace.read_image(first)
    into = invert_affine(first.placement.affine)
    given: list[Box] = [map_box(into, target.box_given) for target in first.targets]
    whole = (0, 0, max(first.image.width, first.image.height), max(first.image.width, first.image.height))
    overview, near = Panel(pixels, whole, _SIDE_PX), Panel(pixels, focus(first, given), _SIDE_PX)
    for panel in (overview, near):
        for target, box in zip(first.targets, given, strict=True):
            panel.box(box, GIVEN_COLOR, dashed=True).box(target.box, BOX_COLOR)
            if target.oriented_box is not None:
                panel.box(target.oriented_box, BOX_COLOR)
    sentence = first.expression.text if first.expression else "(no sentence)"
    rules = ", ".join(repair.rule for target in first.targets for repair in target.repairs) or "none"
    tiles = [
        captioned(overview.pixels, [sentence, f"{first.category.name}; {first.image.path}"], 72),
        captioned(near.pixels, [f"box given (orange, {first.targets[0].box_precision}) and used (pink)", f"repairs: {rules}"], 72),
    ]
    for name, record in versions:
        if record.mask is None:
            continue
        panel = Panel(pixels, focus(first, given), _SIDE_PX).mask(mask_of(record.mask), MASK_COLOR)
        scores = ", ".join(f"{key} {value:.2f}" for key, value in record.mask.scores.items())
        tiles.append(captioned(panel.pixels, [f"{name}: {record.mask.engine}", f"{record.review.status}; {scores}"], 72))
    tile(tiles, columns=3).save(path, format="PNG")


def _history(name: str, record: Record) -> list[str]:
    lines = [f"{name}: {record.id}"]
    if name == INGEST:
        source = record.source
        lines.append(
            f"  from {printable(source.file)} row {printable(source.source_key)} ({source.dataset}), merged with {len(source.merged)} rows"
        )
        lines.append(f"  sentence: {printable(record.expression.text) if record.expression else 'none'}")
        for target in record.targets:
            lines.append(f"  box given {_rounded(target.box_given)} ({target.box_precision}), used {_rounded(target.box)}")
            lines += [f"    repair {repair.rule}: {repair.detail}" for repair in target.repairs]
        lines.append(f"  image {record.image.path}, scene {record.image.scene}, fit {record.placement.fit}")
        told = {kind: f"{value['value']} ({value['origin']})" for kind, value in record.attributes.model_dump().items() if value}
        lines.append("  attributes: " + ", ".join(f"{kind} {value}" for kind, value in told.items()))
    if record.mask is not None:
        scores = ", ".join(f"{key} {value:.3f}" for key, value in record.mask.scores.items())
        lines.append(f"  mask by {record.mask.engine}, round {record.mask.round}: {int(mask_of(record.mask).sum()):,} px; {scores}")
    lines.append(f"  review: {record.review.status}")
    lines += [f"  problem at {problem.stage}: {problem.code}: {printable(problem.detail)}" for problem in record.problems]
    return lines


def _rounded(box: Box) -> str:
    return "(" + ", ".join(f"{value:.1f}" for value in box) + ")"
