"""What risbench itself wrote and somebody damaged: a value or one line that says what is wrong, never a traceback."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from risbench.core.errors import InputError, RisbenchError
from risbench.core.record import Review
from risbench.core.storage import read_summary, sha256_of
from risbench.core.workspace import Workspace, read_records
from risbench.export import export
from risbench.export.assign import OverlapIndex
from risbench.export.release import write_checksums
from risbench.export.verify import verify
from risbench.formats.split_list import SplitList, read_split_list, write_split_list
from risbench.inspect.audit import _load_links
from risbench.inspect.report_source import open_source
from risbench.inspect.stats import stats_of
from risbench.inspect.validate import validate
from tests.record import a_record, tiny_workspace

ODD: list[Any] = [None, True, -1, 0, 3.5, 10**30, 1e300, "", "x", "../x", "é\x00\u202e", [], {}, [[]], [None], {"a": {"b": []}}, "9" * 5000]
DEEP = b"[" * 100_000


def damaged(draw: random.Random, data: bytes) -> bytes:
    """Return a JSON file with something else in one place, a field less, or other bytes."""
    kind = draw.random()
    if kind < 0.1:
        return draw.choice([b"", DEEP, b'{"a":' * 50_000, data[: len(data) // 2], data + data, b"\xff" + data, b"[" + b"9" * 6_000 + b"]"])
    if kind < 0.2:
        changed = bytearray(data)
        changed[draw.randrange(len(data))] = draw.randrange(256)
        return bytes(changed)
    value = json.loads(data)
    places: list[tuple[Any, Any]] = []
    _walk(value, places)
    holder, key = draw.choice(places)
    if kind < 0.35:
        del holder[key]
    else:
        holder[key] = copy.deepcopy(draw.choice([*ODD, holder[key], [holder[key]]]))
    return json.dumps(value).encode()


def _walk(value: Any, places: list[tuple[Any, Any]]) -> None:
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        places.append((value, key))
        _walk(value[key], places)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = [a_record(f"r{index}").model_copy(update={"review": Review(status="accepted")}) for index in range(4)]
    root = tiny_workspace(tmp_path_factory.mktemp("own") / "w", records)
    paths = [record.image.path for record in records]
    pairs = {"exact": [paths[:2]], "near": [paths[1:3]], "overlapping": [{"images": paths[2:4], "shift_px": [1, 2]}]}
    (root / "1-ingest" / "duplicates.json").write_text(json.dumps(pairs))
    export(workspace=root, split="1,0,0", quiet=True)
    return root


@pytest.fixture
def workspace(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "w"))


def of_stage(root: Path) -> None:
    opened = Workspace.open(root)
    list(read_records(opened.latest()))
    read_summary(root / "1-ingest")


def of_release(root: Path) -> None:
    folder = root / "4-export" / "release"
    write_checksums(folder)
    verify(folder, quiet=True)
    open_source(folder, folder)


def of_records(root: Path) -> None:
    part = root / "1-ingest" / "part-00000.jsonl"
    summary = json.loads((root / "1-ingest" / "run.json").read_bytes())
    summary["parts"][0]["sha256"] = sha256_of(part.read_bytes())
    (root / "1-ingest" / "run.json").write_text(json.dumps(summary))
    of_stage(root)


READERS: list[tuple[str, int, Callable[[Path], object]]] = [
    ("1-ingest/run.json", 150, of_stage),
    ("1-ingest/run.json", 40, lambda root: validate(workspace=root, quiet=True)),
    ("1-ingest/duplicates.json", 150, lambda root: OverlapIndex.read(Workspace.open(root))),
    ("4-export/release/release.json", 40, of_release),
    ("4-export/release/release.json", 20, lambda root: export(workspace=root, split="1,0,0", quiet=True)),
    ("1-ingest/part-00000.jsonl", 120, of_records),
]


@pytest.mark.parametrize(("name", "times", "read"), READERS, ids=[f"{name}-{index}" for index, (name, _, _) in enumerate(READERS)])
def test_a_damaged_file_is_a_value_or_one_line(workspace: Path, name: str, times: int, read: Callable[[Path], object]) -> None:
    whole = {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file() and path.suffix in (".json", ".jsonl")}
    draw, path, read_well = random.Random(name), workspace / name, 0
    for _ in range(times):
        first, line, rest = whole[path].partition(b"\n") if path.suffix == ".jsonl" else (whole[path], b"", b"")
        path.write_bytes(damaged(draw, first) + line + rest)
        try:
            read(workspace)
            read_well += 1
        except RisbenchError as error:
            assert "\n" not in str(error), error
        for other, data in whole.items():
            other.write_bytes(data)
    assert read_well > 0, "some damage is none"


def test_settings_of_any_text_are_settings_or_one_line(tmp_path: Path) -> None:
    draw = random.Random(1)
    text = 'name = "x"\nseed = 0\nengine = "auto"\nsplit_rule = "scene"\nadapter = ""\n'
    cases = [
        "[" * 50_000,
        "a = " + "[" * 20_000,
        "seed = " + "9" * 6_000,
        "a." * 2_000 + "b = 1",
        "\ud800",
        'name = "\\uD800"',
        "seed = 1e9",
    ]
    for number in range(60):
        place = draw.randrange(len(text))
        cases.append(
            text[:place] + draw.choice(["", "[", '"', "\n", "\x00", "é", "= ", "[[a]]\n", "{", "9" * 20]) + text[place + number % 4 :]
        )
    for case in cases:
        (tmp_path / "risbench.toml").write_bytes(case.encode("utf-8", "surrogatepass"))
        try:
            Workspace.open(tmp_path).set_adapter("0123456789ab")
        except InputError as error:
            assert "risbench.toml: " in str(error)


def test_links_nested_too_deep_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "links.json").write_bytes(DEEP)
    with pytest.raises(InputError, match=r"links.json: not JSON: it nests too deeply"):
        _load_links(tmp_path / "links.json")


@pytest.mark.parametrize("name", ["=1+1", "@SUM(A1)", "+5", "-3_0001", "'=1", "''@x", "\tx", "'plain", '=a,"b"', "a=b", "=\nx", "'"])
def test_a_name_that_a_spreadsheet_would_run_is_no_formula_and_reads_back(tmp_path: Path, name: str) -> None:
    for by in ("scene", "id"):
        text = write_split_list(SplitList(by, {name: "train", "other": "test"}))  # type: ignore[arg-type]
        assert not any(line.lstrip('"').startswith(("=", "+", "-", "@", "\t")) for line in text.splitlines())
        (tmp_path / "split.csv").write_bytes(text.encode())
        assert read_split_list(tmp_path / "split.csv").splits == {name: "train", "other": "test"}
    (tmp_path / "split.csv").write_text("scene,split\n=1+1,train\n-3,test\n")
    assert set(read_split_list(tmp_path / "split.csv").splits) == {"=1+1", "-3"}, "a list of somebody's own is read as it stands"


def test_no_text_of_a_source_is_markup_on_the_card(tmp_path: Path) -> None:
    bad = '<script>alert(1)</script> | [x](javascript:1) `"'
    record = a_record()
    source = record.source.model_copy(update={"dataset": bad, "licence": f"CC {bad}"})
    assert record.mask is not None
    mask = record.mask.model_copy(update={"engine": bad})
    record = record.model_copy(update={"source": source, "mask": mask, "review": Review(status="accepted")})
    other = a_record("b").with_problem("ingest", f"code {bad}", "")
    root = tiny_workspace(tmp_path / "w", [record, other])
    folder = Path(export(workspace=root, split="1,0,0", quiet=True)["path"])
    page = (folder / "README.md").read_text()
    assert "<script" not in page
    assert "](javascript" not in page.replace("\\]", "")
    [row] = [line for line in page.splitlines() if line.startswith("| &lt;script")]
    assert row.replace("\\|", "").count("|") == 5
    about = (folder / "croissant.json").read_text()
    assert "<" not in about
    assert bad in json.loads(about)["license"][0]
    assert verify(folder, quiet=True)["faults"] == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_workspace_whose_path_is_no_utf_8_is_released_and_verified(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"w\xff")
    tiny_workspace(root, [a_record().model_copy(update={"review": Review(status="accepted")})])
    made = export(workspace=root, split="1,0,0", formats=["all"], quiet=True)
    assert verify(made["path"], quiet=True)["faults"] == []
    assert len(open_source(made["path"], root).records) == 1
    assert stats_of(list(read_records(root / "1-ingest")), "x", root / "stats")["with_mask"] == 1
