from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from risbench.core.classes import to_class
from risbench.core.errors import InputError, InvalidRowError, OptionError
from risbench.core.geometry import box_mask, quad_bounds, quad_from_flat
from risbench.core.masks import decode_rle
from risbench.core.metrics import mask_iou
from risbench.core.workspace import Workspace, read_records
from risbench.ingest import ingest
from risbench.inspect.audit import audit
from risbench.refine import refine_masks
from risbench.refine.clean import CleanRules, clean_mask
from risbench.refine.engines import base as engines
from risbench.refine.engines.base import Prompt, Segmentation
from risbench.refine.engines.box import BoxEngine
from risbench.refine.grabcut import GrabCutEngine
from risbench.refine.masks import checked_mask, refine_image
from risbench.scenes.source import write_source
from tests.conftest import cli, eval_row, picture, records, tree_bytes

import cv2  # isort: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn world of 8 windows, ingested."""
    folder = tmp_path_factory.mktemp("world")
    write_source(folder / "source", seed=5, scenes=4)
    ingest(folder / "source", workspace=folder / "w", name="world")
    return folder


def score(world: Path) -> float:
    result = audit(truth=world / "source" / "truth.json", links=world / "source" / "links.json", workspace=world / "w")
    return float(result["mean_iou"])


def test_grabcut_beats_oriented_boxes_and_they_beat_upright_ones(world: Path) -> None:
    scores = {}
    for engine in ("box", "oriented-box", "grabcut"):
        refine_masks(workspace=world / "w", engine=engine)
        scores[engine] = score(world)
    assert scores["box"] + 0.03 < scores["oriented-box"]
    assert scores["oriented-box"] + 0.1 < scores["grabcut"]


def test_every_mask_has_its_scores_and_the_size_of_its_image(world: Path) -> None:
    refine_masks(workspace=world / "w", engine="grabcut")
    for record in records(sorted((world / "w" / "2-refine").glob("round-*"))[-1]):
        assert tuple(record["mask"]["size"]) == (record["image"]["height"], record["image"]["width"])
        assert decode_rle(tuple(record["mask"]["size"]), record["mask"]["counts"]).any()
        assert set(record["mask"]["scores"]) == {"jitter_agreement", "mask_box_agreement", "stability", "vote_agreement"}
        assert all(0 <= value <= 1 for value in record["mask"]["scores"].values())


def test_real_rows_reach_their_figure(shared: Path, tmp_path: Path) -> None:
    folder = shared / "nwpu_vhr10_refer"
    ingest(folder, workspace=tmp_path / "w", fit="keep", limit=120)
    refine_masks(workspace=tmp_path / "w")
    result = audit(truth=folder / "instances.json", links=folder / "truth.json", workspace=tmp_path / "w")
    assert result["n"] == 120
    assert result["mean_iou"] > 0.70
    assert result["share"]["0.8"] > 0.40


def test_a_real_oriented_box_gives_at_least_what_its_rectangle_covers(shared: Path) -> None:
    folder = shared / "vrsbench_samples"
    engine, rectangle, upright = GrabCutEngine(), BoxEngine(oriented=True), BoxEngine(oriented=False)
    scores = []
    for item in json.loads((folder / "truth" / "windows.json").read_text())[:4]:
        image = np.asarray(Image.open(folder / "Images" / item["image"]).convert("RGB"))
        labels = np.asarray(Image.open(folder / "truth" / item["image"].replace(".png", "_instances.png")))
        for each in (engine, rectangle, upright):
            each.load(image)
        for instance in item["instances"]:
            if instance["fraction_inside"] < 1:
                continue
            mask = labels == instance["label"]
            points = cv2.boxPoints(cv2.minAreaRect(np.argwhere(mask)[:, ::-1].astype(np.float32) + 0.5))
            quad = quad_from_flat(points.astype(float).ravel().tolist())
            prompt = Prompt(quad_bounds(quad), quad, to_class(instance["class"]) or "")
            scores.append([mask_iou(each.segment([prompt])[0].values, mask) for each in (engine, rectangle, upright)])
    ours, oriented, plain = np.mean(scores, axis=0)
    assert oriented > 0.88
    assert ours >= oriented
    assert plain < 0.8


def test_the_official_yellow_bus(shared: Path, tmp_path: Path) -> None:
    ingest(shared / "vrsbench_samples", workspace=tmp_path / "w")
    refine_masks(workspace=tmp_path / "w")
    [record] = records(tmp_path / "w" / "2-refine" / "round-1")
    mask = decode_rle(tuple(record["mask"]["size"]), record["mask"]["counts"])
    labels = np.asarray(Image.open(shared / "vrsbench_samples" / "truth" / "P0003_0002_instances.png"))
    assert max(mask_iou(mask, labels == label) for label in np.unique(labels)[1:]) > 0.85


def test_every_engine_gives_a_mask_on_flat_tiny_and_border_boxes() -> None:
    flat = np.full((40, 60, 3), 128, np.uint8)
    boxes = [(5.0, 5.0, 6.0, 6.0), (0.0, 0.0, 60.0, 40.0), (58.5, 38.5, 60.0, 40.0), (0.0, 10.0, 60.0, 11.0)]
    for engine in (GrabCutEngine(), BoxEngine(oriented=True)):
        for image in (flat, picture(1, 40, 60)):
            engine.load(image)
            for category in ("airplane", "vehicle", "ship", "dam", "storage-tank"):
                for found in engine.segment([Prompt(box, None, category) for box in boxes]):
                    assert found.values.shape == (40, 60)
                    assert np.isfinite(list(found.scores.values())).all()


def test_cleaning_rules_do_what_they_are_named_for_and_can_be_turned_off() -> None:
    mask = box_mask((20, 20, 60, 60), 100, 100)
    mask[30:34, 30:34] = False
    mask[40:42, 70:72] = True
    mask[90:95, 90:95] = True
    box = (20.0, 20.0, 60.0, 60.0)
    assert (clean_mask(mask, box, CleanRules()) == box_mask(box, 100, 100)).all()
    assert (clean_mask(mask, box, CleanRules(0, 0, -1)) == mask).all()
    only_cut = clean_mask(mask, box, CleanRules(0, 0, 0.4))
    assert not only_cut[90:95, 90:95].any()
    assert only_cut[40:42, 70:72].all()
    assert not clean_mask(mask, box, CleanRules(0.2, 0, -1))[40:42, 70:72].any()
    assert clean_mask(mask, box, CleanRules(0, 0.05, -1))[30:34, 30:34].all()
    far = box_mask((90, 90, 95, 95), 100, 100)
    assert clean_mask(far, box, CleanRules()).any()


@pytest.mark.parametrize(
    ("values", "code"),
    [(np.zeros((10, 12)), "mask_empty"), (np.ones((9, 12)), "mask_wrong_size"), (np.full((10, 12), np.nan), "mask_not_finite"),
     (np.where(np.arange(120).reshape(10, 12) == 5, np.inf, 1.0), "mask_not_finite"), (np.zeros((10, 12), bool), "mask_empty")],
)  # fmt: skip
def test_an_engines_bad_answer_is_never_a_mask(values: np.ndarray, code: str) -> None:
    with pytest.raises(InvalidRowError) as caught:
        checked_mask(values, (10, 12))
    assert caught.value.code == code


@pytest.fixture
def small(make_source: Callable[..., Path], tmp_path: Path) -> Path:
    rows = [eval_row(f"S{key % 30:04d}_0000.png", key, f"{{<{20 + key % 7}><24><{49 + key % 5}><{49 + key // 30}>}}") for key in range(130)]
    ingest(make_source(rows, images=30), workspace=tmp_path / "w", fit="keep")
    return tmp_path / "w"


def test_the_number_of_workers_does_not_change_a_byte(small: Path, tmp_path: Path) -> None:
    refine_masks(workspace=small, engine="grabcut", workers=1)
    alone = tree_bytes(small / "2-refine")
    (small / "2-refine").rename(tmp_path / "aside")
    refine_masks(workspace=small, engine="grabcut", workers=2)
    assert tree_bytes(small / "2-refine") == alone


def test_a_killed_worker_is_replaced_and_nothing_is_lost(small: Path) -> None:
    command = [sys.executable, "-m", "risbench", "refine-masks", "-w", str(small), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    killed = None
    while killed is None and process.poll() is None:
        for child in children.read_text().split():
            words = Path(f"/proc/{child}/cmdline").read_bytes()
            if b"spawn_main" in words:
                time.sleep(1.5)
                os.kill(int(child), signal.SIGKILL)
                killed = child
                break
        time.sleep(0.05)
    _, error = process.communicate(timeout=120)
    assert killed is not None
    assert process.returncode == 0, error
    assert len(records(small / "2-refine" / "round-1")) == 130


def test_the_same_options_are_one_round_and_others_the_next(small: Path) -> None:
    assert refine_masks(workspace=small, engine="box")["round"] == 1
    before = tree_bytes(small)
    assert refine_masks(workspace=small, engine="box")["state"] == "up to date"
    assert tree_bytes(small) == before
    assert refine_masks(workspace=small, engine="box", rules=CleanRules(min_fragment=0.5))["round"] == 2
    assert refine_masks(workspace=small, engine="oriented-box")["round"] == 3


def test_masks_that_the_source_brought_are_kept_unless_asked(shared: Path, tmp_path: Path) -> None:
    ingest(shared / "nwpu_vhr10_refer", workspace=tmp_path / "w", format="coco", fit="keep", limit=20)
    refine_masks(workspace=tmp_path / "w", engine="box")
    assert {record["mask"]["engine"] for record in records(tmp_path / "w" / "2-refine" / "round-1")} == {"source"}
    refine_masks(workspace=tmp_path / "w", engine="box", redo_given=True)
    assert {record["mask"]["engine"] for record in records(tmp_path / "w" / "2-refine" / "round-2")} == {"box"}


def test_a_record_whose_image_is_gone_or_damaged_has_a_problem(small: Path) -> None:
    (small / "images" / "vrsbench" / "S0003_0000.png").unlink()
    (small / "images" / "vrsbench" / "S0004_0000.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    result = refine_masks(workspace=small, engine="box")
    assert result["problems_by_code"] == {"image_damaged": 5, "image_missing": 5}
    assert result["counts"]["out"] == 130


def test_bad_options_name_themselves(small: Path, tmp_path: Path) -> None:
    for options, match in (({"engine": "magic"}, "--engine magic"), ({"engine": "sam"}, "--checkpoint"), ({"workers": 0}, "--workers 0"),
                           ({"engine": "box", "checkpoint": "x"}, "--checkpoint"), ({"rules": CleanRules(min_fragment=2)}, "--min-fragment 2")):  # fmt: skip
        with pytest.raises(OptionError, match=match):
            refine_masks(workspace=small, **options)
    with pytest.raises(InputError, match="no such file"):
        refine_masks(workspace=small, engine="sam", checkpoint=tmp_path / "gone.pth")
    assert cli("refine-masks", "-w", tmp_path / "nowhere").returncode == 3


def test_thousands_of_objects_of_an_image_are_asked_in_batches_with_the_same_masks(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = list(read_records(Workspace.open(small).stage("1-ingest")))[:6]
    pixels = np.zeros((members[0].image.height, members[0].image.width, 3), np.uint8)
    asked: list[int] = []

    class Counting(BoxEngine):
        def segment(self, prompts: Sequence[Prompt]) -> list[Segmentation]:
            asked.append(len(prompts))
            return super().segment(prompts)

    whole = refine_image(Counting(oriented=False), "box", pixels, members, CleanRules(), 1)
    monkeypatch.setattr(engines, "LOGITS_BYTES", 2 * 12 * pixels.shape[0] * pixels.shape[1])
    cut = refine_image(Counting(oriented=False), "box", pixels, members, CleanRules(), 1)
    assert asked == [6, 2, 2, 2]
    assert cut == whole
