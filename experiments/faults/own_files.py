"""risbench's own files, with one thing damaged and every checksum beside it made to fit: what is read back has to be checked where it is read."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from faults.mutate import Mutator
from faults.readers import COCO, Reader, write_files
from faults.stages import STAGES, prepared
from risbench.core.errors import InvalidRowError, RisbenchError
from risbench.core.masks import encode_rle
from risbench.core.storage import digest_of, sha256_of
from risbench.core.workspace import Workspace, read_records
from risbench.export import export
from risbench.export.verify import verify
from risbench.formats.brush import encode_brush
from risbench.ingest import ingest
from risbench.inspect.report_source import open_source
from risbench.inspect.validate import validate

_DAMAGED_IN_A_RELEASE: Final = (r"release\.json$", r"SHA256SUMS$", r"split\.csv$", r"\.parquet$", r"\.tar$", r"instances.*\.json$", r"refs.*\.p$",
                                r"output_phrase", r"\.png$", r"croissant\.json$")  # fmt: skip


class OwnFiles:
    """Readers of what risbench itself wrote into `scratch`, where everything is made that they damage."""

    def __init__(self, scratch: Path) -> None:
        """Make nothing yet."""
        self._scratch = scratch

    def readers(self) -> Mapping[str, Reader]:
        """Return them by name."""
        return {
            "release: verify": self._release(lambda source, place: verify(source, quiet=True)),
            "release: read to train": self._release(_read_to_train),
            "release: report": self._release(_look_at),
            "release: ingest": self._release(
                lambda source, place: _no_unforeseen(ingest(source, workspace=place / "w", quiet=True, dry_run=True), place)
            ),
            "Parquet": self._release(
                lambda source, place: _no_unforeseen(ingest(source, workspace=place / "w", quiet=True), place), (r"\.parquet$",)
            ),
            "records in tables": self._table,
            "truth": self._truth,
            "split lists": _split_list,
            "risbench.toml": _toml,
            "settings": _settings,
            "sentences": _sentence,
            "annotations of the server": _annotation,
            "run.json and parts": self._workspace,
            "desk": self._desk,
            "backups": self._backup,
            "trained runs": self._run,
            "adapters": _adapter,
        }

    @cache  # noqa: B019 - one object for the whole program
    def _made(self, stage: str, inside: str) -> dict[str, bytes]:
        root = prepared(STAGES[stage], self._scratch) / inside
        return {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and path.name != ".lock"
        }

    def _release(self, read: Callable[[Path, Path], object], kinds: tuple[str, ...] = _DAMAGED_IN_A_RELEASE) -> Reader:
        def reader(draw: Mutator, place: Path) -> None:
            whole, kind = self._made("ingest of a release", "release"), draw.draw.choice(kinds)
            files = {name: data for name, data in whole.items() if _is_read_with(kind, name)}
            name = draw.draw.choice([name for name in files if re.search(kind, name)])
            data = files[name]
            if name.endswith(".json") and draw.chance(0.8):
                files[name] = draw.json(json.loads(data))
            else:
                files[name] = draw.lines(data.decode()) if name.endswith((".csv", "SUMS", ".txt")) else draw.data(data)
            if name != "SHA256SUMS" and draw.chance(0.8):
                files["SHA256SUMS"] = _sums(files)
            read(write_files(place, files), place)

        return reader

    def _table(self, draw: Mutator, place: Path) -> None:
        """A record that says odd things, and columns that say the same: it is refused, or goes through every stage."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        files = {name: data for name, data in self._made("ingest of a release", "release").items()
                 if name.startswith("images/") or name in ("annotations_train.parquet", "split.csv", "release.json")}  # fmt: skip
        rows = pq.read_table(io.BytesIO(files["annotations_train.parquet"])).to_pylist()
        record = draw.value(json.loads(rows[0]["record"]))
        rows[0]["record"] = draw.json(record).decode("utf-8", "replace") if draw.chance(0.2) else json.dumps(record)
        if isinstance(record, dict) and isinstance(record.get("mask"), dict):
            rows[0]["mask_rle"], rows[0]["id"] = record["mask"].get("counts"), record.get("id")
        out = io.BytesIO()
        try:
            pq.write_table(pa.Table.from_pylist(rows), out)
        except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError, OverflowError, AttributeError):
            return  # no such table can be written
        source = write_files(place, {**files, "annotations_train.parquet": out.getvalue()})
        if draw.chance(0.5):
            _read_to_train(source, place)
        else:
            _through_every_stage(source, place)

    def _truth(self, draw: Mutator, place: Path) -> None:
        from risbench.inspect.audit import audit

        base = self._copy("validate", "w", place)
        first = next(read_records(Workspace.open(base).latest()))
        images = [{"id": 1, "file_name": Path(first.image.source_path).name, "width": first.image.width, "height": first.image.height}]
        left, top, right, bottom = first.targets[0].box
        box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [left, top, right - left, bottom - top]}
        outline = {**box, "segmentation": [[left, top, right, top, right, bottom, left, bottom]]}
        truth = {"images": images, "categories": [{"id": 1, "name": "vehicle"}], "annotations": [outline, *COCO["annotations"][1:]]}
        (place / "truth.json").write_bytes(draw.json(truth))
        audit(truth=place / "truth.json", workspace=base, quiet=True)

    def _copy(self, stage: str, inside: str, place: Path) -> Path:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(prepared(STAGES[stage], self._scratch) / inside, place / inside)
        return place / inside

    def _workspace(self, draw: Mutator, place: Path) -> None:
        from risbench.core.risk import risks

        base = self._copy("validate", "w", place)
        folder = draw.draw.choice((base / "1-ingest", base / "2-refine" / "round-1"))
        part, run_file = next(folder.glob("part-*.jsonl")), folder / "run.json"
        if draw.chance(0.5):
            run_file.write_bytes(draw.json(json.loads(run_file.read_bytes())) if draw.chance(0.8) else draw.data(run_file.read_bytes()))
        else:
            lines = part.read_text().splitlines()
            lines[0] = draw.json(json.loads(lines[0])).decode("utf-8", "replace")
            part.write_text("\n".join(lines) + "\n")
            summary = json.loads(run_file.read_bytes())
            next(item for item in summary["parts"] if item["name"] == part.name)["sha256"] = sha256_of(part.read_bytes())
            run_file.write_text(json.dumps(summary))
        validate(workspace=base, quiet=True)
        risks(list(read_records(Workspace.open(base).latest())))
        if draw.chance(0.3):
            export(workspace=base, split="1,0,0", include_unreviewed=True, quiet=True)

    def _desk(self, draw: Mutator, place: Path) -> None:
        from risbench.review.store.review_store import ReviewStore
        from risbench.review.store.triage_votes import read_triage_votes
        from risbench.review.verbs.pull import quarantine_rows
        from risbench.review.verbs.status import status

        base = self._copy("review backup", "w", place)
        desk = base / "review"
        _add_answers(desk)
        path = draw.draw.choice(
            [item for item in sorted(desk.rglob("*")) if item.is_file() and "server" not in item.parts and item.name != "token"]
        )
        path.write_bytes(_damaged_text(draw, path))
        status(workspace=base)
        opened = ReviewStore(Workspace.open(base))
        quarantine_rows(opened)
        read_triage_votes(opened)

    def _backup(self, draw: Mutator, place: Path) -> None:
        from risbench.review.verbs.backup import restore

        base = self._copy("review restore", "", place)
        data = (base / "desk.zip").read_bytes()
        if draw.chance(0.5):
            data = draw.data(data)
        else:
            out = io.BytesIO()
            with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
                for name in old.namelist():
                    new.writestr(name, draw.json(json.loads(old.read(name))) if name == "backup.json" else old.read(name))
            data = out.getvalue()
        (base / "desk.zip").write_bytes(data)
        beside = {path.name for path in place.iterdir()}
        try:
            restore(base / "desk.zip", workspace=base / "w", replace=True)
        finally:
            assert {path.name for path in place.iterdir()} == beside, "something was unpacked outside"

    def _run(self, draw: Mutator, place: Path) -> None:
        from risbench.benchmark.train.checkpoint import read_model, read_state

        run = self._copy("evaluate", "w/5-benchmark/lavt-tiny-seed0", place)
        path = draw.draw.choice(sorted(item for item in run.iterdir() if item.suffix in (".json", ".pt", ".safetensors")))
        about: dict[str, Any] = json.loads((run / "model.json").read_bytes())
        if path.name == "model.json":
            value = draw.value(about)
            if isinstance(value, dict) and draw.chance(0.9):
                value["digest"] = digest_of({key: item for key, item in value.items() if key != "digest"})
            path.write_text(json.dumps(value))
        elif path.name == "last.pt":
            body = draw.data(path.read_bytes().partition(b"\n")[2])
            path.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
            read_state(run, about["plan"])
        else:
            data = (
                draw.json(json.loads(path.read_bytes()))
                if path.suffix == ".json" and draw.chance(0.7)
                else draw.data(path.read_bytes()[:4000]) + path.read_bytes()[4000:]
            )
            path.write_bytes(data)
            about["tokenizer_sha256" if path.name == "tokenizer.json" else "sha256"] = sha256_of(data)
            about["digest"] = digest_of({key: item for key, item in about.items() if key != "digest"})
            (run / "model.json").write_text(json.dumps(about))
        _, words, _ = read_model(run)
        words.encode(["the large ship on the left", ""])


def _damaged_text(draw: Mutator, path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".json" and draw.chance(0.8):
        return draw.json(json.loads(data))
    if path.suffix == ".jsonl" and data and draw.chance(0.8):
        lines = data.decode().splitlines()
        at = draw.draw.randrange(len(lines))
        lines[at] = draw.json(json.loads(lines[at])).decode("utf-8", "replace")
        return "\n".join(lines).encode()
    return draw.data(data)


def _is_read_with(kind: str, name: str) -> bool:
    """Return whether a file goes into the release of which `kind` is damaged: a reader takes shards or tars where there are no others."""
    if kind == r"\.parquet$":
        return name.startswith(("parquet", "annotations", "images")) or "/" not in name
    if kind == r"\.tar$":
        return name.startswith("webdataset") or ("/" not in name and not name.endswith(".parquet"))
    return True


def _sums(files: Mapping[str, bytes]) -> bytes:
    return "".join(f"{sha256_of(data)}  {name}\n" for name, data in sorted(files.items()) if name != "SHA256SUMS").encode()


def _read_to_train(source: Path, place: Path) -> None:
    from risbench.benchmark.data.release import read_release

    read_release(source)


def _look_at(source: Path, place: Path) -> None:
    opened = open_source(source, source)
    for record in opened.records[:3]:
        opened.pixels(record)


def _no_unforeseen(result: Mapping[str, Any], place: Path) -> None:
    codes = result.get("quarantined_by_code", {})
    assert "reader_error" not in codes, codes


def _through_every_stage(source: Path, place: Path) -> None:
    workspace = place / "w"
    _no_unforeseen(ingest(source, workspace=workspace, quiet=True), place)
    faults = validate(workspace=workspace, quiet=True)["faults"]
    assert not faults, f"ingest let through what validate calls wrong: {faults[0]}"
    formats = ("risbench", "coco", "refer", "yolo", "parquet", "webdataset")
    export(workspace=workspace, split="1,0,0", formats=formats, include_unreviewed=True, quiet=True)


def _split_list(draw: Mutator, place: Path) -> None:
    from risbench.formats.split_list import read_split_list, write_split_list

    text = draw.draw.choice(('scene,split\nP0001,train\nP0002,val\n"a,b",test\n', "id,split\nx/y/z,train\nx/y/w,test\n"))
    source = write_files(place, {"split.csv": draw.lines(text)})
    write_split_list(read_split_list(source / "split.csv"))


def _toml(draw: Mutator, place: Path) -> None:
    text = 'name = "x"\nseed = 0\nengine = "auto"\nsplit_rule = "scene"\nadapter = ""\n'
    workspace = Workspace.open(write_files(place, {"risbench.toml": draw.lines(text)}))
    workspace.set_adapter("0123456789ab")
    Workspace.open(workspace.root)


def _settings(draw: Mutator, place: Path) -> None:
    import risbench.benchmark
    from risbench.benchmark.load_settings import load_settings

    text = (Path(risbench.benchmark.__file__).parent / "configs" / "tiny.toml").read_text()
    path = write_files(place, {"c.toml": draw.lines(text)}) / "c.toml"
    load_settings(str(path), draw.draw.choice(("crobim", "lavt", "caris")), [draw.text("recipe.steps=4")] if draw.chance(0.5) else [])


def _sentence(draw: Mutator, place: Path) -> None:
    from risbench.core.attributes import attributes_of
    from risbench.formats.vrsbench import parse_tokens, sentence_of_prompt
    from risbench.ingest.sentences import clean_sentence, names_several, normalise, says_only_the_class

    pieces = ("the ", "ship", "large ", "two ", "of ", "left", "-", ",", " ", "most ", "first ", "İ", "ß", "ﬁ", "\u0301", "٣", "²", "Ⅷ", "row of ", "and ",
              "9" * 25, "th", "\u200d", "🚢", "é", "(", ".", "?", "<p>", "</p>", "{<1><2>")  # fmt: skip
    text = clean_sentence("".join(draw.draw.choice(pieces) for _ in range(draw.draw.randrange(1, 120)))[:1000])
    for look in (names_several, says_only_the_class, normalise, sentence_of_prompt):
        look(text)
    attributes_of("ship", text, {})
    if draw.chance(0.5):
        parse_tokens(text, "x")


def _annotation(draw: Mutator, place: Path) -> None:
    from risbench.review.store.answers import read_annotation, read_audit, read_expert

    mask = np.zeros((40, 50), bool)
    mask[5:20, 8:30] = True
    size = {"original_width": 50, "original_height": 40, "image_rotation": 0}
    regions = [
        {"from_name": "verdict", "type": "choices", "value": {"choices": ["fix"]}},
        {"from_name": "final", "type": "choices", "value": {"choices": ["A"]}},
        {"from_name": "audit", "type": "choices", "value": {"choices": ["drawn"]}},
        {"from_name": "sentence", "type": "choices", "value": {"choices": ["ambiguous"]}},
        {"from_name": "better", "type": "textarea", "value": {"text": ["the ship"]}},
        {"from_name": "mask", "type": "brushlabels", **size, "value": {"format": "rle", "rle": encode_brush(mask), "brushlabels": ["object"]}},
        {"from_name": "poly", "type": "polygonlabels", **size, "value": {"points": [[1, 1], [20, 1], [20, 30]], "polygonlabels": ["object"]}},
        {"from_name": "rect", "type": "rectanglelabels", **size,
         "value": {"x": 1, "y": 2, "width": 30, "height": 20, "rotation": 10, "rectanglelabels": ["object"]}},
    ]  # fmt: skip
    row = draw.value({"id": 1, "completed_by": 1, "updated_at": "2026", "lead_time": 3.5, "was_cancelled": False, "result": regions})
    if not isinstance(row, dict):
        return  # the client has seen to that
    for read, about in ((read_annotation, mask), (read_expert, mask), (read_audit, mask.shape)):
        try:
            read(row, about)  # type: ignore[operator]
        except (InvalidRowError, RisbenchError):
            continue


@cache
def _adapter_bytes() -> bytes:
    import torch

    from risbench.sam.adapter_file import save_adapter

    out = Path("/dev/shm" if Path("/dev/shm").is_dir() else "/tmp") / "faults-adapter.safetensors"
    save_adapter(out, {"mask_decoder.skip_0.weight": torch.zeros(3, 4)}, "0" * 64, {"steps": 4})
    data = out.read_bytes()
    out.unlink()
    return data


def _adapter(draw: Mutator, place: Path) -> None:
    from risbench.sam.adapter_file import is_adapter, read_adapter

    data = _adapter_bytes()
    length = 8 + int.from_bytes(data[:8], "little")
    if draw.chance(0.5):
        data = draw.data(data[:length]) + data[length:]
    else:
        header = draw.json(json.loads(data[8:length]))
        data = len(header).to_bytes(8, "little") + header + data[length:]
    path = write_files(place, {"a.safetensors": data}) / "a.safetensors"
    is_adapter(path)
    read_adapter(path)


def _add_answers(desk: Path) -> None:
    """Put what people did onto the desk, a line of each kind."""
    item = json.loads((desk / "queue.jsonl").read_text().splitlines()[0])
    size, counts = encode_rle(np.eye(4, dtype=bool))
    answer = {"key": item["key"], "record": item["record"], "annotator": "ana", "task": 1, "annotation": 1, "updated": "2026-01-01", "verdict": "accept",
              "sentence": "", "better": "", "size": size, "counts": counts, "changed": False, "lead_time_s": 3.0}  # fmt: skip
    unusable = {
        "annotator": "ana",
        "project": 1,
        "task": 2,
        "annotation": 2,
        "record": item["record"],
        "updated": "2026-01-01",
        "code": "mask_empty",
        "reason": "x",
    }
    glance = {"record": item["record"], "mask": item["mask"], "person": "ana", "sheet": "s", "doubted": False, "seconds": 2.0}
    (desk / "answers").mkdir(exist_ok=True)
    for name, row in (("answers/1.jsonl", answer), ("quarantine.jsonl", unusable), ("triage.jsonl", glance)):
        (desk / name).write_text(json.dumps(row) + "\n")
    (desk / "answers" / "1.cursor.json").write_text(json.dumps({"1": ["2026-01-01", 1]}))
