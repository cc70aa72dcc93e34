"""`risbench demo`: a small world of its own, through every stage, scored against its own truth."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from risbench.core.draw import write_sheet
from risbench.core.errors import InputError
from risbench.core.masks import mask_of
from risbench.core.workspace import SETTINGS_FILE, Workspace, read_records
from risbench.export import export
from risbench.ingest import ingest
from risbench.inspect.audit import audit
from risbench.inspect.stats import stats
from risbench.inspect.validate import validate
from risbench.refine import refine_masks
from risbench.scenes.source import write_source

_SHEET_RECORDS = 30


def demo(*, workspace: Path | str = "demo-workspace", scenes: int = 24, seed: int = 0, quiet: bool = False) -> dict[str, Any]:
    """Draw `scenes` scenes of two windows, run all stages on them, and leave a workspace and a contact sheet.

    Raises:
        InputError: the folder holds something that is not a demo's workspace.
    """
    root = Path(workspace)
    if root.exists() and any(root.iterdir()) and not (root / SETTINGS_FILE).exists() and not (root / "source").is_dir():
        raise InputError(f"{root}: is not empty and no demo's workspace; name another folder with -w")
    summary: list[str] = []

    def step(label: str, run: Callable[[], dict[str, Any]], say: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
        began = time.monotonic()
        result = run()
        line = f"{label:<14} {say(result)}  [{time.monotonic() - began:.1f} s]"
        summary.append(line)
        if not quiet:
            print(line, flush=True)
        return result

    source = root / "source"
    step(
        "draw",
        lambda: dict(write_source(source, seed, scenes)),
        lambda r: f"{r['images']} windows with {r['objects']} objects, {r['rows']} sentences",
    )
    step("ingest", lambda: ingest(source, workspace=root, name="demo", quiet=quiet), _said_ingest)
    if not Workspace.open(root).finished_rounds():
        step(
            "baseline", lambda: refine_masks(workspace=root, engine="box", quiet=quiet), lambda _: "the boxes themselves as masks (round 1)"
        )
    baseline = step(
        "audit",
        lambda: audit(truth=source / "truth.json", links=source / "links.json", workspace=root, round_number=1, quiet=quiet),
        _said_audit,
    )
    refined = step("refine-masks", lambda: refine_masks(workspace=root, quiet=quiet), _said_refine)
    scored = step(
        "audit",
        lambda: audit(
            truth=source / "truth.json",
            links=source / "links.json",
            workspace=root,
            round_number=refined["round"],
            sheet=root / "worst.png",
            quiet=quiet,
        ),
        _said_audit,
    )
    released = step(
        "export --split",
        lambda: export(workspace=root, formats=("coco", "refer", "risbench"), include_unreviewed=True, quiet=quiet),
        lambda r: ", ".join(f"{name} {row['triplets']}" for name, row in r["splits"].items()) + f"; no scene in two splits: {r['path']}",
    )
    step("stats", lambda: stats(workspace=root), lambda r: f"three figures, {r['sentences']['mean words'][0]} words a sentence")
    checked = step(
        "validate", lambda: validate(workspace=root, quiet=quiet), lambda r: f"{r['records']} records, {len(r['faults'])} faults"
    )
    contact = step("contact sheet", lambda: {"path": str(_contact_sheet(root))}, lambda r: str(r["path"]))
    return {
        "summary": summary if quiet else [],
        "baseline_iou": baseline["mean_iou"],
        "mean_iou": scored["mean_iou"],
        "faults": checked["faults"],
        "release": released["path"],
        "contact_sheet": contact["path"],
    }


def _said_ingest(result: dict[str, Any]) -> str:
    counts = result["counts"]
    return f"{counts['in']} rows -> {counts['out']} records, {counts['filtered']} merged or set aside, {counts['quarantined']} quarantined"


def _said_refine(result: dict[str, Any]) -> str:
    return f"{result['counts']['out']} masks by {result['options']['engine']} (round {result['round']})"


def _said_audit(result: dict[str, Any]) -> str:
    return f"mean IoU {result['mean_iou']:.3f}, {100 * result['share']['0.8']:.0f} % of masks at .8 or better"


def _contact_sheet(root: Path) -> Path:
    """Draw records spread over the workspace, with their masks and sentences."""
    workspace = Workspace.open(root)
    records = [record for record in read_records(workspace.latest()) if record.mask is not None]
    chosen = [records[index] for index in np.linspace(0, len(records) - 1, min(_SHEET_RECORDS, len(records))).astype(int)]
    path = root / "contact_sheet.png"
    write_sheet(path, root, [(record, None, f"{int(mask_of(record.mask).sum()):,} px" if record.mask else "") for record in chosen])
    return path
