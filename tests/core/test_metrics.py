from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from risbench.core.metrics import bootstrap_interval, boundary_iou, intersection_union, mask_iou, summarize

DATA = Path(__file__).parents[1] / "data"


def test_scores_equal_the_peers_on_their_46_pairs() -> None:
    golden = json.loads((DATA / "metrics_golden.json").read_text())
    pairs = np.load(DATA / "metrics_golden.npz")
    counted = [intersection_union(pred, gt) for pred, gt in zip(pairs["pred"], pairs["gt"], strict=True)]
    summary = summarize(counted)
    assert [mask_iou(pred, gt) for pred, gt in zip(pairs["pred"], pairs["gt"], strict=True)] == pytest.approx(golden["ious"])
    assert (sum(i for i, _ in counted), sum(u for _, u in counted)) == (golden["cum_I"], golden["cum_U"])
    for name in ("mIoU", "oIoU", "Pr@0.5", "Pr@0.6", "Pr@0.7", "Pr@0.8", "Pr@0.9"):
        assert 100 * summary[name] == pytest.approx(golden[name]), name


def test_boundary_iou_sees_an_edge_that_iou_forgives() -> None:
    truth = np.zeros((200, 200), bool)
    truth[20:180, 20:180] = True
    rough = truth.copy()
    rough[20:180:8, 20:26] = False
    assert boundary_iou(truth, truth) == 1
    assert boundary_iou(rough, truth) < mask_iou(rough, truth) < 1


def test_the_boundary_band_counts_the_image_border_as_outside() -> None:
    full = np.ones((100, 100), bool)
    assert 0 < boundary_iou(full, full) == 1
    inner = np.zeros((100, 100), bool)
    inner[10:90, 10:90] = True
    assert boundary_iou(inner, full) < 0.5


def test_the_interval_is_wider_when_rows_of_an_image_go_together() -> None:
    values = [1.0] * 10 + [0.0] * 10
    by_row = bootstrap_interval(values, [str(index) for index in range(20)])
    by_image = bootstrap_interval(values, [str(index // 5) for index in range(20)])
    assert by_image[1] - by_image[0] > by_row[1] - by_row[0]
    assert bootstrap_interval(values, ["a"] * 20) == (0.5, 0.5)
