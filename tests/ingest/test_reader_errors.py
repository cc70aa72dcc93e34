"""One odd row, file or image never ends a run: it is a line of the quarantine, and a fault of ours is exit 1 with its traceback kept."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from risbench.core.errors import InputError, MissingRequirementError, shortened
from risbench.core.imagery import encode_png
from risbench.core.unexpected import refusal_of
from risbench.formats import vrsbench
from risbench.ingest import ingest, part, refusals
from tests.conftest import cli, eval_row, lines, picture, records
from tests.ingest.test_odd_inputs import codes, write

WEST, NORTH = 500_000.0, 5_000_000.0


def tiff(path: Path, crs: str = "EPSG:32633", transform: Any = None) -> Path:
    """Write a TIFF of 64 x 64 px of 1 m, or of another CRS or transform."""
    path.parent.mkdir(parents=True, exist_ok=True)
    place = transform or rasterio.transform.from_origin(WEST, NORTH, 1, 1)
    with rasterio.open(path, "w", driver="GTiff", width=64, height=64, count=3, dtype="uint8", crs=crs, transform=place) as file:
        file.write(picture(1, 64, 64).transpose(2, 0, 1))
    return path


def feature(x: float, y: float, size: float) -> dict[str, Any]:
    ring = [[x, y], [x + size, y], [x + size, y - size], [x, y - size], [x, y]]
    return {"type": "Feature", "properties": {"class": "ship"}, "geometry": {"type": "Polygon", "coordinates": [ring]}}


def collection(*features: Any, **more: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features), **more}


IN_METRES = {"crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}}
GOOD = feature(15.0002, 45.1532, 1e-4)


def broken_for(words: str) -> Callable[..., Any]:
    original = vrsbench._eval_row

    def reader(row: Any, *more: Any) -> Any:
        if words in row["question"]:
            raise ZeroDivisionError(f"nobody foresaw {object()!r}")
        return original(row, *more)

    return reader


def test_a_row_whose_reader_fails_is_counted_logged_and_exit_one(
    make_source: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_source([eval_row("S0000_0000.png", key) for key in range(4)])
    monkeypatch.setattr(vrsbench, "_eval_row", broken_for("number c"))
    for name in ("one", "two"):
        result = ingest(source, workspace=tmp_path / name, quiet=True)
        assert result["counts"] == {"in": 4, "out": 3, "quarantined": 1, "filtered": 0}
        assert result["quarantined_by_code"] == {"reader_error": 1}
    [line] = lines(tmp_path / "one" / "1-ingest" / "quarantine.jsonl")
    assert (line["source_key"], line["record"], line["value"]) == (
        "2",
        "row 2",
        "ZeroDivisionError: nobody foresaw <object object at 0x...>",
    )
    assert "tests/ingest/test_reader_errors.py" in line["bound"]
    logs = [(tmp_path / name / "1-ingest" / "errors.log").read_text() for name in ("one", "two")]
    assert logs[0] == logs[1]
    assert "VRSBench_EVAL_referring.json row 2" in logs[0]
    assert "risbench/formats/source/rows.py" in logs[0]
    assert str(Path.home()) not in logs[0]
    assert ingest(source, workspace=tmp_path / "one", quiet=True)["quarantined_by_code"] == {"reader_error": 1}  # up to date
    monkeypatch.undo()
    ingest(source, workspace=tmp_path / "one", quiet=True, replace=True, limit=3)
    assert not (tmp_path / "one" / "1-ingest" / "errors.log").exists()


def test_an_image_that_nobody_foresaw_takes_its_own_rows_only(
    make_source: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_source([eval_row(f"S{key % 2:04d}_0000.png", key, f"{{<{key * 9}><9><{key * 9 + 8}><30>}}") for key in range(6)])
    original = part.read_raster

    def reader(file: Any, name: str, **more: Any) -> Any:
        if "S0001" in name:
            raise KeyError("tag 42")
        return original(file, name, **more)

    monkeypatch.setattr(part, "read_raster", reader)
    result = ingest(source, workspace=tmp_path / "w", quiet=True)
    assert (result["counts"]["out"], result["quarantined_by_code"]) == (3, {"reader_error": 3})
    assert "3 rows, such as" in (tmp_path / "w" / "1-ingest" / "errors.log").read_text()
    monkeypatch.setattr(part, "read_raster", lambda *_, **__: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(MissingRequirementError, match="Input/output error"):
        ingest(source, workspace=tmp_path / "x", quiet=True)


def test_the_command_ends_with_one_and_names_the_log(make_source: Callable[..., Path], tmp_path: Path) -> None:
    source = make_source([eval_row("S0000_0000.png", key) for key in range(2)])
    (tmp_path / "sitecustomize.py").write_text(
        "import risbench.core.geometry as g\nbefore = g.repair_box\n"
        "def odd(box, *more):\n    if box[0] > 40: raise IndexError('odd')\n    return before(box, *more)\ng.repair_box = odd\n"
    )
    (source / "VRSBench_more.json").write_text(json.dumps([eval_row("S0001_0000.png", 9, "{<60><60><80><80>}")]))
    paths = f"{tmp_path}:{Path(__file__).parents[2]}"
    for _ in range(2):  # the second time it is up to date, and still no success
        run = cli("ingest", source, "-w", tmp_path / "w", env={"PYTHONPATH": paths})
        assert run.returncode == 1, run.stderr
        assert "1-ingest/errors.log" in run.stderr
        assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("features", "more", "code", "words"),
    [
        ([feature(500_010, 4_999_990, 20)], {}, "projected_without_crs", "EPSG::32633"),
        ([feature(1e6, 1e6, 1)], {}, "projected_without_crs", "states no crs"),
        ([feature(15.0, 91, 1e-4)], {}, "latitude_out_of_range", "longitude first"),
        ([feature(100.0, 91, 1e-4)], {}, "latitude_out_of_range", "-90 to 90"),
        ([feature(45.1532, 15.0002, 1e-4)], {}, "exchanged_axes", "lies in a.tif"),
        ([feature(4_999_990, 500_010, 20)], IN_METRES, "exchanged_axes", "easting"),
        ([feature(15.0, -89.9999, 1e-4)], {}, "outside_all_images", "holds its centre"),
        ([None, 7, {"properties": 3}, feature(float("1e6"), 95, 1)], {}, "wrong_geometry", "Polygon"),
    ],
)
def test_a_feature_that_is_not_where_it_says_is_refused_by_name_and_the_others_are_read(
    tmp_path: Path, features: list[Any], more: dict[str, Any], code: str, words: str
) -> None:
    good = GOOD if not more else feature(500_010, 4_999_990, 20)
    source = write(tmp_path / "s", a__geojson=collection(*features, good, **more))
    tiff(source / "a.tif")
    assert ingest(source, workspace=tmp_path / "w", quiet=True)["counts"]["out"] == 1
    first = lines(tmp_path / "w" / "1-ingest" / "quarantine.jsonl")[0]
    assert (first["code"], words in first["bound"]) == (code, True), first


LOCAL = 'LOCAL_CS["site grid",UNIT["metre",1]]'
ZEROS = rasterio.Affine(0, 0, WEST, 0, 0, NORTH)


@pytest.mark.parametrize(("crs", "transform"), [(LOCAL, None), ("EPSG:4978", None), ("EPSG:32633", ZEROS)])
def test_a_georeference_that_leads_nowhere_is_passed_over_and_counted(tmp_path: Path, crs: str, transform: Any) -> None:
    source = write(tmp_path / "s", VRSBench_x__json=[eval_row("a.tif", 0), eval_row("b.png", 1)], b__png=encode_png(picture(0)))
    tiff(source / "a.tif", crs, transform)
    result = ingest(source, workspace=tmp_path / "w", quiet=True)
    assert (result["counts"]["out"], result["notes"]["georeference_not_used"]) == (2, 1)
    assert all(record["image"]["crs"] is None for record in records(tmp_path / "w" / "1-ingest"))
    write(source, b__geojson=collection(GOOD))
    with pytest.raises(InputError, match="none of the 1 TIFFs of the source has a georeference"):
        ingest(source, workspace=tmp_path / "x", format="geotiff", quiet=True)


HEAD = "image_path,xmin,ymin,xmax,ymax,label"
ROW = "a.tif,5,5,30,30,ship"


@pytest.mark.parametrize(
    ("content", "out", "refused"),
    [
        (f"{HEAD}\r{ROW}\r", 1, []),
        (f"{HEAD}\r\n{ROW}\r\n", 1, []),
        (f"{HEAD}\n{ROW}\n".encode("utf-16"), 1, []),
        (f"{HEAD}\n{ROW}\n".encode("utf-16-le"), 1, []),
        (f"\ufeff{HEAD}\n{ROW}\n".encode("utf-16"), 1, []),
        (f"{HEAD}\n{ROW}\n".replace(",", ";"), 1, []),
        (f"{HEAD}\n{ROW}\n".replace(",", "\t"), 1, []),
        ("image_path;xmin;ymin;xmax;ymax;label\na.tif;5,5;5,25;30,0;30;ship\n", 1, []),
        (f"{HEAD}\n{ROW}\na.tif,5,5,5,5,30,30,ship\n", 1, ["wrong_length"]),
        (f'{HEAD}\n{ROW}\na.tif,5,5,30,30,"ship\n{ROW}\n{ROW}\n', 1, ["broken_csv"]),
        (f"{HEAD}\n{ROW}\na.tif,1e400,5,30,30,ship\na.tif,x,5,30,30,ship\n", 1, ["not_a_number", "not_finite"]),
    ],
)
def test_csv_is_read_however_it_was_saved_or_refused_line_by_line(
    tmp_path: Path, content: str | bytes, out: int, refused: list[str]
) -> None:
    source = write(tmp_path / "s", b__csv=content)
    tiff(source / "a.tif")
    result = ingest(source, workspace=tmp_path / "w", quiet=True)
    assert result["counts"]["out"] == out
    assert codes(tmp_path / "w") == refused


def test_a_csv_without_a_line_of_names_says_so(tmp_path: Path) -> None:
    source = write(tmp_path / "s", b__csv=f"{ROW}\n")
    tiff(source / "a.tif")
    with pytest.raises(InputError, match="its first line holds numbers"):
        ingest(source, workspace=tmp_path / "w", quiet=True)


HUGE = "0x" + "F" * 4000


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ('"image_id": "."', "unsafe_path"),
        ('"image_id": "./"', "unsafe_path"),
        (f'"image_id": "S0000_0000.png", "obj_corner": [{HUGE}, 0, 1, 0, 1, 1, 0, 1]', "not_finite"),
        (f'"image_id": {HUGE}', "not_a_string"),
        (f'"image_id": "S0000_0000.png", "obj_corner": [{"9" * 5000}, 0, 1, 0, 1, 1, 0, 1]', "not_finite"),
        ('"image_id": "S0000_0000.png", "obj_cls": {"a": [1]}', "not_a_string"),
    ],
)
def test_a_name_or_number_that_no_library_takes_is_refused_alone(
    make_source: Callable[..., Path], tmp_path: Path, row: str, code: str
) -> None:
    source = make_source([eval_row("S0000_0000.png", 0)])
    path = source / "VRSBench_EVAL_referring.json"
    plain = '"question": "the far vehicle", "ground_truth": "{<1><1><9><9>}", "obj_cls": "vehicle", '
    path.write_text(f"{path.read_text()[:-1]}, {{{plain}{row}}}]")
    assert ingest(source, workspace=tmp_path / "w", quiet=True)["counts"]["out"] == 1
    assert codes(tmp_path / "w") == [code]


def test_a_key_of_ten_thousand_digits_is_shortened_and_read(make_source: Callable[..., Path], tmp_path: Path) -> None:
    source = make_source([eval_row("S0000_0000.png", 0)])
    path = source / "VRSBench_EVAL_referring.json"
    path.write_text(path.read_text().replace('"question_id": 0', f'"question_id": {HUGE}'))
    assert ingest(source, workspace=tmp_path / "w", quiet=True)["counts"]["out"] == 1
    assert shortened(16**5000) == "<an integer of about 6,020 digits>"


def test_one_fault_in_very_many_rows_stays_short_and_every_row_is_counted(
    make_source: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "WHOLE_LINES", 3)
    monkeypatch.setattr(refusals, "LINES", 6)
    result = ingest(make_source([eval_row("S0000_0000.png", 0), *[{}] * 50]), workspace=tmp_path / "w", quiet=True)
    assert result["counts"] == {"in": 51, "out": 1, "quarantined": 50, "filtered": 0}
    assert result["quarantined_by_code"] == {"missing_field": 50}
    written = lines(tmp_path / "w" / "1-ingest" / "quarantine.jsonl")
    assert [len(line) for line in written] == [8] * 3 + [4] * 3 + [5]
    assert (written[-1]["rows"], written[-1]["record"], written[-1]["last_record"]) == (44, "row 7", "row 50")


def test_the_log_counts_every_row_of_a_fault_also_those_whose_line_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "WHOLE_LINES", 3)
    monkeypatch.setattr(refusals, "LINES", 6)
    kept = refusals.Refusals()
    for number in range(50):
        kept.add("a.json", str(number), f"row {number}", refusal_of(KeyError("one" if number % 5 else "other"), "a.json"), "")
    refusals.write_errors_log(tmp_path, kept.lines, kept.traces)
    log = (tmp_path / "errors.log").read_text()
    assert sorted(re.findall(r"\] (\d+) rows", log)) == ["10", "40"]
    assert log.startswith("50 rows")


def test_almost_json_lines_are_read_up_to_a_budget_and_then_refused_at_once(make_source: Callable[..., Path], tmp_path: Path) -> None:
    source = make_source([eval_row("S0000_0000.png", 0)])
    good = "{'image': 'S0000_0000.png', 'expression': 'the far ship', 'category': 'ship', 'boxes_0_100_xyxy': [[50, 50, 70, 70]]}"
    (source / "more.jsonl").write_text((good + "\n") + ("{'a': " + "[1, 2]," * 900 + "\n") * 400)
    result = ingest(source, workspace=tmp_path / "w", quiet=True)
    assert (result["counts"]["out"], result["quarantined_by_code"]) == (2, {"broken_json": 400})
    last = [line for line in lines(tmp_path / "w" / "1-ingest" / "quarantine.jsonl") if line["file"] == "more.jsonl"][-1]
    assert "save it as strict JSON" in last["bound"]


def test_values_that_would_fill_the_memory_are_refused_by_their_number(
    make_source: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("risbench.formats.source.lenient_json.MAX_VALUE_BYTES", 1_000_000)
    source = make_source([eval_row("S0000_0000.png", 0)])
    (source / "VRSBench_more.json").write_text("[" + "{}," * 20_000 + "{}]")
    assert ingest(source, workspace=tmp_path / "w", quiet=True)["quarantined_by_code"] == {"file_too_large": 1}


def test_an_array_of_pixels_is_no_image_of_a_kind_that_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((8, 8)))
    write(tmp_path, VRSBench_x__json=[eval_row("a.png", 0)])
    with pytest.raises(InputError, match=r"a\.npy is an array file, which is not read; convert it"):
        ingest(tmp_path, workspace=tmp_path / "w", quiet=True)


def test_a_damaged_file_of_tracebacks_is_one_line_that_names_it(
    make_source: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_source([eval_row("S0000_0000.png", 0)])
    module = sys.modules["risbench.ingest.run"]  # the package has the function under this name
    begin = module._run_part

    def then_damage(job: Any, stage: Any, index: int, rows: Any) -> None:
        begin(job, stage, index, rows)
        stage.beside(index, ".errors.json").write_text('{"a": ')

    monkeypatch.setattr(module, "_run_part", then_damage)
    with pytest.raises(InputError, match=r"part-00000\.errors\.json: is damaged .*; remove .*1-ingest and run ingest again"):
        ingest(source, workspace=tmp_path / "w", quiet=True)
    assert not (tmp_path / "w" / "1-ingest" / "run.json").exists()
