"""The table: every model alike, gone on with where it stopped, in four forms; and one model on two releases."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="the train extra is not installed")

import torch

from risbench.benchmark.compare import compare
from risbench.benchmark.data.release import read_release
from risbench.benchmark.eval.evaluate import evaluate
from risbench.benchmark.run import benchmark
from risbench.benchmark.subjects import ablations, subjects
from risbench.benchmark.table.published import published
from risbench.cli.text_benchmark import print_compare
from risbench.core.errors import InputError, MissingRequirementError, OptionError
from risbench.export import export
from risbench.refine import refine_masks
from tests.benchmark.conftest import FEW_STEPS

MODELS = "empty,centre,lavt,crobim,crobim:mid.attention=pwam+capm.scales=[1,2],box-predicted"


@pytest.fixture(scope="module")
def made(release: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("table")
    return out, benchmark(release, out=out, models=MODELS, config="tiny", changes=FEW_STEPS, seeds=2, published_on="RISBench", quiet=True)


def test_every_row_is_there_with_its_difference(made: tuple[Path, dict]) -> None:
    out, result = made
    assert [row["name"] for row in result["rows"]] == [subject.name for subject in subjects(MODELS)]
    for row in result["rows"]:
        assert len(row["seeds"]) == (2 if row["parameters"] else 0)
        if row["name"] == "crobim":
            assert "difference" not in row
        else:
            low, high = row["difference"]["interval"]
            assert low <= row["difference"]["value"] <= high
    text = (out / "table.txt").read_text()
    assert (
        "every model 6 steps of 8 samples; trained for the peers' weighted cross-entropy (lavt), 0.5 cross-entropy + 0.5 dice (crobim"
        in text
    )
    assert "Boxes are given to the built-in SAM." in text
    assert f"RISBench has 16,159 samples in its test split, and these are {result['n']:,}: not the same." in text
    assert "smaller gaps between papers mean nothing" in text
    assert "CroBIM (ConvNeXt-B)      69.33" in text
    assert (out / "table.md").read_text().count("\n| crobim") == 2
    latex = (out / "table.tex").read_text()
    assert latex.count(r"\\") == len(result["rows"]) + 1 + 1 + len(result["published"]) + 1 + 1
    assert "mIoU difference from crobim" in latex
    assert "peer protocol" in latex.splitlines()[-2], "a table that is taken into a paper says how it was scored"
    assert json.loads((out / "table.json").read_text())["rows"] == result["rows"]


def test_the_same_command_makes_only_what_is_missing(release: Path, made: tuple[Path, dict]) -> None:
    out, _ = made
    before = {path.name: path.read_bytes() for path in out.glob("table.*")}
    stamp = (out / "lavt-seed0" / "parquet-test-peer.json").stat().st_mtime_ns
    shutil.rmtree(out / "crobim-seed1")
    (out / "table.txt").unlink()
    benchmark(release, out=out, models=MODELS, config="tiny", changes=FEW_STEPS, seeds=2, published_on="RISBench", quiet=True)
    assert {path.name: path.read_bytes() for path in out.glob("table.*")} == before
    assert (out / "lavt-seed0" / "parquet-test-peer.json").stat().st_mtime_ns == stamp


def test_every_model_tries_the_same_learning_rates(release: Path, caches: Path, tmp_path: Path) -> None:
    options = {"config": "tiny", "changes": FEW_STEPS, "rates": [1e-3, 1e-4], "cache": caches, "quiet": True}
    result = benchmark(release, out=tmp_path, models="lavt,crobim", **options)  # type: ignore[arg-type]
    assert "the best of 2 learning rates by val" in (tmp_path / "table.txt").read_text()
    assert all(row["learning_rate"] in (1e-3, 1e-4) for row in result["rows"])
    assert len([path for path in tmp_path.iterdir() if "seed0" in path.name]) == 4


def test_models_may_begin_with_their_runs_of_another_benchmark(
    made: tuple[Path, dict], release: Path, caches: Path, tmp_path: Path
) -> None:
    begun, _ = made
    options = {"config": "tiny", "changes": FEW_STEPS, "init_from": begun, "cache": caches, "quiet": True}
    benchmark(release, out=tmp_path, models="lavt,crobim", **options)  # type: ignore[arg-type]
    assert f"Begun with the runs of {begun.parent.name}/{begun.name}, 6 steps." in (tmp_path / "table.txt").read_text()
    for name in ("lavt", "crobim"):
        told = [json.loads((folder / f"{name}-seed0" / "model.json").read_text()) for folder in (begun, tmp_path)]
        assert told[1]["weights"]["run"]["sha256"] == told[0]["sha256"]
    with pytest.raises(OptionError, match="has no crobim-seed2, it holds crobim"):
        benchmark(release, out=tmp_path, models="crobim", seeds=3, **options)  # type: ignore[arg-type]


def test_what_cannot_work_is_said_before_hours_of_training(release: Path, tmp_path: Path) -> None:
    def asked(**options: object) -> None:
        benchmark(release, out=tmp_path, **{"models": "crobim", "config": "tiny", "changes": FEW_STEPS, "quiet": True, **options})  # type: ignore[arg-type]

    for options, said in (
        ({"protocol": "peers"}, "--protocol peers"),
        ({"split": "tests"}, "--split tests"),
        ({"published_on": "RISBench", "protocol": "native"}, "are of the peer protocol"),
        ({"models": "crobim,crobim:mid.attention=foo"}, "mid.attention = 'foo'"),
        ({"models": "crobim,crobim:recipe.steps=9"}, "has other steps"),
        ({"models": "box-predicted,empty"}, "name one, too"),
        ({"weights": tmp_path / "no.pth"}, "there is no such file"),
    ):
        with pytest.raises((OptionError, InputError), match=said):
            asked(**options)
    assert list(tmp_path.iterdir()) == []


def test_differences_may_be_taken_from_a_guess(release: Path, tmp_path: Path) -> None:
    options = {
        "models": "crobim:recipe.batch=4,centre",
        "config": "tiny",
        "changes": FEW_STEPS,
        "against": "centre",
        "seeds": 2,
        "quiet": True,
    }
    rows = {row["name"]: row for row in benchmark(release, out=tmp_path, **options)["rows"]}  # type: ignore[arg-type]
    assert rows["crobim:recipe.batch=4"]["difference"]["against"] == "centre"
    assert "6 steps of 4 samples" in (tmp_path / "table.txt").read_text()
    assert "difference" not in rows["centre"]


def test_a_list_of_models_is_read_with_brackets_and_tables() -> None:
    names = [subject.name for subject in subjects("crobim,table5,crobim:mid.levels=[2,3,4]+mid.pyramid=true")]
    assert names == ["crobim", *ablations()["table5"], "crobim:mid.levels=[2,3,4]+mid.pyramid=true"]
    assert [subject.name for subject in subjects("empty,table7")] == ["crobim", "empty", *ablations()["table7"]], "with what they change"
    for text, said in (("crobin", "there is no such model"), ("empty:x=1", "not trained"), ("lavt,lavt", "lavt stands twice")):
        with pytest.raises(OptionError, match=said):
            subjects(text)


def test_the_papers_figures_are_the_papers() -> None:
    rows = {(row["model"], row["backbone"]): row for row in published("RRSIS-D")}
    ours = rows[("CroBIM", "Swin-B")]
    assert (ours["oIoU"], ours["mIoU"], ours["Pr@0.5"], ours["Pr@0.9"]) == (76.37, 64.24, 75.00, 21.78)
    assert rows[("LAVT", "Swin-B")]["oIoU"] == 76.16
    assert ("RMSIN", "in its own paper") in rows
    changes = [subject.changes[0] for subject in subjects("table5,table6,table7") if subject.changes]
    ablations = published("RISBench", changes=changes)[-10:]
    assert [row["mIoU"] for row in ablations] == [69.04, 69.11, 69.15, 68.67, 69.10, 68.55, 68.78, 69.02, 65.54, 67.02]
    with pytest.raises(OptionError, match="--published COCO"):
        published("COCO")


def test_a_release_that_changes_while_it_is_scored_is_refused(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changing = tmp_path / "release"
    shutil.copytree(workspace / "4-export" / "risbench", changing)
    tested = next(sample.image for sample in read_release(changing).samples if sample.split == "test")

    def scored_and_changed(*words: Any, **options: Any) -> dict[str, Any]:
        result = evaluate(*words, **options)
        (changing / tested).unlink(missing_ok=True)
        return result

    monkeypatch.setattr("risbench.benchmark.run.evaluate", scored_and_changed)
    with pytest.raises(InputError, match="release: was changed while models were scored on it; give the same command again"):
        benchmark(changing, out=tmp_path / "b", models="empty,full", config="tiny", quiet=True)
    again = benchmark(changing, out=tmp_path / "b", models="empty,full", config="tiny", quiet=True)
    assert again["left_out"]["image_missing"] > 0
    monkeypatch.setattr("risbench.benchmark.compare.evaluate", scored_and_changed)
    changing.rename(tmp_path / "once")
    shutil.copytree(workspace / "4-export" / "risbench", changing)
    with pytest.raises(InputError, match="release: was changed while models were scored on it; give the same command again"):
        compare(changing, changing, out=tmp_path / "c", config="tiny", changes=FEW_STEPS, quiet=True)


def test_two_releases_of_the_same_records_are_compared(
    workspace: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refine_masks(workspace=workspace, engine="box", redo_given=True, quiet=True)
    split = workspace / "4-export" / "parquet" / "split.csv"
    boxes = Path(
        export(workspace=workspace, split=str(split), include_unreviewed=True, formats=("parquet",), name="boxes", quiet=True)["path"]
    )
    truth = workspace / "4-export" / "parquet"
    if not torch.cuda.is_available():
        with pytest.raises(MissingRequirementError, match="--gpu: PyTorch finds no CUDA device"):
            compare(boxes, truth, out=tmp_path / "both", config="tiny", gpu=True, quiet=True)
        assert not (tmp_path / "cache").exists(), "it is said before caches are made"
    result = compare(boxes, truth, out=tmp_path / "both", config="tiny", changes=FEW_STEPS, quiet=True)
    assert result["common"] == result["training"]["A"] == result["training"]["B"]
    assert 0.3 < result["mask_agreement"] < 0.95
    low, high = result["difference"]["interval"]
    assert low <= result["difference"]["value"] <= high
    # a release that lacks a scene is compared on what both have
    rows = split.read_text().splitlines()
    scene = next(row for row in rows if row.endswith(",train"))
    fewer_split = tmp_path / "fewer.csv"
    fewer_split.write_text("\n".join(row.replace(",train", ",val") if row == scene else row for row in rows) + "\n")
    fewer = export(workspace=workspace, split=str(fewer_split), include_unreviewed=True, formats=("parquet",), name="fewer", quiet=True)
    options: dict[str, Any] = {"config": "tiny", "changes": FEW_STEPS, "cache": tmp_path / "own", "quiet": True}
    with pytest.raises(OptionError, match="nothing: is no run, which --compare needs"):
        compare(fewer["path"], truth, out=tmp_path / "matched", init_from=tmp_path / "nothing", **options)
    assert not (tmp_path / "own").exists(), "it is said before caches are made"
    matched = compare(fewer["path"], truth, out=tmp_path / "matched", init_from=run, **options)
    assert any((tmp_path / "own").iterdir())
    assert any((tmp_path / "cache").iterdir()), "without the option beside the folder, where train and evaluate look, too"
    assert matched["common"] == matched["training"]["A"] < matched["training"]["B"]
    runs = [json.loads((tmp_path / "matched" / f"{name}-crobim-seed0" / "model.json").read_text()) for name in "AB"]
    assert [told["training"]["samples"] for told in runs] == [matched["common"]] * 2
    assert matched["begun"] == {key: told["weights"]["run"][key] for told in runs for key in ("from", "sha256", "steps")}
    assert (matched["begun"]["from"], result["begun"]) == (run.name, None)
    print_compare(result)
    assert "began with" not in capsys.readouterr().out
    print_compare(matched)
    said = " ".join(capsys.readouterr().out.split())
    assert f"each learnt from the {matched['common']} training samples that both have" in said
    assert "each began with crobim, of 6 steps" in said
    with pytest.raises(OptionError, match="--split val: is learnt from or chosen by"):
        compare(boxes, truth, out=tmp_path / "val", split="val", config="tiny", quiet=True)
    other = export(workspace=workspace, split=".5,.2,.3", seed=9, include_unreviewed=True, formats=("parquet",), name="other", quiet=True)
    with pytest.raises(InputError, match="is in its train split and in test"):
        compare(other["path"], truth, out=tmp_path / "leak", config="tiny", changes=FEW_STEPS, quiet=True)
