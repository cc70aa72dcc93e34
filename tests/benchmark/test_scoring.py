"""The peers' protocol to the last digit, and what counts as what."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("transformers", reason="the train extra is not installed")

from PIL import Image
from torch.nn import functional

from risbench.benchmark.data.cache import resized, resized_mask
from risbench.benchmark.data.release import Sample
from risbench.benchmark.eval.scoring import check_protocol, mask_at, score, truth_at
from risbench.core.errors import OptionError
from risbench.core.masks import encode_rle
from risbench.core.metrics import summarize

DATA = Path(__file__).parents[1] / "data"


def sample(mask: np.ndarray, name: str = "a", image: str = "i.png", category: str = "ship") -> Sample:
    size, counts = encode_rle(mask)
    return Sample(name, "test", image, "scene", "The ship", category, size, counts, (0.0, 0.0, 1.0, 1.0), (), False, True)


@pytest.mark.parametrize("protocol", ["native", "peer"])
def test_the_golden_pairs_give_the_peers_figures_to_the_last_digit(protocol: str) -> None:
    golden, pairs = json.loads((DATA / "metrics_golden.json").read_text()), np.load(DATA / "metrics_golden.npz")
    rows = []
    for found, truth in zip(pairs["pred"].astype(bool), pairs["gt"].astype(bool), strict=True):
        one = sample(truth)
        rows += score([one], [found], [one], check_protocol(protocol))
    assert [row.iou for row in rows] == golden["ious"]
    scale = 100 if protocol == "peer" else 1  # 48 x 48 masks at 480 x 480
    assert sum(row.intersection for row in rows) == golden["cum_I"] * scale
    assert sum(row.union for row in rows) == golden["cum_U"] * scale
    figures = summarize([(row.intersection, row.union) for row in rows])
    for name in ("mIoU", "oIoU", "Pr@0.5", "Pr@0.6", "Pr@0.7", "Pr@0.8", "Pr@0.9"):
        assert 100 * figures[name] == pytest.approx(golden[name], rel=1e-15, abs=0)


def test_the_peers_score_at_480_with_aligned_corners_and_nearest_truth() -> None:
    random = np.random.default_rng(0)
    truth = random.random((300, 400)) > 0.5
    logits = torch.from_numpy(random.normal(size=(30, 40)).astype(np.float32))
    row = score([sample(truth)], [logits], [sample(truth)], "peer")[0]
    expected = functional.interpolate(logits[None, None], (480, 480), mode="bilinear", align_corners=True)[0, 0].numpy() > 0
    target = np.asarray(Image.fromarray(truth.astype(np.uint8)).resize((480, 480), Image.Resampling.NEAREST)).astype(bool)
    assert row.pixels == 480 * 480
    assert (row.intersection, row.union) == (int((expected & target).sum()), int((expected | target).sum()))
    native = score([sample(truth)], [logits], [sample(truth)], "native")[0]
    expected = functional.interpolate(logits[None, None], (300, 400), mode="bilinear", align_corners=True)[0, 0].numpy() > 0
    assert (native.pixels, native.intersection) == (300 * 400, int((expected & truth).sum()))


def test_images_and_masks_are_resized_as_the_peers_do() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    peers = np.asarray(Image.fromarray(pixels).resize((480, 480), Image.Resampling.BILINEAR))
    differing = np.abs(resized(pixels, 480).astype(int) - peers)
    assert differing.max() <= 1
    assert (differing > 0).mean() < 0.03
    assert np.array_equal(truth_at(sample(pixels[:, :, 0] > 128), "peer"), resized_mask(pixels[:, :, 0] > 128, 480))


def test_a_tie_is_background_and_two_empty_masks_are_a_failure() -> None:
    assert not mask_at(torch.zeros(4, 4), (8, 8)).any()
    nothing = np.zeros((8, 8), dtype=bool)
    row = score([sample(nothing)], [nothing], [sample(nothing)], "native")[0]
    assert (row.iou, row.intersection, row.union) == (0.0, 0, 0)


def test_other_objects_and_pieces_are_counted() -> None:
    left, right, both = np.zeros((20, 40), dtype=bool), np.zeros((20, 40), dtype=bool), np.zeros((20, 40), dtype=bool)
    left[5:15, 5:15] = right[5:15, 25:35] = True
    both[:] = left | right
    others = [sample(left, "a"), sample(left, "a-said-otherwise"), sample(right, "b")]
    row = score([others[0]], [both], others, "native")[0]
    assert (row.astray, row.others) == (1, 1)
    split = left.copy()
    split[9:11] = False  # two pieces of the right object are not several objects
    assert score([others[0]], [split], others, "native")[0].astray == 0
    around = [sample(left, "a"), sample(both | np.roll(both, 2, axis=0), "group")]  # a group that the target is part of
    assert score([around[0]], [left], around, "native")[0].others == 0
    row = score([others[0]], [left], others, "native")[0]
    assert (row.astray, row.others) == (0, 0)


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(OptionError, match="--protocol peers: must be one of peer, native"):
        check_protocol("peers")
