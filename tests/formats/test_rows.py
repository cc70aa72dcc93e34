"""What the names of files and folders say of a row."""

from __future__ import annotations

import pytest

from risbench.formats.source.rows import stated_split


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("a/train.json", "train"),
        ("train/val.json", "val"),
        ("train/instances.json", "train"),
        ("test/train/a.txt", "train"),
        ("instances_validation_val.json", "val"),
        ("a/valid/_annotations.coco.json", "val"),
        ("VRSBench_EVAL_referring.json", "eval"),
        ("train_and_val.json", None),
        ("train/test_train_val.json", None),
        ("constrained/trainer.json", None),
        ("instances.json", None),
    ],
)
def test_the_nearest_part_of_a_path_states_the_split_and_two_splits_in_one_name_none(path: str, split: str | None) -> None:
    assert stated_split(path) == split
