"""Corrections and hours with the loop, without it, and with the loop in random order: real boxes, simulated people, the real server.

    python experiments/data_engine_loop.py [--rounds 4] [--steps N] [--arms risk,random]

NWPU VHR-10's rows, base: the built-in model. A simulated annotator accepts a mask whose IoU with the truth is .8 or more (5 s) and
else draws the truth (34 s); rows that are linked to no true mask are rejected and not counted. Every round gives out the same share
of the records, trains the adapter on what was verified, and makes new masks for the rest; printed is how many of those are bad. Without
the loop, the first masks are all that people see.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import REFER, need_data, risbench
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import risbench.review.verbs.push as push_module
from risbench.core.masks import mask_of
from risbench.core.metrics import mask_iou
from risbench.core.record import Record
from risbench.core.risk import risks
from risbench.core.workspace import Workspace, read_records
from risbench.formats.brush import decode_brush, encode_brush
from risbench.formats.truth import Truth
from risbench.review.labelstudio.server import running
from risbench.review.rules.plan import Policy
from risbench.review.store.review_store import ReviewStore
from risbench.review.verbs.consensus import consensus
from risbench.review.verbs.pull import pull
from risbench.review.verbs.push import push
from tests.review.lab import ACCEPT, FIX, REJECT, brush, fresh_workspace, people

ACCEPT_S, DRAW_S, GOOD = 5.0, 34.0, 0.8
True_ = Mapping[str, NDArray[np.bool_]]


def truths(workspace: Path) -> dict[str, NDArray[np.bool_]]:
    """Return the true mask of every record that is linked to one."""
    links: dict[str, Any] = json.loads((REFER / "truth.json").read_text())
    truth = Truth(REFER / "instances.json")
    records = read_records(Workspace.open(workspace).latest())
    return {
        record.id: truth.mask_in_record(record, truth.by_id[links[record.source.source_key]])
        for record in records
        if record.source.source_key in links and record.mask is not None
    }


def needs_drawing(workspace: Path, true: True_) -> dict[str, bool]:
    """Return of every record whether its newest mask is too bad to be accepted."""
    records = {record.id: record for record in read_records(Workspace.open(workspace).latest())}
    return {name: (mask := records[name].mask) is None or mask_iou(mask_of(mask), real) < GOOD for name, real in true.items()}


def random_order(records: Sequence[Record]) -> dict[str, float]:
    """Return a risk that says nothing."""
    return {record.id: int(hashlib.sha256(record.id.encode()).hexdigest()[:8], 16) / 16**8 for record in records if record.mask is not None}


def loop(workspace: Path, true: True_, rounds: int, steps: int, order: str) -> list[tuple[int, int]]:
    """Run the loop; return (masks seen, masks drawn) of every round."""
    push_module.risks = risks if order == "risk" else random_order
    crew = people(workspace, "ana", "ben")
    first = needs_drawing(workspace, true)
    share = -(-sum(record.mask is not None for record in read_records(Workspace.open(workspace).latest())) // rounds)
    found = []
    for turn in range(rounds):
        push(workspace=workspace, policy=Policy(count=share, overlap=0, gold=0), quiet=True)
        items = {item.key: item.record for item in ReviewStore(Workspace.open(workspace)).queue()}
        seen, drawn = 0, 0
        for person in crew.values():
            while (task := person.next()) is not None:
                name = items[task["data"]["key"]]
                region = next(part for part in task["predictions"][0]["result"] if part["type"] == "brushlabels")
                shown = decode_brush(region["value"]["rle"], region["original_height"], region["original_width"]) > 127
                real = true.get(name)
                if real is None:
                    person.answer(task, REJECT)
                    continue
                good = mask_iou(shown, real) >= GOOD
                seen, drawn = seen + 1, drawn + (not good)
                if good:
                    person.answer(task, ACCEPT, seconds=ACCEPT_S)
                else:
                    person.answer(task, FIX, mask=[brush(task, encode_brush(real))], seconds=DRAW_S)
        pull(workspace=workspace, quiet=True)
        consensus(workspace=workspace, quiet=True)
        found.append((seen, drawn))
        print(f"  {order}, round {turn + 1}: {seen} masks seen, {drawn} drawn, {hours(seen, drawn):.2f} hours", flush=True)
        if turn + 1 < rounds:
            risbench("train-adapter", "-w", workspace, "--steps", str(steps), "--json")
            risbench("refine-masks", "-w", workspace, "--json")
            open_ = {record.id for record in read_records(Workspace.open(workspace).latest()) if record.review.status == "unreviewed"}
            bad = needs_drawing(workspace, {name: mask for name, mask in true.items() if name in open_})
            before = sum(first[name] for name in bad)
            print(f"    not seen yet: {len(bad)}, of them bad {before} before, {sum(bad.values())} now", flush=True)
    return found


def hours(seen: int, drawn: int) -> float:
    """Return the hours that people need."""
    return ((seen - drawn) * ACCEPT_S + drawn * DRAW_S) / 3600


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--arms", default="risk,random")
    words = parser.parse_args()
    need_data()
    with tempfile.TemporaryDirectory() as folder:
        host = Path(folder) / "host"
        risbench("ingest", REFER, "--fit", "keep", "-w", host)
        risbench("refine-masks", "-w", host)
        true = truths(host)
        bad = needs_drawing(host, true)
        once = sum(bad.values())
        print(f"{len(true)} masks with a known truth; without the loop {once} are drawn, {hours(len(true), once):.2f} hours", flush=True)
        with running(host):
            for arm in words.arms.split(","):
                found = loop(fresh_workspace(host, Path(folder) / arm), true, words.rounds, words.steps, arm)
                drawn = sum(pair[1] for pair in found)
                print(
                    f"{arm}: {drawn} drawn, {hours(len(true), drawn):.2f} hours; {1 - drawn / once:.1%} fewer than without the loop",
                    flush=True,
                )
