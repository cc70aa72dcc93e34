"""Evaluation: the same for any number of processes, sliced, and honest about what it was given."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from threading import Event, Thread

import cv2
import numpy as np
import pytest

pytest.importorskip("transformers", reason="the train extra is not installed")

import torch

from risbench.benchmark.data.cache import Cache, open_cache
from risbench.benchmark.data.release import read_release
from risbench.benchmark.eval import baselines, sheet
from risbench.benchmark.eval.evaluate import evaluate
from risbench.benchmark.eval.results import same_data
from risbench.benchmark.eval.scoring import score
from risbench.benchmark.eval.slices import by_slices, failures, in_order, touches_border, traits_of
from risbench.benchmark.models.crobim.crobim import CroBim
from risbench.benchmark.train.checkpoint import ABOUT, read_about
from risbench.cli.text_benchmark import print_evaluate
from risbench.core.errors import InputError, MissingRequirementError, OptionError
from risbench.core.metrics import paired_interval, score_intervals
from risbench.core.storage import digest_of, to_json
from risbench.sam.builtin import builtin_weights
from risbench.sam.compact.predictor import CompactPredictor
from tests.benchmark.conftest import until


def signed(about: dict, run: Path) -> None:
    """Write a changed model.json as if it had been made so."""
    told = {name: value for name, value in about.items() if name != "digest"}
    (run / ABOUT).write_bytes(to_json({**told, "digest": digest_of(told)}))


def test_the_figures_are_the_same_for_any_number_of_processes(release: Path, caches: Path, run: Path, tmp_path: Path) -> None:
    one = evaluate(run, release, out=tmp_path / "one", cache=caches, quiet=True)
    two = evaluate(run, release, out=tmp_path / "two", cache=caches, workers=2, quiet=True)
    assert (tmp_path / "one" / "parquet-test-peer.jsonl").read_bytes() == (tmp_path / "two" / "parquet-test-peer.jsonl").read_bytes()
    assert one["figures"] == two["figures"]
    assert one["n"] == len([1 for _ in (tmp_path / "one" / "parquet-test-peer.jsonl").open()])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_an_evaluations_processes_end_with_it(release: Path, caches: Path, tmp_path: Path) -> None:
    code = (
        "from risbench.benchmark.eval.evaluate import evaluate\nif __name__ == '__main__':\n"
        f"    evaluate('box-oracle', {str(release)!r}, split='train', side=96, out={str(tmp_path / 'o')!r}, cache={str(caches)!r}, "
        "workers=2, quiet=True)\n"
    )
    (tmp_path / "asking.py").write_text(code)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "asking.py")], env={**os.environ, "PYTHONPATH": "."})
    at_work: set[int] = set()

    def both() -> bool:
        for child in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split():
            if "images.npy" in Path(f"/proc/{child}/maps").read_text():
                os.kill(int(child), signal.SIGSTOP)  # it cannot end for want of work
                at_work.add(int(child))
        assert parent.poll() is None
        return len(at_work) == 2

    until(both, "both have opened the cache")
    parent.kill()
    parent.wait()
    until(lambda: not any(_runs(child) for child in at_work), "they end, too")


def _runs(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_slices_and_failures_cover_the_split(release: Path, caches: Path, run: Path, tmp_path: Path) -> None:
    found = evaluate(run, release, out=tmp_path, cache=caches, protocol="native", quiet=True)
    for kind in ("class", "size", "words", "uniqueness", "border"):
        assert sum(row["n"] for row in found["slices"][kind].values()) == found["n"]
    assert found["slices"]["attribute"]["category"]["n"] <= found["n"]
    assert all(row["few"] == (row["n"] < 20) for groups in found["slices"].values() for row in groups.values())
    assert set(found["failures"]["kinds"]) == {"several objects", "look-alike background", "imprecise annotation", "image border"}
    picture = cv2.imread(found["sheet"])
    assert picture.shape[0] > 600
    assert picture.std() > 20


def test_figures_on_another_release_of_the_same_name_lie_beside(workspace: Path, caches: Path, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours" / "release", tmp_path / "theirs" / "release"
    for release in (ours, theirs):
        shutil.copytree(workspace / "4-export" / "risbench", release)
    alone = Counter(sample.image for sample in read_release(theirs).samples if sample.split == "test").most_common()[-1][0]
    (theirs / alone).unlink()
    options = {"out": tmp_path / "o", "cache": caches, "side": 96, "quiet": True}
    first = evaluate("centre", ours, **options)  # type: ignore[arg-type]
    stamp = Path(first["path"]).stat().st_mtime_ns
    second = evaluate("centre", theirs, **options)  # type: ignore[arg-type]
    assert Path(second["path"]).name == "release-test-peer.json", "what was asked last has the plain name"
    assert json.loads(Path(second["path"]).read_text())["n"] == second["n"] < first["n"]
    kept = evaluate("centre", ours, **options)  # type: ignore[arg-type]
    assert Path(kept["path"]).name == f"release-test-peer-{first['of'][:8]}.json"
    assert {**kept, "path": "", "sheet": ""} == {**first, "path": "", "sheet": ""}
    assert Path(kept["path"]).stat().st_mtime_ns == stamp, "the answer still holds"
    assert all(Path(found["sheet"]).is_file() for found in (kept, second))
    # killed before the figures were written
    Path(second["path"]).unlink()
    again = evaluate("centre", theirs, **options)  # type: ignore[arg-type]
    assert again == second
    assert len(list((tmp_path / "o").glob("*.json"))) == 2
    with pytest.raises(InputError, match="was changed while models were scored"):
        same_data(kept, again)


def test_figures_read_back_are_printed_as_they_were(
    release: Path, caches: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for _ in range(2):
        print_evaluate(evaluate(run, release, out=tmp_path, cache=caches, quiet=True))
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    places = [
        printed[0].index(word) for word in ("mIoU", "oIoU", "Pr@0.5", "by class", "by size", "by words", "by border", "several objects")
    ]
    assert places == sorted(places)
    renamed = shutil.copytree(run, tmp_path / "renamed")
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert evaluate(renamed, release, out=tmp_path, cache=caches, quiet=True)["subject"] == "renamed"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")} == stamps, "read back"


def test_slices_are_in_the_order_of_what_they_mean() -> None:
    assert in_order(["small", "tiny", "large", "medium"]) == ["tiny", "small", "medium", "large"]
    assert in_order(["6-10 words", "11-15 words", "1-5 words"]) == ["1-5 words", "6-10 words", "11-15 words"]
    assert in_order(["ship", "airplane"]) == ["airplane", "ship"]


def test_an_evaluation_of_which_a_process_is_killed_says_so(release: Path, caches: Path, tmp_path: Path) -> None:
    def kill_all() -> None:
        while not over.wait(0.05):
            for child in multiprocessing.active_children():
                child.kill()

    over = Event()
    killer = Thread(target=kill_all)
    killer.start()
    try:
        with pytest.raises(MissingRequirementError, match="try fewer than --workers 2"):
            evaluate("centre", release, out=tmp_path, cache=caches, side=96, workers=2, quiet=True)
    finally:
        over.set()
        killer.join()


def test_a_run_with_a_setting_that_is_no_more_is_named(release: Path, caches: Path, run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "older")
    about = read_about(copy)
    signed({**about, "settings": {**about["settings"], "mid": {**about["settings"]["mid"], "gone": 1}}}, copy)
    with pytest.raises(InputError, match=r"settings\.mid\.gone = 1: .*train again with this version"):
        evaluate(copy, release, cache=caches, quiet=True)


def test_a_map_of_attention_lies_where_the_image_is() -> None:
    heat = np.zeros((32, 32), np.float32)  # of 100 pixels, padded to 128
    heat[24:] = 1
    picture = sheet._heated(np.full((100, 100, 3), 128, np.uint8), heat).astype(int)
    assert np.abs(picture[:92] - picture[0, 0]).max() == 0
    assert np.abs(picture[98] - picture[0, 0]).min(axis=0).max() > 30


@pytest.mark.parametrize(
    ("name", "least", "most"), [("empty", 0, 0), ("full", 0.005, 0.06), ("centre", 0, 0.2), ("mean", 0, 0.2), ("largest", 0.1, 0.27)]
)
def test_trivial_baselines_are_what_they_are_called(
    name: str, least: float, most: float, release: Path, caches: Path, tmp_path: Path
) -> None:
    found = evaluate(name, release, out=tmp_path, cache=caches, quiet=True)
    assert least <= found["figures"]["mIoU"]["value"] <= most


def test_true_boxes_given_to_the_built_in_sam_are_far_better(release: Path, caches: Path, run: Path, tmp_path: Path) -> None:
    oracle = evaluate("box-oracle", release, out=tmp_path / "o", cache=caches, protocol="native", quiet=True)
    assert oracle["figures"]["mIoU"]["value"] > 0.7
    assert len(oracle["weights_sha256"]) == 64
    guessed = evaluate("box-predicted", release, out=tmp_path / "p", cache=caches, boxes_from=run, quiet=True)
    assert guessed["figures"]["mIoU"]["value"] < oracle["figures"]["mIoU"]["value"]
    with pytest.raises(OptionError, match="--boxes-from"):
        evaluate("box-predicted", release, out=tmp_path / "q", cache=caches, quiet=True)


def test_what_else_lies_beside_a_sam_does_not_matter(release: Path, caches: Path, tmp_path: Path) -> None:
    (tmp_path / "database").mkdir()
    (tmp_path / "other_base.pth").write_bytes(b"nobody asks for this")
    weights = shutil.copy(builtin_weights(), tmp_path / "sam.safetensors")
    options = {"out": tmp_path / "o", "cache": caches, "side": 96, "quiet": True}
    found = evaluate("box-oracle", release, weights=weights, **options)  # type: ignore[arg-type]
    (tmp_path / "other_base.pth").unlink()
    stamp = Path(found["path"]).stat().st_mtime_ns
    evaluate("box-oracle", release, weights=weights, **options)  # type: ignore[arg-type]
    assert Path(found["path"]).stat().st_mtime_ns == stamp, "the answer still holds"
    with pytest.raises(InputError, match="gone.pth"):
        evaluate("box-oracle", release, weights=tmp_path / "gone.pth", **options)  # type: ignore[arg-type]


def test_memory_that_runs_out_says_what_to_do(
    release: Path, caches: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    for where, name, subject in (
        (baselines, "open_model", "box-oracle"),
        (CompactPredictor, "load", "box-oracle"),
        (CroBim, "to", run),
        (CroBim, "encode", run),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, full)
            with pytest.raises(MissingRequirementError, match="CUDA out of memory; free some, and give the same command again"):
                evaluate(subject, release, out=tmp_path, cache=caches, quiet=True)


def test_the_largest_of_its_class_is_right_where_it_is_meant(cache: Cache, release: Path, caches: Path, tmp_path: Path) -> None:
    evaluate("largest", release, out=tmp_path, cache=caches, protocol="native", quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "parquet-test-native.jsonl").read_text().splitlines()]
    images = {row["image"] for row in rows}
    right = [row for row in rows if row["intersection"] == row["union"]]
    assert {row["image"] for row in right} == images
    assert len(right) <= len(images) + 2


def test_shuffled_sentences_are_of_the_same_class_and_another_sample(release: Path, caches: Path, run: Path, tmp_path: Path) -> None:
    from risbench.benchmark.eval.evaluate import Asked, _asked_about

    data = open_cache(release, 96, caches, quiet=True)
    asked = Asked(str(run), str(release), str(caches), "test", "peer", "cpu", "fp32", True, None, None, 96)
    shuffled = _asked_about(asked, data)
    changed = 0
    for before, after in zip(data.samples, shuffled.samples, strict=True):
        assert before.id == after.id
        if before.split != "test":
            assert before == after
        changed += before.sentence != after.sentence
    for category in {sample.category for sample in data.samples}:
        members = [number for number in data.of("test") if data.samples[number].category == category]
        assert sorted(data.samples[n].sentence for n in members) == sorted(shuffled.samples[n].sentence for n in members)
    assert changed > len(data.of("test")) / 2


def test_a_flipped_bit_another_configuration_and_a_lost_file_are_named(release: Path, caches: Path, run: Path, tmp_path: Path) -> None:
    def broken(name: str) -> Path:
        shutil.copytree(run, tmp_path / name)
        return tmp_path / name

    flipped = broken("flipped")
    weights = read_about(run)["weights_file"]
    data = bytearray((flipped / weights).read_bytes())
    data[-100] ^= 1
    (flipped / weights).write_bytes(data)
    with pytest.raises(InputError, match=rf"{weights}: is damaged or of another run"):
        evaluate(flipped, release, cache=caches, quiet=True)
    other = broken("other")
    about = json.loads((other / ABOUT).read_text())
    about["settings"]["mid"]["layers"] = 2
    (other / ABOUT).write_text(json.dumps(about))
    with pytest.raises(InputError, match="is damaged .its digest is not what it says"):
        evaluate(other, release, cache=caches, quiet=True)
    signed({**about}, other)
    with pytest.raises(InputError, match="is of another configuration"):
        evaluate(other, release, cache=caches, quiet=True)
    lost = broken("lost")
    (lost / weights).unlink()
    with pytest.raises(InputError, match="is missing; take it from"):
        evaluate(lost, release, cache=caches, quiet=True)
    (lost / ABOUT).write_text("{")
    with pytest.raises(InputError, match="model.json: is damaged"):
        evaluate(lost, release, cache=caches, quiet=True)
    with pytest.raises(InputError, match="holds no trained model"):
        evaluate(tmp_path, release, cache=caches, quiet=True)


def test_classes_that_were_never_seen_are_named(release: Path, caches: Path, run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    about = json.loads((copy / ABOUT).read_text())
    about["classes"] = [name for name in about["classes"] if name != "vehicle"]
    signed(about, copy)
    assert evaluate(copy, release, cache=caches, quiet=True)["unseen_classes"] == ["vehicle"]


def test_options_that_cannot_be_met_are_named(release: Path, caches: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--split tests"):
        evaluate(run, release, split="tests", cache=caches, quiet=True)
    with pytest.raises(OptionError, match="--precision half"):
        evaluate(run, release, precision="half", cache=caches, quiet=True)
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(MissingRequirementError, match="--gpu"):
            evaluate(run, release, gpu=True, cache=caches, quiet=True)


def test_every_kind_of_failure_is_told_from_the_others(cache: Cache) -> None:
    """The counts come from the samples themselves: an empty answer is a failure, and shares are of failures and of the rest."""
    samples = [cache.samples[number] for number in cache.of("test")]
    found = []
    for sample in samples:
        others = [other for other in cache.samples if other.image == sample.image]
        everything = np.logical_or.reduce([other.mask for other in others])
        found += score([sample], [everything], others, "native")
    traits = traits_of(cache, found)
    told = failures(found, traits)
    several = told["kinds"]["several objects"]
    assert 0.9 * told["failures"] <= several["failures"] <= told["failures"] > 0
    at_border = sum(touches_border(sample.mask, 0.02) for sample, one in zip(samples, found, strict=True) if one.iou < 0.5)
    assert told["kinds"]["image border"]["failures"] == at_border
    assert failures([], traits)["kinds"]["image border"]["of_the_rest"] is None, "a share of nothing is not nought"
    assert by_slices(cache, found, traits)["uniqueness"]["others of its class referred to"]["n"] > 0


# -- intervals


def test_intervals_draw_images_not_samples() -> None:
    random = np.random.default_rng(0)
    image_ious = random.random(40)
    pairs = [(int(1000 * value), 1000) for value in image_ious for _ in range(10)]
    together = [f"i{number}" for number in range(40) for _ in range(10)]
    low, high = score_intervals(pairs, together)["mIoU"]
    apart_low, apart_high = score_intervals(pairs, [str(number) for number in range(400)])["mIoU"]
    assert low < image_ious.mean() < high
    assert high - low > 2 * (apart_high - apart_low)


def test_a_paired_interval_holds_no_difference_where_there_is_none() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(0, 0.1, (3, 300))
    images = [f"i{number // 3}" for number in range(300)]
    low, high = paired_interval(noise, images)
    assert low < 0 < high
    low, high = paired_interval(noise + 0.05, images)
    assert 0 < low < 0.05 < high
