from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from risbench.core.classes import CLASSES
from risbench.scenes import world
from risbench.scenes.canvas import Canvas, bar, coverage, exact_mask, outlines, ribbon, turned, window_of
from risbench.scenes.source import write_source
from risbench.scenes.surroundings import cast_trees
from risbench.scenes.themes import MAKERS, THEMES
from risbench.scenes.thing import nearest_color
from risbench.scenes.world import SIDE_PX, Placed, Scene, draw_scene


@cache
def scene(index: int) -> Scene:
    return draw_scene(3, index)


SOME = range(2 * len(THEMES))


def test_the_same_seed_draws_the_same_scene_in_another_process_and_another_seed_does_not() -> None:
    code = (
        "import hashlib; from risbench.scenes.world import draw_scene; print(hashlib.sha256(draw_scene(3, 5).pixels.tobytes()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(scene(5).pixels.tobytes()).hexdigest()
    assert [item.sentence for item in scene(5).objects] == [item.sentence for item in draw_scene(3, 5).objects]
    assert not (scene(5).pixels == draw_scene(4, 5).pixels).all()


def test_every_class_can_be_made_and_is_drawn() -> None:
    assert set(MAKERS) == set(CLASSES)
    drawn = {item.thing.category for index in range(150) for item in draw_scene(0, index).objects}
    assert drawn == set(CLASSES)


def test_every_class_covers_itself_and_keeps_to_sizes_that_exist() -> None:
    random = np.random.default_rng(0)
    longest = {"vehicle": 18, "airplane": 75, "tennis-court": 26, "ship": 320, "airport": 4000, "storage-tank": 90}
    for category, make in MAKERS.items():
        for _ in range(20):
            thing = make(random)
            assert thing.category == category
            assert 1 < max(thing.size) < longest.get(category, 2000)
            painted = [part for layer in thing.layers for part in layer.points]
            inside = np.vstack(list(thing.outline))
            for part in painted:
                assert np.isfinite(part).all()
                reach = np.abs(part).max() / np.abs(inside).max()
                assert reach < 1.6, f"{category}: a layer reaches {reach:.1f} times as far as its outline"


def test_scales_run_from_a_few_pixels_to_most_of_the_image() -> None:
    longest = [max(np.ptp(item.corners, axis=0)) for index in SOME for item in scene(index).objects]
    assert min(longest) < 20
    assert max(longest) > 250
    assert all(0.1 <= scene(index).metres_per_pixel <= 30 for index in SOME)


def test_masks_lie_on_what_was_drawn() -> None:
    """Inside and around differ for nearly all; low contrast is meant to occur, nothing to see is not."""
    seen = []
    for index in SOME:
        for item in scene(index).objects:
            rows, columns = np.nonzero(item.mask)
            near = np.zeros((SIDE_PX, SIDE_PX), bool)
            margin = 6
            near[max(0, rows.min() - margin) : rows.max() + margin, max(0, columns.min() - margin) : columns.max() + margin] = True
            inside, around = scene(index).pixels[item.mask].astype(float), scene(index).pixels[near & ~item.mask].astype(float)
            seen.append(
                float(np.abs(inside.mean(axis=0) - around.mean(axis=0)).max() + np.abs(inside.std(axis=0) - around.std(axis=0)).max())
            )
    assert np.mean(np.array(seen) > 6) > 0.85


def test_objects_may_touch_and_never_cover_each_other() -> None:
    nearest = []
    for index in SOME:
        total = np.zeros((SIDE_PX, SIDE_PX), int)
        for item in scene(index).objects:
            assert int((total[item.mask] > 0).sum()) < 0.25 * item.mask.sum()
            total += item.mask
        masks = [cv2.dilate(item.mask.astype(np.uint8), np.ones((5, 5), np.uint8)) for item in scene(index).objects]
        nearest += [bool((first & second).any()) for place, first in enumerate(masks) for second in masks[:place]]
    assert sum(nearest) > 10


def test_some_objects_are_cut_by_the_border_and_none_beyond_recognition() -> None:
    cut = 0
    for index in SOME:
        for item in scene(index).objects:
            edge = item.mask[0].any() or item.mask[-1].any() or item.mask[:, 0].any() or item.mask[:, -1].any()
            cut += bool(edge)
            assert item.mask.sum() >= 9
    assert cut > 5


def holds(sentence: str, item: Placed, image: Scene) -> bool:
    """Return whether a sentence is true of an object, by the masks and corners alone."""
    noun = item.thing.noun
    like = [other for other in image.objects if other.thing.noun == noun]
    centre = item.corners.mean(axis=0)
    assert not any(noun.replace(" ", "-") in other.thing.shows for other in image.objects)
    if sentence.startswith("The only "):
        return len(like) == 1
    if " closest to the " in sentence:
        anchor = next(other for other in image.objects if other.thing.noun == sentence.split(" closest to the ")[1])
        far = [float(np.hypot(*(other.corners.mean(axis=0) - anchor.corners.mean(axis=0)))) for other in like]
        return float(np.hypot(*(centre - anchor.corners.mean(axis=0)))) == min(far)
    for word, axis, sign in (("left of the", 0, -1), ("right of the", 0, 1), ("above the", 1, -1), ("below the", 1, 1)):
        if word in sentence and not sentence.endswith(" of the image"):
            anchor = next(other for other in image.objects if other.thing.noun == sentence.split(word + " ")[1])
            return bool(sign * (centre - anchor.corners.mean(axis=0))[axis] > 0)
    named = [other for other in like if not any(color in sentence for color in COLORS) or other.thing.color in sentence]
    if not any(item is other for other in named):
        return False
    areas = [other.mask.sum() for other in named]
    if "largest" in sentence:
        return bool(item.mask.sum() == max(areas))
    if "smallest" in sentence:
        return bool(item.mask.sum() == min(areas))
    for word, axis, sign in (("top-most", 1, 1), ("bottom-most", 1, -1), ("left-most", 0, 1), ("right-most", 0, -1)):
        if word in sentence:
            return bool(sign * centre[axis] == min(sign * other.corners.mean(axis=0)[axis] for other in named))
    if " at the " in sentence:
        return all(part in (item.position or "") for part in sentence.split(" at the ")[1].removesuffix(" of the image").split("-"))
    if "near the center" in sentence:
        return item.position is None
    return True


COLORS = ("white", "red", "blue", "yellow", "black", "gray", "green", "orange", "brown")


def test_sentences_are_true_of_their_object_and_of_no_other() -> None:
    kinds = set()
    for index in range(120):
        image = draw_scene(8, index)
        told = [item.sentence for item in image.objects if item.sentence]
        assert len(told) == len(set(told))
        for item in image.objects:
            if item.sentence is None:
                continue
            assert item.thing.noun in item.sentence
            if any(color in item.sentence.split() for color in COLORS) or "which is" in item.sentence:
                assert nearest_color(image.pixels[item.mask].mean(axis=0)) == item.thing.color
                assert item.thing.color in item.sentence
            fits = [holds(item.sentence, other, image) for other in image.objects if other.thing.noun == item.thing.noun]
            assert holds(item.sentence, item, image), item.sentence
            if " at the " not in item.sentence and "near the center" not in item.sentence:
                assert sum(fits) == 1, item.sentence
            if not image.true_color:
                assert not any(color in item.sentence.split() for color in COLORS), item.sentence
            kinds |= {word for word in ("only", "largest", "most", "closest", "left of", "at the", "white") if word in item.sentence}
    assert kinds == {"only", "largest", "most", "closest", "left of", "at the", "white"}


def test_coverage_counts_area_and_exact_masks_count_centres() -> None:
    square = outlines([bar(10.25, 14.75, 20.5, 22.0)])
    window = window_of(square)
    assert window is not None
    cover = coverage(square, window)
    assert 4.5 * 1.5 <= float(cover.sum()) / 255 <= 4.75 * 1.75 + 0.05
    assert int(cover.max()) == 255
    mask = exact_mask([bar(10.0, 14.0, 20.0, 22.0)])
    assert mask[20:22, 10:14].all()
    assert mask.sum() == 8
    assert exact_mask([bar(10.0, 14.0, 20.0, 22.0), bar(12.0, 16.0, 20.0, 22.0)]).sum() == 12
    assert window_of(outlines([bar(600, 700, 0, 10)])) is None


def test_a_turn_is_clockwise_on_the_image_and_a_ribbon_has_its_width() -> None:
    assert np.allclose(turned(np.array([[1.0, 0.0]]), np.pi / 2), [[0, 1]])
    band = ribbon(np.array([[0.0, 0.0], [5.0, 0.0], [10.0, 0.0]]), 2.0)
    assert np.allclose(np.ptp(band, axis=0), [10, 4])


def test_a_solid_things_shadow_reaches_from_foot_to_top() -> None:
    canvas = Canvas(np.full((SIDE_PX, SIDE_PX, 4), 100, np.uint8))
    canvas.cast(outlines([bar(100, 120, 100, 120)]), np.array([60.0, 0.0]), solid=True)
    canvas.apply_shadow(0.5, 0.5)
    assert canvas.pixels[110, 150, 0] < 60
    assert canvas.pixels[110, 300, 0] == 100
    assert not canvas.shadow.any()


def test_a_polygon_is_laid_where_it_lies_small_or_large_and_its_grain_leaves_the_mean_alone() -> None:
    for side in (20.0, 100.0, 200.0, 400.0):
        square, opacity = outlines([bar(50, 50 + side, 60, 60 + side)]), 1.0 if side < 300 else 0.5
        canvas = Canvas(np.zeros((SIDE_PX, SIDE_PX, 4), np.uint8))
        canvas.fill(square, (200, 100, 80), opacity, grain=6)
        flat = np.full((SIDE_PX, SIDE_PX), 128, np.uint8)
        shown = canvas.develop(flat)
        inside = exact_mask([bar(50, 50 + side, 60, 60 + side)])
        assert np.abs(shown[inside].mean(axis=0) / opacity - (200, 100, 80)).max() < 2.5
        assert shown[~inside].sum() < 1.2 / side * shown.sum()
        assert canvas.develop(flat + 32)[inside].mean() - shown[inside].mean() == pytest.approx(6 * opacity, abs=0.6)
    wide = Canvas(np.zeros((SIDE_PX, SIDE_PX, 4), np.uint8))
    wide.fill(outlines([bar(50, 450, 60, 460)]), (200, 100, 80))
    off = (wide.pixels[..., 0] > 100) ^ exact_mask([bar(50, 450, 60, 460)])
    assert not off[62:458, 52:448].any()
    assert not off[:58].any()
    assert not off[462:].any()
    assert not off[:, :48].any()
    assert not off[:, 452:].any()


def test_trees_cast_their_shadows_beside_them() -> None:
    canvas = Canvas(np.full((SIDE_PX, SIDE_PX, 4), 100, np.uint8))
    cast_trees(canvas, np.array([[200.0, 300.0]]), np.array([20.0]), np.array([1.2, 0.0]))
    rows, columns = np.nonzero(canvas.shadow > 128)
    assert np.hypot(columns - 200, rows - 300).max() < 2.2 * 20
    assert abs(columns.mean() - 224) < 2


def test_tree_shadows_of_whole_scenes_are_cast_by_the_trees_own_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    reaches = []

    def cast(canvas: Canvas, places: np.ndarray, radii: np.ndarray, reach: np.ndarray) -> None:
        reaches.append(float(np.hypot(*reach)))
        cast_trees(canvas, places, radii, reach)

    monkeypatch.setattr(world, "cast_trees", cast)
    for index in range(40):
        draw_scene(11, index)
    assert len(reaches) > 10
    assert max(reaches) <= 1.8
    assert max(reaches) > 0.5


def test_a_large_picture_is_laid_as_a_small_one_is() -> None:
    random = np.random.default_rng(0)
    over, ground = (random.integers(0, 256, (SIDE_PX, SIDE_PX, 4), dtype=np.uint8) for _ in range(2))
    shape = outlines([turned(bar(-180, 180, -150, 150), 0.4) + 256])
    everything = (slice(0, SIDE_PX), slice(0, SIDE_PX))
    alpha = coverage(shape, everything)
    for opacity in (0.6, 1.0):
        canvas = Canvas(ground.copy())
        canvas.lay(everything, alpha, over, opacity)
        weight = alpha[..., None] / 255 * opacity
        assert np.abs(canvas.pixels - (ground * (1 - weight) + over * weight)).max() <= 1.5


def test_the_source_has_all_forms_and_a_truth_for_every_row(tmp_path: Path) -> None:
    counts = write_source(tmp_path, seed=0, scenes=6)
    rows = json.loads((tmp_path / "VRSBench_EVAL_referring.json").read_text())
    links = json.loads((tmp_path / "links.json").read_text())
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert counts["rows"] == len(rows) == len(links)
    assert set(links.values()) <= {item["id"] for item in truth["annotations"]}
    assert any((tmp_path / "Annotations").iterdir())
    assert any("[refer]" in item["conversations"][0]["value"] for item in json.loads((tmp_path / "VRSBench_train.json").read_text()))
