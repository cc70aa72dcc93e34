"""Releases as samples: the same from every layout, and what cannot be used is counted."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("transformers", reason="the train extra is not installed")

import torch
from huggingface_hub import constants
from PIL import Image
from typer.testing import CliRunner

from risbench.benchmark.data.batches import Batches, _gathered, normalised
from risbench.benchmark.data.cache import Cache, open_cache, resized, resized_mask
from risbench.benchmark.data.release import image_of, read_release
from risbench.benchmark.data.words import Words, learn_pieces, words_for
from risbench.benchmark.load_settings import bundled, load_settings
from risbench.benchmark.settings import TextSettings
from risbench.cli.app import app
from risbench.core.errors import InputError, MissingRequirementError, OptionError
from risbench.core.imagery import encode_png
from risbench.ingest import ingest
from tests.benchmark.conftest import FORMATS


@pytest.mark.parametrize("name", FORMATS)
def test_every_layout_gives_the_same_samples(workspace: Path, name: str) -> None:
    found, plain = read_release(workspace / "4-export" / name), read_release(workspace / "4-export" / "parquet")
    assert not found.left_out

    def told(release: object) -> list[tuple[str, ...]]:
        return sorted((one.split, one.sentence, one.category, one.counts, str(one.size)) for one in release.samples)  # type: ignore[attr-defined]

    assert told(found) == told(plain)
    if name != "refer":  # which says nothing of reviews and attributes; those are read off the sentence
        assert [one.attributes for one in found.samples] == [one.attributes for one in plain.samples]


def test_refsegrs_phrases_are_samples_too(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        lines = []
        for number in range(count):
            name = f"{split}{number}"
            random = np.random.default_rng(number)
            mask = np.zeros((40, 40, 3), np.uint8)
            mask[4 + number : 20, 6:30] = 255
            for folder, pixels in (("images", random.integers(0, 256, (40, 40, 3), dtype=np.uint8)), ("masks", mask)):
                (tmp_path / folder).mkdir(exist_ok=True)
                (tmp_path / folder / f"{name}.png").write_bytes(encode_png(pixels))
            lines.append(f"{name}.png vehicle on the left road\n")
        (tmp_path / f"output_phrase_{split}.txt").write_text("".join(lines))
    release = read_release(tmp_path)
    assert release.format == "phrases"
    assert [len([one for one in release.samples if one.split == split]) for split in ("train", "val", "test")] == [3, 1, 2]
    first = release.samples[0]
    assert first.category == "vehicle"
    assert first.box == (6.0, 4.0, 30.0, 20.0)
    scored = CliRunner().invoke(app, ["evaluate", "largest", str(tmp_path), "-w", str(tmp_path / "w")])
    assert scored.exit_code == 0, scored.exception
    assert "the release names no classes: they are the first that a sentence names" in " ".join(scored.stdout.split())


def test_the_cache_holds_what_the_peers_loaders_would_make(release: Path, cache: Cache) -> None:
    whole = read_release(release)
    for number in (0, len(cache.samples) // 2, len(cache.samples) - 1):
        sample = cache.samples[number]
        pixels = image_of(whole.tree, sample.image)
        assert np.array_equal(cache.images[cache.image_of[number]], resized(pixels, 96))
        assert np.array_equal(cache.mask(np.array([number]))[0].astype(bool), resized_mask(sample.mask, 96))


def test_a_cache_is_made_once_and_anew_when_the_release_changes(workspace: Path, tmp_path: Path) -> None:
    release = tmp_path / "release"
    shutil.copytree(workspace / "4-export" / "risbench", release)
    open_cache(release, 64, tmp_path / "cache", quiet=True)
    made = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    stamp = (made[0] / "images.npy").stat().st_mtime_ns
    assert open_cache(release, 64, tmp_path / "cache", quiet=True).digest
    assert (made[0] / "images.npy").stat().st_mtime_ns == stamp
    # the same records with another pixel: figures of before must not stand
    before = open_cache(release, 64, tmp_path / "cache", quiet=True)
    mended = release / before.samples[0].image
    pixels = np.array(Image.open(mended).convert("RGB"))
    pixels[0, 0] ^= 255
    Image.fromarray(pixels).save(mended)
    after = open_cache(release, 64, tmp_path / "cache", quiet=True)
    assert after.digest != before.digest
    assert after.all_digest != before.all_digest
    # several names of one image: the layout has one a referent
    alone = Counter(sample.image for sample in read_release(release).samples).most_common()[-1][0]
    (release / alone).unlink()
    again = open_cache(release, 64, tmp_path / "cache", quiet=True)
    assert sum(again.left_out.values()) == len(read_release(workspace / "4-export" / "risbench").samples) - len(again.samples) > 0
    assert set(again.left_out) == {"image_missing"}
    assert Path(alone).name in again.first[0]
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 3


def test_a_damaged_image_is_left_out_and_counted(workspace: Path, tmp_path: Path) -> None:
    release = tmp_path / "release"
    shutil.copytree(workspace / "4-export" / "risbench", release)
    whole = len(read_release(release).samples)
    bad = sorted((release / "images").iterdir())[0]
    bad.unlink()
    bad.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    cache = open_cache(release, 64, tmp_path / "cache", quiet=True)
    assert sum(cache.left_out.values()) == whole - len(cache.samples) > 1
    assert len(cache.first) == 1, "an image is named once, not once a sentence"


def test_a_picture_under_several_names_is_one_image(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for number in range(3):
        mask = np.zeros((40, 40, 3), np.uint8)
        mask[4:12, 4 + 10 * number : 12 + 10 * number] = 255
        (tmp_path / "images" / f"P0001_{number}.png").write_bytes(encode_png(picture))
        (tmp_path / "masks" / f"P0001_{number}.png").write_bytes(encode_png(mask))
    lines = "".join(f"P0001_{number}.png the vehicle number {number}\n" for number in range(3))
    for split in ("train", "val", "test"):
        (tmp_path / f"output_phrase_{split}.txt").write_text(lines)
    cache = open_cache(tmp_path, 64, tmp_path / "cache", quiet=True)
    assert len(cache.samples) == 9
    assert {sample.image for sample in cache.samples} == {"images/P0001_0.png"}
    assert set(cache.image_of.tolist()) == {0}


def test_two_commands_make_one_cache(release: Path, tmp_path: Path) -> None:
    code = f"from pathlib import Path\nfrom risbench.benchmark.data.cache import open_cache\nprint(open_cache({str(release)!r}, 64, Path({str(tmp_path)!r}), quiet=True).digest)"
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate(timeout=120)[0] for process in started}
    assert len(said) == 1
    cache = open_cache(release, 64, tmp_path, quiet=True)
    assert all(cache.images[row].any() for row in set(cache.image_of.tolist()))


def test_duplicate_ids_and_files_that_are_no_release_are_named(workspace: Path, tmp_path: Path) -> None:
    refs = tmp_path / "r"
    shutil.copytree(workspace / "4-export" / "refer", refs)
    instances = next(refs.rglob("instances.json"))
    for path in (*refs.rglob("refs*.json"), *refs.rglob("refs*.p")):
        path.chmod(0o644)
    listed = json.loads(next(refs.rglob("refs*.json")).read_text())
    listed.append(listed[0])
    next(refs.rglob("refs*.json")).write_text(json.dumps(listed))
    assert read_release(refs).left_out["duplicate_id"] == 1
    with pytest.raises(InputError, match="is a file; a release is a folder"):
        read_release(instances)


def test_a_damaged_shard_is_named_and_not_passed_over(workspace: Path, tmp_path: Path) -> None:
    cut = shutil.copytree(workspace / "4-export" / "parquet", tmp_path / "cut")
    shards = sorted(cut.rglob("*.parquet"))
    tested = next(path for path in shards if path.name.startswith("test"))
    tested.chmod(0o644)
    tested.write_bytes(tested.read_bytes()[:-1000])
    found = read_release(cut)
    assert found.left_out["damaged_archive"] == 1
    assert tested.name in found.first[0]
    with pytest.raises(InputError, match=rf"cut: has no sample in its test split \(left out: .*{tested.name}"):
        open_cache(cut, 64, tmp_path / "cache", quiet=True).needed("test", cut)
    assert ingest(cut, workspace=tmp_path / "w", quiet=True)["counts"]["quarantined"] == 1
    for path in shards:
        path.chmod(0o644)
        path.write_bytes(b"PAR1")
    with pytest.raises(InputError, match=f"cut: is no release: .*{tested.name}.* is not a readable Parquet table"):
        read_release(cut)


def test_a_record_without_targets_is_left_out_by_name(workspace: Path, tmp_path: Path) -> None:
    shutil.copytree(workspace / "4-export" / "parquet", tmp_path / "r")
    shard = sorted((tmp_path / "r").rglob("*.parquet"))[0]
    shard.chmod(0o644)
    table = pq.read_table(shard)
    record = {**json.loads(table["record"][0].as_py()), "targets": []}
    column = pa.array([json.dumps(record), *table["record"].to_pylist()[1:]])
    pq.write_table(table.set_column(table.schema.get_field_index("record"), "record", column), shard)
    whole, found = read_release(workspace / "4-export" / "parquet"), read_release(tmp_path / "r")
    assert (len(found.samples), dict(found.left_out)) == (len(whole.samples) - 1, {"no_target": 1})


def test_a_release_without_masks_says_what_makes_them(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(encode_png(np.zeros((8, 8, 3), np.uint8)))
    (tmp_path / "train").mkdir()
    row = '{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "expression": "The ship"}'
    (tmp_path / "train" / "instances.json").write_text(
        '{"images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}], "categories": [{"id": 1, "name": "ship"}], "annotations": ['
        + row
        + "]}"
    )
    with pytest.raises(InputError, match="no_mask.*refine-masks"):
        read_release(tmp_path)
    with pytest.raises(InputError, match="there is no such release"):
        open_cache(tmp_path / "nowhere", 64, tmp_path / "cache", quiet=True)


def test_a_full_disk_is_foreseen(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type(usage)(usage.total, usage.total, 1000))
    with pytest.raises(MissingRequirementError, match="1,000 are free"):
        open_cache(release, 96, tmp_path, quiet=True)


# -- words


def test_a_vocabulary_does_not_hang_on_the_order_of_sentences() -> None:
    sentences = ["The red ship at the top", "The blue ship", "The largest storage tank", "a ship, a ship"]
    assert learn_pieces(sentences, 200) == learn_pieces(sentences[::-1], 200)
    assert "ship" in learn_pieces(sentences, 200)


def test_a_long_sentence_keeps_its_first_tokens_and_is_counted() -> None:
    words = words_for(TextSettings(max_tokens=6), ["the ship near the quay and the crane"] * 2)
    ids, valid, cut = words.encode(["the ship", "the ship near the quay and the crane"])
    assert cut == 1
    assert valid.sum(axis=1).tolist() == [4, 6]
    assert ids[0, 4:].tolist() == [0, 0]
    whole = words_for(TextSettings(max_tokens=20), ["the ship near the quay and the crane"] * 2)
    assert ids[1].tolist() == whole.encode(["the ship near the quay and the crane"])[0][0, :6].tolist()


def test_unknown_words_fall_apart_into_pieces_and_a_tokenizer_is_read_back(tmp_path: Path) -> None:
    words = words_for(TextSettings(), ["the ship"] * 3)
    assert words.pieces("the ships") == ["[CLS]", "the", "ship", "##s", "[SEP]"]
    (tmp_path / "t.json").write_text(words.to_json())
    again = Words.read(tmp_path / "t.json", 20)
    assert np.array_equal(again.encode(["the ships sail"])[0], words.encode(["the ships sail"])[0])
    (tmp_path / "t.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as a tokenizer"):
        Words.read(tmp_path / "t.json", 20)


def test_a_hub_name_without_the_hub_says_which_files_to_put_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MissingRequirementError, match=r"vocab.txt\) of https://huggingface.co/google-bert/bert-nowhere into a folder"):
        words_for(TextSettings(weights="google-bert/bert-nowhere"), ["x"])
    with pytest.raises(InputError, match="nowhere: there is no such folder"):
        words_for(TextSettings(weights=str(tmp_path / "nowhere")), ["x"])


# -- batches


def test_batches_hang_on_seed_and_step_alone_and_ranks_share_them(cache: Cache) -> None:
    numbers = cache.of("train")
    tokens, valid = np.zeros((len(numbers), 4), np.int64), np.ones((len(numbers), 4), bool)

    def made(**options: int) -> Batches:
        return Batches(cache, numbers, tokens, valid, batch=8, seed=5, **options)

    epoch = np.concatenate([made().chosen(step) for step in range(made().per_epoch)])
    assert len(set(epoch.tolist())) == len(epoch)
    assert not np.array_equal(made().chosen(0), made().chosen(made().per_epoch))
    assert [step for step, _ in made().steps(2, 5)] == [2, 3, 4]
    whole = made().read(3)
    parts = [made(rank=rank, ranks=2).read(3) for rank in (0, 1)]
    assert torch.equal(torch.cat([parts[0].images, parts[1].images]), whole.images)
    assert whole.images.is_contiguous(memory_format=torch.channels_last)
    assert normalised(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))[0, 0, 0, 0] == pytest.approx((1 - 0.485) / 0.229, rel=1e-5)


def test_sentences_of_an_image_come_together_and_bring_it_once(cache: Cache) -> None:
    numbers = cache.of("train")
    tokens = np.arange(len(numbers))[:, None]
    valid = np.ones_like(tokens, dtype=bool)
    batches = Batches(cache, numbers, tokens, valid, batch=8, seed=5, per_image=3)
    epoch = np.concatenate([batches.chosen(step) for step in range(batches.per_epoch)])
    assert len(set(epoch.tolist())) == len(epoch), "each sentence once"
    images = cache.image_of[numbers[epoch]]
    runs = np.diff(np.flatnonzero(np.r_[True, images[1:] != images[:-1], True]))
    assert runs.max() >= 3
    assert np.mean(runs) > 2, "scenes have about four sentences"
    few = np.resize(np.arange(400), 1600)  # four sentences an image, of which the fourth is left over
    shuffled = few[_gathered(np.random.default_rng(0).permutation(1600), few, 3, np.random.default_rng(1))]
    distinct = [len(set(part.tolist())) for part in np.split(shuffled, 100)]
    assert abs(np.mean(distinct[:50]) - np.mean(distinct[50:])) < 0.5, "groups and what is left over come mixed"
    batch = batches.read(2)
    assert batch.image_of is not None
    assert len(batch.images) == len(set(images[16:24].tolist())) < 8
    assert torch.equal(batch.tokens[:, 0], torch.from_numpy(epoch[16:24]))
    shown = batch.images[batch.image_of].permute(0, 2, 3, 1).numpy()
    assert np.array_equal(shown, cache.images[images[16:24]]), "and each with its own image"


def test_the_first_steps_may_see_smaller_images(cache: Cache) -> None:
    numbers = cache.of("train")
    tokens = np.arange(len(numbers))[:, None]
    options = {"batch": 8, "seed": 5, "per_image": 3}
    whole = Batches(cache, numbers, tokens, np.ones_like(tokens, dtype=bool), **options).read(1)
    batches = Batches(cache, numbers, tokens, np.ones_like(tokens, dtype=bool), **options, coarse_side=48, coarse_steps=2)
    small, large = batches.read(1), batches.read(2)
    assert small.images.shape[-2:] == small.masks.shape[-2:] == (48, 48)
    assert large.images.shape[-2:] == large.masks.shape[-2:] == (96, 96)
    assert torch.equal(small.tokens, whole.tokens)
    for side in (48, 64):
        for mask, made in zip(whole.masks, whole.at(side).masks, strict=True):
            assert np.array_equal(made.numpy() > 0, resized_mask(mask.numpy() > 0, side)), "by the cache's rule"
    mean = whole.images.float().unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))
    assert (small.images.float() - mean).abs().mean() < 4, "what the whole image shows, in half"
    assert small.images.is_contiguous(memory_format=torch.channels_last)


# -- settings


def test_the_bundled_configurations_are_whole() -> None:
    assert bundled() == ["base", "base-convnext", "small", "tiny"]
    base = load_settings("base")
    assert (base.side, base.recipe.batch, base.recipe.epochs, base.recipe.learning_rate) == (480, 32, 40, 5e-5)
    assert load_settings("base", "caris").mid.layers == 6
    assert load_settings("base", "lavt").recipe.loss == "weighted"


@pytest.mark.parametrize(("change", "said"), [
    ("mid.attention=cbamm", "mid.attention = 'cbamm'"), ("mid.heads=7", "must be divisible by heads 7"), ("recipe.batch=0", "recipe.batch = 0"),
    ("lgfa.colour=1", "lgfa.colour = 1"), ("mid.levels=[3,2]", "finest first"), ("capm.scales=[]", "once each"), ("lgfa.heads=5", "divisible by heads 5"),
    ("mid.levels=[2,3]", "need pyramid"), ("backbone.heads=[3,2,2,4]", "stage 1 of embed 16 must be divisible by heads 3"), ("side=98", "multiple of 4"),
    ("recipe.coarse_side=96", "tiny: recipe.coarse_side = 96: must be 0 (off), or from 64 to below side = 96"), ("recipe.coarse_share=1", "less than 1"),
])  # fmt: skip
def test_a_setting_out_of_bounds_is_named(change: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        load_settings("tiny", changes=[change])


def test_a_change_or_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="between the stages of a Swin"):
        load_settings("tiny", "lavt", ["backbone.kind=convnext"])
    with pytest.raises(OptionError, match="section.name=value"):
        load_settings("tiny", changes=["batch"])
    with pytest.raises(OptionError, match="side has no parts"):
        load_settings("tiny", changes=["side.x=3"])
    (tmp_path / "flat.toml").write_text("capm = 3")
    with pytest.raises(InputError, match=r"must be a section, \[capm\]"):
        load_settings(str(tmp_path / "flat.toml"))
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9")
    with pytest.raises(InputError, match="byte 5 is not UTF-8"):
        load_settings(str(tmp_path / "latin.toml"))
    with pytest.raises(OptionError, match="is none of base, base-convnext, small, tiny"):
        load_settings("huge")
    (tmp_path / "own.toml").write_text("side = = 3")
    with pytest.raises(InputError, match=f"{tmp_path}{os.sep}own.toml: is no TOML"):
        load_settings(str(tmp_path / "own.toml"))
