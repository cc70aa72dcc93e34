from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from risbench.scenes.source import write_source
from risbench.scenes.world import draw_scene


def test_the_same_seed_draws_the_same_scene_and_another_does_not() -> None:
    first, again, other = draw_scene(0, 3), draw_scene(0, 3), draw_scene(1, 3)
    assert (first.pixels == again.pixels).all()
    assert [item.sentence for item in first.objects] == [item.sentence for item in again.objects]
    assert not (first.pixels == other.pixels).all()


def test_objects_do_not_overlap_and_masks_are_what_was_drawn() -> None:
    for index in range(10):
        scene = draw_scene(7, index)
        total = np.zeros((512, 512), int)
        for item in scene.objects:
            assert item.mask.any()
            total += item.mask
            inside = scene.pixels[item.mask].astype(float).mean(axis=0)
            near = np.hypot(*(np.indices((512, 512)) - np.argwhere(item.mask).mean(axis=0)[:, None, None])) < 60
            ring = scene.pixels[near & ~item.mask].astype(float).mean(axis=0)
            assert np.abs(inside - ring).max() > 4
        assert total.max() <= 1


def test_sentences_are_unique_in_their_image() -> None:
    for index in range(20):
        told = [item.sentence for item in draw_scene(3, index).objects if item.sentence]
        assert len(told) == len(set(told))


def test_the_only_one_of_a_kind_is_the_only_one() -> None:
    for index in range(20):
        scene = draw_scene(4, index)
        for item in scene.objects:
            if item.sentence and item.sentence.startswith("The only"):
                assert sum(other.thing.noun == item.thing.noun for other in scene.objects) == 1


def test_the_source_has_all_forms_and_a_truth_for_every_row(tmp_path: Path) -> None:
    counts = write_source(tmp_path, seed=0, scenes=3)
    rows = json.loads((tmp_path / "VRSBench_EVAL_referring.json").read_text())
    links = json.loads((tmp_path / "links.json").read_text())
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert counts["rows"] == len(rows) == len(links)
    assert set(links.values()) <= {item["id"] for item in truth["annotations"]}
    assert any((tmp_path / "Annotations").iterdir())
    assert any("[refer]" in item["conversations"][0]["value"] for item in json.loads((tmp_path / "VRSBench_train.json").read_text()))
