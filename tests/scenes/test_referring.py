"""Scenes to refer in: enough of a class that the class alone does not tell, and each sentence true of one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np

from risbench.core.masks import decode_rle
from risbench.scenes.referring import DISTRACTORS, draw_referring, write_referring


def test_every_sentence_has_three_others_of_its_class_to_tell_from() -> None:
    seen = 0
    for index in range(24):
        pixels, objects = draw_referring(0, index)
        assert pixels.shape == (512, 512, 3)
        sentences = [item.sentence for item in objects]
        assert len(set(sentences)) == len(sentences)
        for item in objects:
            assert not item.is_unique
            assert item.sentence != f"The {item.thing.noun}"
        seen += len(objects)
    assert seen > 40
    assert DISTRACTORS == 3


def test_a_written_world_is_coco_with_masks_and_the_same_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_referring(tmp_path / name, 1, 12, side=128)
    assert (tmp_path / "a" / "instances.json").read_bytes() == (tmp_path / "b" / "instances.json").read_bytes()
    value = json.loads((tmp_path / "a" / "instances.json").read_text())
    assert {image["width"] for image in value["images"]} == {128}
    kinds = Counter(row["category_id"] for row in value["annotations"])
    assert len(kinds) >= 3
    for row in value["annotations"]:
        mask = decode_rle(tuple(row["segmentation"]["size"]), row["segmentation"]["counts"])
        x, y, width, height = row["bbox"]
        assert mask.sum() == row["area"]
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert (columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]) == (x, y, width, height)
