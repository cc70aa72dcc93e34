from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from risbench.core.geometry import apply_affine, box_mask, invert_affine, map_box
from risbench.core.metrics import mask_iou
from risbench.ingest.fit import choose_fit, render, render_mask, shows, views
from risbench.ingest.scene import is_window_name, scene_of


def test_windows_are_the_producers_own(shared: Path) -> None:
    for item in json.loads((shared / "vrsbench_samples" / "truth" / "windows.json").read_text()):
        scene = np.asarray(Image.open(shared / "dota" / "images" / item["source"]).convert("RGB"))
        made = {item["source"].replace(".png", view.suffix + ".png"): view for view in views("window", scene.shape[1], scene.shape[0])}
        view = made[item["image"]]
        assert view.frame[:2] == (item["x"], item["y"])
        window = np.asarray(Image.open(shared / "vrsbench_samples" / "Images" / item["image"]).convert("RGB"))
        assert (render(view, scene) == window).all()


@given(st.sampled_from(["keep", "window", "pad"]), st.integers(40, 1300), st.integers(40, 1300))
def test_every_pixel_is_shown_and_the_map_is_exact(fit: str, width: int, height: int) -> None:
    made = views(fit, width, height)  # type: ignore[arg-type]
    shown = np.zeros((height, width), bool)
    for view in made:
        left, top, right, bottom = (int(value) for value in view.frame)
        shown[top:bottom, left:right] = True
        corner = apply_affine(view.affine, *map(float, view.content))
        assert corner == pytest.approx((right, bottom))
        assert fit == "keep" or view.size == (512, 512)
    assert shown.all()


@given(st.integers(300, 1500), st.integers(300, 1500), st.floats(0.05, 0.6), st.floats(0.05, 0.6), st.floats(0.1, 0.35))
@example(1391, 300, 0.5, 0.25, 0.109375)  # an edge falls on the middle of pixels: half covered, and either answer is right
@example(1270, 310, 0.06, 0.1013, 0.2)  # two of them do
def test_truth_is_preserved_under_the_mapping(width: int, height: int, x: float, y: float, share: float) -> None:
    box = (round(x * width), round(y * height), round((x + share) * width), round((y + share) * height))
    mask = box_mask(box, height, width)
    [view] = views("pad", width, height)
    mapped = map_box(invert_affine(view.affine), tuple(map(float, box)))  # type: ignore[arg-type]
    row_or_column_at_every_edge = 2.02 / (mapped[2] - mapped[0]) + 2.02 / (mapped[3] - mapped[1])
    assert mask_iou(render_mask(view, mask), box_mask(mapped, 512, 512)) > 1 - row_or_column_at_every_edge


def test_an_object_is_shown_where_its_centre_and_most_of_it_are() -> None:
    left, right = views("window", 1024, 512)
    assert shows(left, [(440, 100, 520, 180)])
    assert not shows(right, [(440, 100, 520, 180)])
    assert not shows(left, [(470, 100, 550, 180)])
    assert not shows(left, [(0, 0, 40, 40), (600, 0, 640, 40)])


@pytest.mark.parametrize(
    ("name", "size", "has_sentences", "expected"),
    [("x.png", (512, 512), True, "keep"), ("P0003_0002.png", (500, 512), True, "keep"), ("scene.png", (900, 700), False, "window"),
     ("scene.png", (900, 700), True, "pad")],
)  # fmt: skip
def test_auto_keeps_what_a_sentence_says_about_position_true(name: str, size: tuple[int, int], has_sentences: bool, expected: str) -> None:
    assert choose_fit("auto", is_window_name(name), *size, has_sentences) == expected


@pytest.mark.parametrize(
    ("name", "scene"),
    [("P0003_0002.png", "P0003"), ("01154_0000.png", "01154"), ("002.jpg", "002"), ("P0003__1__824___0.png", "P0003"),
     ("P0003_0_800_0_800.png", "P0003"), ("OSBS_029.tif", "OSBS_029"), ("P0003_0002_h0123456789.png", "P0003"), ("P0003_0002_1.png", "P0003")],
)  # fmt: skip
def test_the_scene_is_read_off_every_way_of_naming_windows(name: str, scene: str) -> None:
    assert scene_of(name) == scene
