"""From JPEGs on disk to committed records, against one SAM call a triplet and against transformers grouped by image (ViT-B at 1024).

    python experiments/sam_speed.py [--rounds N] [--boxes 1.75|10|both] [--peers NAMES] [--allocator both|ours] [--gpu]

Ours is what `refine-masks --engine sam` does in a worker: encoder in bf16 where the device has it, every image encoded once, jittered
boxes for the agreement score, cleaning, scores, the record, its line on disk. The peers write the mask's RLE and its estimated IoU only.
Weights are random and the same for ours and segment-anything; images and boxes are NWPU VHR-10's, --fit keep. Every contender is a process
of its own, one works at a time, and they take turns round by round. On the CPU each peer runs twice: with glibc's own allocator settings,
and with ours.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import groupby
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import REFER, need_data, risbench
from PIL import Image

from risbench.core.masks import decode_rle, encode_rle
from risbench.core.metrics import mask_iou
from risbench.core.record import Record
from risbench.core.storage import write_durably
from risbench.core.workspace import Workspace, read_records
from risbench.learn.device import fast_precision, keep_freed_memory
from risbench.refine.clean import CleanRules
from risbench.refine.engines.base import EngineSetup
from risbench.refine.sam_engine import sam_engine
from risbench.refine.workers import Work, refine_part

Job = list[Record]
Run = Callable[[Job, bool], dict[str, tuple[tuple[int, int], str]]]


def ours(root: Path, weights: Path, device: str) -> Run:
    """Return our way."""
    precision = fast_precision(device)
    engine = sam_engine(weights, device, precision)
    rules = {False: CleanRules(), True: CleanRules(0, 0, -1)}

    def run(job: Job, raw: bool = False) -> dict[str, tuple[tuple[int, int], str]]:
        work = Work(root, "sam", EngineSetup(str(weights), device, precision), rules[raw], 1, torch.get_num_threads())
        done = refine_part(engine, work, job)
        write_durably(root / "ours.jsonl", "".join(record.to_line() for record in done).encode())
        return {record.id: (record.mask.size, record.mask.counts) for record in done if record.mask is not None}

    return run


def segment_anything(root: Path, weights: Path, device: str) -> Run:
    """Return segment-anything's own way: set_image and predict for every triplet."""
    from segment_anything import SamPredictor, sam_model_registry

    predictor = SamPredictor(sam_model_registry["vit_b"](str(weights)).eval().to(device))

    def run(job: Job, raw: bool = False) -> dict[str, tuple[tuple[int, int], str]]:
        lines, found = [], {}
        for record in job:
            predictor.set_image(np.asarray(Image.open(root / record.image.path).convert("RGB")))
            masks, iou, _ = predictor.predict(box=np.array(record.targets[0].box), multimask_output=False)
            found[record.id] = encode_rle(masks[0])
            lines.append(json.dumps({"id": record.id, "mask": found[record.id], "predicted_iou": float(iou[0])}))
        write_durably(root / "peer.jsonl", "\n".join(lines).encode())
        return found

    return run


def transformers_sam(root: Path, weights: Path, device: str) -> Run:
    """Return transformers' way: all boxes of an image in one call, attention by SDPA."""
    import transformers

    model = _sdpa(transformers).eval().to(device, torch.bfloat16 if device != "cpu" else torch.float32)
    processor = transformers.SamProcessor(transformers.SamImageProcessor())

    def run(job: Job, raw: bool = False) -> dict[str, tuple[tuple[int, int], str]]:
        lines, found = [], {}
        for path, group in groupby(job, key=lambda record: record.image.path):
            members = list(group)
            image = Image.open(root / path).convert("RGB")
            inputs = processor(image, input_boxes=[[list(record.targets[0].box) for record in members]], return_tensors="pt")
            with torch.inference_mode():
                out = model(
                    pixel_values=inputs["pixel_values"].to(device, model.dtype),
                    input_boxes=inputs["input_boxes"].to(device, model.dtype),
                    multimask_output=False,
                )
            masks = processor.image_processor.post_process_masks(
                out.pred_masks.float().cpu(), inputs["original_sizes"], inputs["reshaped_input_sizes"]
            )[0]
            for record, mask, iou in zip(members, masks[:, 0].numpy(), out.iou_scores[0, :, 0], strict=True):
                found[record.id] = encode_rle(mask)
                lines.append(json.dumps({"id": record.id, "mask": found[record.id], "predicted_iou": float(iou)}))
        write_durably(root / "peer.jsonl", "\n".join(lines).encode())
        return found

    return run


def _sdpa(transformers: Any) -> Any:
    # its own default is 1e-10: the products become denormal numbers, which CPUs multiply a hundred times slower
    config = transformers.SamConfig(vision_config={"initializer_range": 0.02})
    config._attn_implementation = "sdpa"
    return transformers.SamModel(config)


CONTENDERS: dict[str, Callable[[Path, Path, str], Run]] = {
    "ours": ours,
    "segment-anything": segment_anything,
    "transformers": transformers_sam,
}


def serve(pipe: Connection, name: str, keep: bool, root: Path, weights: Path, device: str) -> None:
    """Answer jobs with seconds and masks, in a process whose allocator is set as asked."""
    if keep:
        keep_freed_memory()
    torch.manual_seed(0)
    run = CONTENDERS[name](root, weights, device)
    while (message := pipe.recv()) is not None:
        job, raw = message
        began = time.monotonic()
        found = run(job, raw)
        pipe.send((time.monotonic() - began, found))


def random_vit_b(path: Path) -> None:
    """Write a SAM with random weights, its positions far from zero."""
    from segment_anything import sam_model_registry

    torch.manual_seed(0)
    model = sam_model_registry["vit_b"]()
    for name, value in model.named_parameters():
        if "rel_pos" in name or "pos_embed" in name:
            torch.nn.init.normal_(value, std=0.1)
    torch.save(model.state_dict(), path)


def jobs_of(records: list[Record], rounds: int) -> dict[str, list[Job]]:
    """Return for every round four images with 1.75 boxes each, and one image with ten."""
    groups = [list(group) for _, group in groupby(records, key=lambda record: record.image.path)]
    pairs = [group[:2] for group in groups if len(group) >= 2]
    few = [[record for k in range(4) for record in pairs[4 * turn + k][: 1 if k == 3 else 2]] for turn in range(rounds)]
    return {"1.75": few, "10": [_ten(pairs[4 * rounds + turn]) for turn in range(rounds)]}


def _ten(group: Job) -> Job:
    """Return ten records of one image: its own two, and boxes moved from theirs."""
    made = []
    for k in range(10):
        record = group[k % 2]
        x_min, y_min, x_max, y_max = record.targets[0].box
        right, down = min(11.0 * k, record.image.width - x_max), min(7.0 * k, record.image.height - y_max)
        target = record.targets[0].model_copy(update={"box": (x_min + right, y_min + down, x_max + right, y_max + down)})
        made.append(record.model_copy(update={"id": f"{record.id}-{k}", "targets": (target,)}))
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--boxes", choices=["1.75", "10", "both"], default="both")
    parser.add_argument("--peers", default="segment-anything,transformers", help="segment-anything is always among them")
    parser.add_argument("--allocator", choices=["both", "ours"], default="both", help="the peers', on the CPU")
    parser.add_argument("--gpu", action="store_true")
    words = parser.parse_args()
    need_data()
    device = "cuda" if words.gpu else "cpu"
    keeps = (True,) if words.gpu or words.allocator == "ours" else (False, True)
    peers = [name for name in ("segment-anything", "transformers") if name in ("segment-anything", *words.peers.split(","))]
    teams = [("ours", True), *((name, keep) for name in peers for keep in keeps)]
    with tempfile.TemporaryDirectory() as folder:
        root, weights = Path(folder) / "w", Path(folder) / "random.pth"
        risbench("ingest", REFER, "--fit", "keep", "-w", root)
        records = [record for record in read_records(Workspace.open(root).latest()) if len(record.targets) == 1]
        random_vit_b(weights)
        context, pipes, processes = get_context("spawn"), {}, []
        for name, keep in teams:
            pipes[name, keep], far = context.Pipe()
            processes.append(context.Process(target=serve, args=(far, name, keep, root, weights, device), daemon=True))
            processes[-1].start()
        jobs = jobs_of(records, words.rounds)
        name = torch.cuda.get_device_name() if words.gpu else f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
        print(f"torch {torch.__version__}, {name}; encoders: ours {fast_precision(device)}, segment-anything fp32,", end=" ")
        print(f"transformers {'bf16' if words.gpu else 'fp32'}", flush=True)
        for pipe in pipes.values():  # everyone is warmed up on one image
            pipe.send((jobs["1.75"][0][:1], False))
            pipe.recv()
        for boxes, rounds in jobs.items():
            if words.boxes not in (boxes, "both"):
                continue
            seconds: dict[tuple[str, bool], list[float]] = {team: [] for team in teams}
            agreement: list[float] = []
            for job in rounds:
                masks = {}
                for team in teams:
                    pipes[team].send((job, False))
                    took, masks[team[0]] = pipes[team].recv()
                    seconds[team].append(took)
                # the same masks as the peer's, before they are cleaned; this is not timed
                pipes["ours", True].send((job, True))
                masks["ours"] = pipes["ours", True].recv()[1]
                for key, theirs in masks["segment-anything"].items():
                    mine = masks["ours"].get(key)
                    pair = [decode_rle(*part) if part else np.zeros(theirs[0], bool) for part in (mine, theirs)]
                    agreement.append(mask_iou(*pair) if pair[1].any() or pair[0].any() else 1.0)
            print(f"\n{boxes} boxes an image, {len(rounds)} rounds of {len(rounds[0])} triplets; seconds a round, median, ratio to ours")
            mine = statistics.median(seconds["ours", True])
            for (who, keep), taken in seconds.items():
                allocator = "" if words.gpu else "  allocator as ours" if keep else "  stock allocator"
                said = " ".join(f"{value:.1f}" for value in taken)
                median = statistics.median(taken)
                print(f"  {who:<17}{allocator:<19} {said:<26} {median:8.1f} {median / mine:7.2f}x")
            print(
                f"  mean mask IoU of ours with segment-anything in fp32: {np.mean(agreement):.4f} (lowest {min(agreement):.4f})", flush=True
            )
        for pipe in pipes.values():
            pipe.send(None)
        for process in processes:
            process.join()
