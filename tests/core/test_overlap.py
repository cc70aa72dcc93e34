"""Images that show the same ground are found whatever they are called, and others are not."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from risbench.core.imagery import Pixels, encode_png
from risbench.core.overlap import SHARED_PX_FROM, Overlap, alike, at_source_scale, corners_of, overlap_of
from risbench.core.record import Placement
from risbench.export import export
from risbench.ingest import ingest
from risbench.refine import refine_masks
from risbench.scenes.world import draw_scene


def jpeg(pixels: Pixels, quality: int) -> Pixels:
    done, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return np.asarray(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), dtype=np.uint8)


def found(images: list[Pixels], scenes: list[str] | None = None) -> list[Overlap]:
    corners = [corners_of(image) for image in images]
    pairs = alike(corners, scenes or [f"scene {index}" for index in range(len(images))])
    return [overlap for pair in pairs if (overlap := overlap_of(pair, corners, images.__getitem__)) is not None]


@pytest.fixture(scope="module")
def ground() -> list[Pixels]:
    """Return four grounds of 768 x 768 pixels, each of four drawn scenes."""
    grounds = []
    for seed in range(4):
        a, b, c, d = (draw_scene(seed, index).pixels for index in range(4))
        grounds.append(np.vstack([np.hstack([a, b]), np.hstack([c, d])])[:768, :768])
    return grounds


@pytest.mark.parametrize("qualities", [(None, None), (90, 60), (40, 75)])
@pytest.mark.parametrize("shift", [(0, 0), (160, 0), (0, 224), (130, 97), (224, 200)])
def test_windows_that_overlap_are_found_with_their_shift(
    ground: list[Pixels], shift: tuple[int, int], qualities: tuple[int | None, int | None]
) -> None:
    x, y = shift
    images = []
    for scene in ground:
        for quality, part in zip(qualities, (scene[:512, :512], scene[y : y + 512, x : x + 512]), strict=True):
            images.append(part if quality is None else jpeg(part, quality))
    hits = found(images)
    assert [(hit.first, hit.second) for hit in hits] == [(0, 1), (2, 3), (4, 5), (6, 7)]
    for hit in hits:
        assert np.abs(np.subtract(hit.shift, shift)).max() <= 1
        assert hit.share == pytest.approx((512 - x) * (512 - y) / 512**2, abs=0.005)


def test_windows_of_one_scene_and_strangers_are_no_pairs(ground: list[Pixels]) -> None:
    assert found([ground[0][:512, :512], ground[0][100:612, :512]], ["one", "one"]) == []
    assert found([scene[:512, :512] for scene in ground]) == []
    assert found([ground[0][:300, :300], ground[0][310:610, 310:610]]) == []


def test_images_without_structure_are_no_pairs() -> None:
    flat = np.full((512, 512, 3), 90, np.uint8)
    assert len(corners_of(flat)) == 0
    assert len(corners_of(flat[:20, :20])) == 0
    assert found([flat, flat, flat]) == []
    stripes = np.repeat(np.repeat((np.arange(512) // 8 % 2 * 255).astype(np.uint8)[None, :], 512, axis=0)[..., None], 3, axis=2)
    assert all(hit.share * stripes[..., 0].size >= SHARED_PX_FROM for hit in found([stripes, stripes]))


def test_scenes_of_two_sizes_that_were_scaled_to_one_are_compared_at_their_own_scale(ground: list[Pixels]) -> None:
    wide, small = ground[0][:, :640], ground[0][200:712, 200:712]
    scaled = np.zeros((512, 512, 3), np.uint8)
    scale = 768 / 512
    scaled[:, :427] = cv2.resize(wide, (427, 512), interpolation=cv2.INTER_AREA)
    padded = Placement(fit="pad", source_width=640, source_height=768, affine=(640 / 427, 0, 0, 0, scale, 0))
    kept = Placement(fit="keep", source_width=512, source_height=512, affine=(1, 0, 0, 0, 1, 0))
    [hit] = found([at_source_scale(scaled, padded), at_source_scale(small, kept)])
    assert np.abs(np.subtract(hit.shift, (200, 200))).max() <= 2


def test_renamed_windows_stay_in_one_split_and_official_lists_show_their_leak(tmp_path: Path, ground: list[Pixels]) -> None:
    """Eight windows of four scenes, compressed and renamed: two of one scene never part, though no name says that they belong together."""
    source = tmp_path / "source"
    (source / "Images").mkdir(parents=True)
    rows: dict[str, list[dict[str, object]]] = {"train": [], "EVAL": []}
    for index, scene in enumerate(ground):
        for part, (x, y) in enumerate(((0, 0), (200, 150))):
            name = f"{'xkcd'[index]}{'ab'[part]}.png"
            (source / "Images" / name).write_bytes(encode_png(jpeg(scene[y : y + 512, x : x + 512], 80)))
            if part:
                row: dict[str, object] = {"image_id": name, "question": f"The ship in picture {name} at the left.", "type": "ref"}
                row |= {"ground_truth": "{<10><10><30><30>}", "question_id": index, "obj_cls": "ship", "dataset": "RSBench"}
                rows["EVAL"].append(row)
            else:
                talk = [{"from": "human", "value": f"<image>\n[refer] the ship in picture {name} at the left."}]
                rows["train"].append({"id": "x", "image": name, "conversations": [*talk, {"from": "gpt", "value": "{<10><10><30><30>}"}]})
    (source / "VRSBench_EVAL_referring.json").write_text(json.dumps(rows["EVAL"]))
    (source / "VRSBench_train.json").write_text(json.dumps(rows["train"]))
    workspace = tmp_path / "w"
    said = ingest(source, workspace=workspace, quiet=True)
    assert said["duplicate_images"]["overlapping_pairs_of_different_scenes"] == 4
    listed = json.loads((workspace / "1-ingest" / "duplicates.json").read_text())["overlapping"]
    assert sorted([Path(path).stem for path in pair["images"]] for pair in listed) == [
        ["ca", "cb"],
        ["da", "db"],
        ["ka", "kb"],
        ["xa", "xb"],
    ]
    refine_masks(workspace=workspace, engine="box", workers=1, quiet=True)
    ours = export(workspace=workspace, include_unreviewed=True, split=".5,.25,.25", name="ours", quiet=True)
    assert ours["leaked"] == {"val": 0, "test": 0}
    assert {name: row["triplets"] for name, row in ours["splits"].items()} == {"train": 4, "val": 2, "test": 2}
    assert ours["beside"]["rule"] == "official"
    assert ours["beside"]["leaked"] == {"val": 0, "test": 4}
    theirs = export(workspace=workspace, include_unreviewed=True, split="official", name="theirs", quiet=True)
    assert theirs["leaked"] == {"val": 0, "test": 4}
    assert theirs["overlap"]["overlapping"]["train"]["test"] == 4
    assert theirs["overlap"]["scenes"]["train"]["test"] == 0, "names alone show no leak"
    assert theirs["beside"]["rule"] == "scene"
    assert theirs["beside"]["leaked"] == {"val": 0, "test": 0}
    text = (Path(theirs["path"]) / "README.md").read_text()
    assert "| triplets of test on ground that train shows | 4 of 4 | 0 of 4 |" in text
    again = export(workspace=workspace, include_unreviewed=True, split=str(Path(theirs["path"]) / "split.csv"), name="again", quiet=True)
    for split in ("train", "test"):
        one, other = (Path(of["path"]) / f"output_phrase_{split}.txt" for of in (theirs, again))
        assert one.read_bytes() == other.read_bytes()


def test_real_images_of_one_place_are_found(shared: Path, tmp_path: Path) -> None:
    """NWPU VHR-10 has images of the same ground under unrelated names; they were looked at, one by one."""
    said = ingest(shared / "nwpu_vhr10_refer", workspace=tmp_path / "w", quiet=True)
    assert said["duplicate_images"] == {"exact": 0, "near_pairs": 0, "overlapping_pairs_of_different_scenes": 8}
