from __future__ import annotations

import csv
import hashlib
import io
import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools.coco import COCO

from risbench.core.errors import InputError, OptionError
from risbench.core.record import SPLITS, Record, Split
from risbench.core.workspace import Workspace, read_records
from risbench.export import export
from risbench.formats.split_list import SplitList, read_split_list, write_split_list
from risbench.ingest import ingest
from risbench.inspect.audit import audit
from risbench.inspect.show import show
from risbench.inspect.stats import stats, words_of
from risbench.inspect.validate import validate
from risbench.refine import refine_masks
from risbench.review.store.review_store import ReviewStore
from risbench.review.verbs.audit import _population as audited_population
from risbench.scenes.source import write_source
from tests.conftest import tree_bytes


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    write_source(folder / "source", seed=1, scenes=10)
    ingest(folder / "source", workspace=folder / "w", name="world")
    refine_masks(workspace=folder / "w", engine="oriented-box")
    return folder


@pytest.fixture
def workspace(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base / "w", tmp_path / "w"))


def release(workspace: Path, **options: object) -> Path:
    return Path(export(workspace=workspace, include_unreviewed=True, **options)["path"])  # type: ignore[arg-type]


def test_masks_that_nobody_reviewed_are_left_out_unless_asked_and_then_the_release_says_so(workspace: Path) -> None:
    with pytest.raises(InputError, match="unreviewed .*--include-unreviewed"):
        export(workspace=workspace)
    assert not (workspace / "4-export").exists() or not any((workspace / "4-export").iterdir())
    folder = release(workspace)
    assert "have not been reviewed by a person" in (folder / "README.md").read_text()
    assert json.loads((folder / "release.json").read_text())["unreviewed"] > 0


def test_reviewed_records_are_released_and_rejected_ones_are_not(workspace: Path) -> None:
    stage = workspace / "2-refine" / "round-1"
    records = list(read_records(stage))
    statuses = ["accepted", "corrected", "rejected", "unreviewed"]
    changed = [
        record.model_copy(update={"review": record.review.model_copy(update={"status": statuses[index % 4]})})
        for index, record in enumerate(records)
    ]
    rewrite(stage, [record.to_line() for record in changed])
    result = export(workspace=workspace)
    assert result["left_out"] == {"rejected": statuses_count(records, 2), "unreviewed": statuses_count(records, 3)}
    assert result["unreviewed"] == 0


def test_what_the_audit_sample_is_drawn_of_is_what_is_released(workspace: Path) -> None:
    stage = workspace / "2-refine" / "round-1"
    statuses = ["accepted", "triaged", "rejected", "unreviewed", "adjudicated"]
    changed = []
    for index, record in enumerate(read_records(stage)):
        record = record.model_copy(update={"review": record.review.model_copy(update={"status": statuses[index % 5]})})
        changed.append(record.with_problem("ingest", "mask_box_conflict", "IoU .2") if index % 7 == 0 else record)
    rewrite(stage, [record.to_line() for record in changed])
    made = export(workspace=workspace)
    released = {row["id"] for split in SPLITS for row in pq.read_table(Path(made["path"]) / f"annotations_{split}.parquet").to_pylist()}
    assert made["left_out"]["triaged_outside_train"] > 0
    scenes = write_split_list(SplitList("scene", assign_all(changed, Path(made["path"]) / "split.csv")))
    (workspace / "all.csv").write_text(scenes)
    assert set(audited_population(ReviewStore(Workspace.open(workspace)), workspace / "all.csv", {})) == released


def assign_all(records: list[Record], frozen: Path) -> dict[str, Split]:
    """Return the split of every scene: of a release's list, and test for the scenes of which it holds nothing."""
    known = read_split_list(frozen).splits
    return {record.image.scene: known.get(record.image.scene, "test") for record in records}


def rewrite(stage: Path, lines: list[str]) -> None:
    """Put other records into a stage, as a later stage would: one part, listed in run.json."""
    for part in stage.glob("part-*.jsonl"):
        part.unlink()
    data = "".join(line + "\n" for line in lines).encode()
    (stage / "part-00000.jsonl").write_bytes(data)
    summary = json.loads((stage / "run.json").read_bytes())
    summary["parts"] = [{"name": "part-00000.jsonl", "records": len(lines), "sha256": hashlib.sha256(data).hexdigest()}]
    (stage / "run.json").write_text(json.dumps(summary))


def statuses_count(records: list, which: int) -> int:
    return sum(index % 4 == which for index in range(len(records)))


def test_the_released_layout_has_one_image_and_mask_per_referent(workspace: Path) -> None:
    folder = release(workspace)
    records = {record.id: record for record in read_records(Workspace.open(workspace).latest())}
    seen = 0
    scenes: dict[str, set[str]] = {}
    for split in ("train", "val", "test"):
        table = pq.read_table(folder / f"annotations_{split}.parquet").to_pylist()
        lines = (folder / f"output_phrase_{split}.txt").read_text().splitlines()
        assert len(lines) == len(table) > 0
        for line, row in zip(lines, table, strict=True):
            name, sentence = line.split(" ", 1)
            record = records[row["id"]]
            assert record.expression is not None
            assert (name, sentence) == (f"{row['name']}.png", record.expression.text)
            mask = np.asarray(Image.open(folder / "masks" / name))
            image = np.asarray(Image.open(folder / "images" / name))
            assert set(np.unique(mask)) == {0, 255}
            assert mask.shape == image.shape[:2] == (512, 512)
            scenes.setdefault(split, set()).add(row["scene"])
            seen += 1
    assert seen == len(records)
    assert not scenes["train"] & scenes["test"]
    assert not scenes["train"] & scenes["val"]
    assert not scenes["val"] & scenes["test"]


def test_coco_opens_in_pycocotools_and_carries_sentences(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = release(workspace, formats=["coco"])
    coco = COCO(str(folder / "coco" / "instances_train.json"))
    for annotation in coco.loadAnns(coco.getAnnIds()):
        assert coco.annToMask(annotation).sum() == annotation["area"] > 0
        assert annotation["expression"]
        assert (folder / "coco" / "images" / coco.loadImgs(annotation["image_id"])[0]["file_name"]).is_file()


def test_refer_files_are_what_the_peers_loaders_need(workspace: Path) -> None:
    folder = release(workspace, formats=["refer"]) / "refer"
    data = (folder / "world" / "refs(unc).p").read_bytes()
    assert data[:2] == b"\x80\x02"
    refs = pickle.loads(data)
    instances = json.loads((folder / "world" / "instances.json").read_text())
    assert refs == json.loads((folder / "world" / "refs.json").read_text())
    by_id = {annotation["id"]: annotation for annotation in instances["annotations"]}
    images = {image["id"]: image for image in instances["images"]}
    from pycocotools import mask as coco_mask

    for ref in refs:
        assert all(type(ref[key]) is int for key in ("ref_id", "ann_id", "image_id", "category_id"))
        assert {"sent_ids", "split", "file_name", "sentences"} <= set(ref)
        segmentation = by_id[ref["ann_id"]]["segmentation"]
        assert isinstance(segmentation, list)
        decoded = np.sum(coco_mask.decode(segmentation), axis=2)
        assert decoded.max() == 1
        assert (folder / "images" / "world" / "JPEGImages" / images[ref["image_id"]]["file_name"]).is_file()
        assert all({"sent_id", "sent", "raw", "tokens"} <= set(sentence) for sentence in ref["sentences"])


@pytest.mark.parametrize(("formats", "read_as"), [(["refer"], None), (["coco"], "coco"), (["risbench"], "phrases")])
def test_what_we_write_we_read_back_with_the_same_masks_and_sentences(
    workspace: Path, tmp_path: Path, formats: list[str], read_as: str | None
) -> None:
    folder = release(workspace, formats=formats)
    ingest(folder if read_as == "phrases" else folder / formats[0], workspace=tmp_path / "again", format=read_as, fit="keep")

    def content(stage: Path) -> set[tuple[str, str]]:
        return {(record.expression.text, record.mask.counts) for record in read_records(stage) if record.expression and record.mask}

    assert content(tmp_path / "again" / "1-ingest") == content(Workspace.open(workspace).latest())


def test_checksums_fit_and_the_same_command_changes_nothing(workspace: Path) -> None:
    folder = release(workspace, formats=["coco", "refer", "risbench"])
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ", 1)
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    before = tree_bytes(workspace)
    assert export(workspace=workspace, include_unreviewed=True, formats=["coco", "refer", "risbench"])["state"] == "up to date"
    assert tree_bytes(workspace) == before
    with pytest.raises(InputError, match="--replace"):
        export(workspace=workspace, include_unreviewed=True)
    assert tree_bytes(workspace) == before
    assert export(workspace=workspace, include_unreviewed=True, replace=True)["state"] == "released"
    assert not (folder / "coco").exists()


def test_a_failed_release_does_not_appear(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["risbench.export.run"]

    def full(folder: Path, release: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_description", full)
    from risbench.core.errors import MissingRequirementError

    with pytest.raises(MissingRequirementError, match="disk is full"):
        export(workspace=workspace, include_unreviewed=True)
    assert not (workspace / "4-export" / "release").exists()
    monkeypatch.undo()
    assert export(workspace=workspace, include_unreviewed=True)["state"] == "released"


def test_a_disk_that_fills_up_within_a_shard_leaves_the_old_release_and_nothing_else(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = release(workspace)
    before = tree_bytes(workspace / "4-export")

    def full(self: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("risbench.export.formats.parquet._ParquetSplit._flush", full)
    from risbench.core.errors import MissingRequirementError

    with pytest.raises(MissingRequirementError, match="disk is full"):
        export(workspace=workspace, include_unreviewed=True, formats=["all"], replace=True)
    assert tree_bytes(workspace / "4-export") == before
    assert old.is_dir()


def test_an_image_that_is_not_what_was_ingested_is_not_released(workspace: Path) -> None:
    image = next((workspace / "images").rglob("*.png"))
    image.write_bytes(image.read_bytes() + b"x")
    with pytest.raises(InputError, match="is not the image that was ingested"):
        release(workspace)
    assert not (workspace / "4-export" / "release").exists()


def test_a_releases_own_split_list_makes_the_same_split_again(workspace: Path) -> None:
    first = release(workspace)
    frozen = export(workspace=workspace, include_unreviewed=True, split=str(first / "split.csv"), name="again")
    again = Path(frozen["path"])
    for split in ("train", "val", "test"):
        assert (first / f"output_phrase_{split}.txt").read_bytes() == (again / f"output_phrase_{split}.txt").read_bytes()


def test_a_changed_frozen_list_is_another_release(workspace: Path, tmp_path: Path) -> None:
    first = release(workspace)
    listed = (first / "split.csv").read_text()
    frozen = tmp_path / "frozen.csv"
    frozen.write_text(listed)
    assert export(workspace=workspace, include_unreviewed=True, split=str(frozen), name="f")["state"] == "released"
    assert export(workspace=workspace, include_unreviewed=True, split=str(frozen), name="f")["state"] == "up to date"
    frozen.write_text(listed.replace(",val", ",x").replace(",test", ",val").replace(",x", ",test"))
    with pytest.raises(InputError, match="--replace"):
        export(workspace=workspace, include_unreviewed=True, split=str(frozen), name="f")


def test_bad_options_name_themselves(workspace: Path) -> None:
    for options, match in (({"formats": ["voc"]}, "--format voc"), ({"name": "../x"}, "--name"), ({"split": "magic"}, "--split magic")):
        with pytest.raises(OptionError, match=match):
            export(workspace=workspace, include_unreviewed=True, **options)  # type: ignore[arg-type]


def test_audit_gives_the_figures_it_names_with_and_without_links(base: Path, tmp_path: Path) -> None:
    truth, links = base / "source" / "truth.json", base / "source" / "links.json"
    linked = audit(truth=truth, links=links, workspace=base / "w", sheet=tmp_path / "sheet.png")
    assert set(linked["share"]) == {"0.5", "0.7", "0.8", "0.9"}
    for key in ("n", "mean_iou", "boundary_iou", "share_interval", "by"):
        assert key in linked
    low, high = linked["mean_iou_interval"]
    assert low < linked["mean_iou"] < high
    assert Image.open(tmp_path / "sheet.png").size[0] > 1000
    matched = audit(truth=truth, workspace=base / "w")
    assert matched["n"] >= 0.97 * linked["n"]
    assert matched["mean_iou"] == pytest.approx(linked["mean_iou"], abs=0.02)
    assert set(linked["by"]) == {"class", "size", "box_tier", "engine"}


def test_audit_scores_the_truth_itself_as_one_under_every_placement(shared: Path, tmp_path: Path) -> None:
    folder = shared / "nwpu_vhr10_refer"
    for fit, least in (("keep", 1.0), ("window", 1.0), ("pad", 0.97)):
        ingest(folder, workspace=tmp_path / fit, format="coco", fit=fit, limit=40)  # type: ignore[arg-type]
        links = tmp_path / "links.json"
        links.write_text(json.dumps({str(number): number for number in range(1, 60)}))
        result = audit(truth=folder / "instances.json", links=links, workspace=tmp_path / fit)
        assert result["mean_iou"] >= least, fit


def test_audit_counts_a_missing_mask_as_zero_and_says_what_it_could_not_match(base: Path, tmp_path: Path) -> None:
    ingest(base / "source", workspace=tmp_path / "w", name="world")
    result = audit(truth=base / "source" / "truth.json", links=base / "source" / "links.json", workspace=tmp_path / "w")
    assert result["mean_iou"] == 0
    assert result["without_mask"] == result["n"]
    (tmp_path / "few.json").write_text('{"0": 1}')
    few = audit(truth=base / "source" / "truth.json", links=tmp_path / "few.json", workspace=base / "w")
    assert few["n"] == 1
    assert few["not_scored"]["no_link"] > 0
    (tmp_path / "wrong.json").write_text('{"0": 999999}')
    with pytest.raises(InputError, match="0 = 999999"):
        audit(truth=base / "source" / "truth.json", links=tmp_path / "wrong.json", workspace=base / "w")


def test_validate_finds_each_kind_of_damage(workspace: Path) -> None:
    assert validate(workspace=workspace)["faults"] == []
    stage = workspace / "1-ingest"
    part = sorted(stage.glob("part-*.jsonl"))[0]
    good = part.read_text()
    lines = good.splitlines()
    image = workspace / json.loads(lines[0])["image"]["path"]
    damages = {
        "image gone": lambda: image.rename(image.with_suffix(".x")),
        "line cut": lambda: part.write_text(good[:-50] + "\n"),
        "line dropped": lambda: part.write_text("\n".join(lines[1:]) + "\n"),
        "twice": lambda: part.write_text(good + lines[0] + "\n"),
        "box": lambda: part.write_text(good.replace('"box":[', '"box":[-', 1)),
        "field": lambda: part.write_text(good.replace('"schema_version":1', '"schema_version":2', 1)),
        "pixel": lambda: image.write_bytes(image.read_bytes()[:-1] + b"x"),
        "unfinished": lambda: (stage / "run.json").unlink(),
        "run.json nested": lambda: (stage / "run.json").write_text("[" * 100_000),
        "a part without its sum": lambda: (stage / "run.json").write_bytes(summary.replace(b'"sha256"', b'"sha255"')),
        "counts without one": lambda: (stage / "run.json").write_bytes(summary.replace(b'"quarantined"', b'"quarantine"')),
    }
    backup = image.read_bytes()
    summary = (stage / "run.json").read_bytes()
    for name, damage in damages.items():
        damage()
        faults = validate(workspace=workspace)["faults"]
        assert faults, name
        part.write_text(good)
        image.write_bytes(backup)
        (stage / "run.json").write_bytes(summary)
    image.with_suffix(".x").unlink(missing_ok=True)
    assert validate(workspace=workspace)["faults"] == []


def test_validate_finds_an_empty_and_a_wrong_size_mask(workspace: Path) -> None:
    part = sorted((workspace / "2-refine" / "round-1").glob("part-*.jsonl"))[0]
    line = json.loads(part.read_text().splitlines()[0])
    for size, counts in (([512, 512], "PPP8"), ([100, 100], line["mask"]["counts"])):
        line["mask"].update(size=size, counts=counts)
        part.write_text(json.dumps(line) + "\n")
        assert any("mask" in fault for fault in validate(workspace=workspace)["faults"])


def test_stats_draws_three_pictures_and_counts_words(workspace: Path) -> None:
    result = stats(workspace=workspace)
    assert result["table_1"]["image size"] == "512x512"
    assert result["table_1"]["triplets"] == sum(1 for _ in read_records(Workspace.open(workspace).latest()))
    for path in result["figures"]:
        assert min(Image.open(path).size) > 300
    again = [Path(path).read_bytes() for path in result["figures"]]
    assert [Path(path).read_bytes() for path in stats(workspace=workspace)["figures"]] == again
    assert words_of("The left-most ship's bow, 2 m.") == ["the", "left-most", "ship's", "bow", "2", "m"]


def test_show_draws_a_record_with_its_history(workspace: Path) -> None:
    record = next(iter(read_records(workspace / "1-ingest")))
    result = show(record.id, workspace=workspace)
    assert Image.open(result["picture"]).size[0] > 1000
    told = "\n".join(result["history"])
    for word in ("box given", "review: unreviewed", "mask by oriented-box", "sentence"):
        assert word in told
    assert show(record.id[5:], workspace=workspace)["id"] == record.id
    with pytest.raises(InputError, match="no such record"):
        show("nothing", workspace=workspace)
    with pytest.raises(InputError, match="ids end so"):
        show("0", workspace=workspace)


def test_pictures_are_png(workspace: Path) -> None:
    folder = release(workspace)
    assert Image.open(io.BytesIO(next((folder / "images").iterdir()).read_bytes())).format == "PNG"


def test_the_card_says_who_may_use_what_and_its_name_is_text(workspace: Path) -> None:
    import yaml

    from risbench.export.card import who_may

    folder = release(workspace, name="1.0")
    card = (folder / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["pretty_name"] == "1.0"
    described = json.loads((folder / "release.json").read_text())
    assert sum(row["triplets"] for row in described["licences_by_source"]) == described["triplets"]
    for row in described["licences_by_source"]:
        assert f"| {row['dataset']} | {row['licence']} | {who_may(row['licence'])} | {row['triplets']:,} |" in card
    assert who_may("text CC-BY-4.0; image DOTA, academic use only") == "research only, no commercial use"
    assert who_may("text CC-BY-4.0; image DIOR, CC BY-NC") == "anyone without commercial purpose, naming the source"
    assert who_may("not stated by the source") == "ask the source"
    assert who_may("CC-BY-4.0") == "anyone, naming the source"


def test_a_damaged_description_is_not_this_release_and_a_damaged_list_is_named(workspace: Path, tmp_path: Path) -> None:
    folder = release(workspace)
    (folder / "release.json").write_bytes((folder / "release.json").read_bytes()[:100])
    with pytest.raises(InputError, match="--replace"):
        release(workspace)
    assert release(workspace, replace=True) == folder
    (tmp_path / "huge.csv").write_text("scene,split\n" + "x" * 200_000 + ",train\n")
    csv.field_size_limit(1 << 24)  # as the reader of boxes sets it, for the whole process
    with pytest.raises(InputError, match=r"huge\.csv: line \d: is no CSV"):
        release(workspace, split=str(tmp_path / "huge.csv"), name="h")


def test_official_lists_without_a_val_are_no_matter_of_sizes(workspace: Path) -> None:
    made = export(workspace=workspace, include_unreviewed=True, split="official", name="o", quiet=True)
    assert any("the list names nothing of it" in warning for warning in made["warnings"])
    assert "split as the sources' own lists say" in (Path(made["path"]) / "README.md").read_text()


def test_sentences_of_one_endless_word_have_figures_all_the_same(workspace: Path) -> None:
    stage = workspace / "2-refine" / "round-1"
    parts = sorted(stage.glob("part-*.jsonl"))
    rows = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
    for row in rows:
        row["expression"]["text"] = "x" * 2000
    from risbench.core.record import Record
    from risbench.inspect.stats import stats_of

    found = stats_of([Record.model_validate(row) for row in rows], "x", workspace / "s")
    assert len(found["figures"]) == 3
