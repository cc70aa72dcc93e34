"""Releases, workspaces and settings that claim what is not so, with every checksum right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from faults.hostile import Case
from faults.stages import STAGES, prepared
from risbench.core.storage import sha256_of

_BASE: list[Path] = []


def use_scratch(folder: Path) -> None:
    """Say where the release and the workspace are made that everything here begins with."""
    _BASE[:] = [folder]


def run_lengths(*numbers: int, width: int = 0) -> str:
    """Return numbers as COCO writes run lengths, each in `width` characters, or as few as it takes."""
    text = ""
    for number in numbers:
        written = 0
        while True:
            piece, number = number & 0x1F, number >> 5
            written += 1
            more = written < width if width else (number != -1 if piece & 0x10 else number != 0)
            text += chr((piece | 0x20 if more else piece) + 48)
            if not more:
                break
    return text


def _copy(stage: str, name: str, place: Path) -> Path:
    shutil.copytree(prepared(STAGES[stage], _BASE[0]) / name, place / name.rpartition("/")[2])
    return place / name.rpartition("/")[2]


def _seal(release: Path) -> None:
    files = sorted(path for path in release.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    (release / "SHA256SUMS").write_text(
        "".join(f"{sha256_of(path.read_bytes())}  {path.relative_to(release).as_posix()}\n" for path in files)
    )


def _release_claims(side: int) -> Callable[[Path], None]:
    """A release whose first record's mask says that it has `side` x `side` pixels, in a dozen characters."""

    def make(place: Path) -> None:
        release = _copy("verify", "w/4-export/release", place)
        path = release / "annotations_train.parquet"
        rows = pq.read_table(path).to_pylist()
        record = json.loads(rows[0]["record"])
        record["mask"] |= {"size": [side, side], "counts": run_lengths(0, side * side)}
        rows[0] |= {"record": json.dumps(record), "mask_rle": record["mask"]["counts"]}
        pq.write_table(pa.Table.from_pylist(rows), path)
        _seal(release)

    return make


def _workspace_claims(side: int) -> Callable[[Path], None]:
    def make(place: Path) -> None:
        folder = _copy("validate", "w", place) / "2-refine" / "round-1"
        part = next(folder.glob("part-*.jsonl"))
        lines = part.read_text().splitlines()
        record = json.loads(lines[0])
        record["mask"] |= {"size": [side, side], "counts": run_lengths(0, side * side)}
        part.write_text("\n".join([json.dumps(record), *lines[1:]]) + "\n")
        summary = json.loads((folder / "run.json").read_text())
        next(item for item in summary["parts"] if item["name"] == part.name)["sha256"] = sha256_of(part.read_bytes())
        (folder / "run.json").write_text(json.dumps(summary))

    return make


def _release_with(name: str, text: str) -> Callable[[Path], None]:
    def make(place: Path) -> None:
        release = _copy("export --replace", "w/4-export/release", place)
        for path in release.glob(name):
            path.write_text(text)
        if name != "SHA256SUMS":
            _seal(release)

    return make


def _workspace_with(name: str, text: str) -> Callable[[Path], None]:
    def make(place: Path) -> None:
        (_copy("validate", "w", place) / name).write_text(text)

    return make


_W: Final = ("-w", "w")
_TRAIN: Final = ("train", "lavt", "release", "--config", "tiny", "--set", "recipe.steps=1", "-o", "o")
_OF_RELEASE: Final = (
    ("verify", "release"),
    ("report", "release"),
    ("ingest", "release", "-w", "w2"),
    _TRAIN,
    ("evaluate", "empty", "release", "-o", "e"),
)
_OF_WORKSPACE: Final = (("validate", *_W), ("stats", *_W), ("report", *_W), ("export", "--split", "1,0,0", "--allow-empty", "--include-unreviewed", *_W),
                        ("review", "push", "--dry-run", *_W), ("refine-masks", "--engine", "grabcut", *_W))  # fmt: skip
_CODES: Final = (0, 1, 2, 3, 4)


def _named(words: tuple[str, ...]) -> str:
    return " ".join(words[:2]) if words[0] == "review" else words[0]


BAD_RELEASES: Final = (
    *(Case(f"release claims {side:,} px a side: {_named(words)}", _release_claims(side), words, _CODES, most_mib=1100, longest_s=20)
      for side in (23_170, 10**6, 10**9) for words in _OF_RELEASE),
    *(Case(f"record claims {side:,} px a side: {_named(words)}", _workspace_claims(side), words, _CODES)
      for side in (23_170, 10**6) for words in _OF_WORKSPACE),
)  # fmt: skip
_DEEP: Final = "[" * 200_000
DEEP_RELEASES: Final = (
    Case("release.json of 200,000 brackets: verify", _release_with("release.json", _DEEP), ("verify", "release"), _CODES),
    Case("release.json of 200,000 brackets: report", _release_with("release.json", _DEEP), ("report", "release"), _CODES),
    Case("COCO of a release of 200,000 brackets: verify", _release_with("coco/instances_*.json", _DEEP), ("verify", "release"), _CODES),
    Case("checksums of 300,000 equal lines: verify", _release_with("SHA256SUMS", ("0" * 64 + "  x\n") * 300_000), ("verify", "release"), _CODES),
)  # fmt: skip
_SETTINGS: Final[dict[str, str]] = {
    "brackets": "a = " + "[" * 5000 + "]" * 5000 + "\n",
    "a vast number": "seed = " + "9" * 5000 + "\n",
    "a vast hexadecimal": "seed = 0x" + "F" * 9000 + "\n",
    "a NUL": "\x00",
    "a key of 20,000 parts": ".".join("a" * 20_000) + " = 1\n",
    "infinity": "seed = inf\n",
    "a date": "name = 1979-05-27\n",
}
_SUMMARIES: Final[dict[str, Any]] = {"a list": [], "nothing": {}, "parts of numbers": {"parts": [1, 2]}, "parts without sums": {"parts": [{"name": "part-00000.jsonl"}]},
                                     "a part outside": {"parts": [{"name": "../../source/x", "sha256": "0"}]}}  # fmt: skip


def _summary_with(value: Any) -> Callable[[Path], None]:
    def make(place: Path) -> None:
        path = _copy("validate", "w", place) / "1-ingest" / "run.json"
        whole = json.loads(path.read_text())
        path.write_text(json.dumps({**whole, **value} if isinstance(value, dict) and value else value))
        shutil.rmtree(place / "w" / "2-refine")

    return make


NESTED_OWN: Final = (
    *(Case(f"risbench.toml with {name}", _workspace_with("risbench.toml", text), ("validate", *_W), _CODES) for name, text in _SETTINGS.items()),
    *(Case(f"run.json of 100,000 brackets: {words[0]}", _workspace_with("1-ingest/run.json", "[" * 100_000), words, _CODES)
      for words in (("validate", *_W), ("stats", *_W), ("refine-masks", "--engine", "box", *_W))),
    *(Case(f"run.json is {name}: {words[0]}", _summary_with(value), words, _CODES)
      for name, value in _SUMMARIES.items() for words in (("validate", *_W), ("stats", *_W))),
)  # fmt: skip
