"""CSV and Pascal VOC: what their columns and elements mean, and what of them is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from risbench.core.errors import InputError
from risbench.core.imagery import encode_png
from risbench.formats.detect import files_by_format, read_source
from risbench.formats.source.rows import Item, Refused, Row
from risbench.formats.source.tree import SourceTree
from risbench.ingest import ingest
from tests.conftest import picture, records

OBJECT = "<object><name>ship</name><bndbox><xmin>20</xmin><ymin>20</ymin><xmax>60</xmax><ymax>90</ymax></bndbox></object>"
HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax\n"


def read(folder: Path, name: str, content: str | bytes) -> list[Item]:
    """Return what one annotation file holds."""
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    tree = SourceTree.open(folder)
    kind = "dota" if name.endswith(".txt") else "geotiff"
    return list(read_source(tree, kind, [tree.by_path[name]], None))  # type: ignore[arg-type]


def refused(items: list[Item]) -> tuple[str, str]:
    (item,) = items
    assert isinstance(item, Refused), item
    return item.reason.code, item.reason.bound


@pytest.mark.parametrize(
    ("rows", "stated"),
    [
        (["a.png,192,192,ship,20,20,60,90", "a.png,192,192,ship,1,1,80,90", "b.png,96,96,ship,20,20,60,90"], [(192, 192)] * 2 + [(96, 96)]),
        (["a.png,40,40,ship,1,1,41,41", "a.png,60,60,ship,100,100,160,160"], [None, None]),
        (["a.png,40,40,ship,1,1,41,41"], [None]),
        (["a.png,40,70,ship,20,20,60,90", "b.png,40,70,ship,30,30,70,100"], [None, None]),
        (["a.png,40,70,ship,0,0,30,30", "b.png,40,70,ship,30,30,90,100"], [None, None]),
        (["a.png,192,192,ship,20,20,60,90", "a.png,,,ship,20,20,60,90", "a.png,192,192,ship,20,x,60,90"], [(192, 192), None]),
        ([f"{k}.png,192,192,ship,20,20,60,90" for k in range(19)] + ["z.png,192,192,ship,20,20,260,90"], [(192, 192)] * 20),
    ],
)
def test_width_and_height_are_the_images_or_the_boxes_for_the_whole_file(tmp_path: Path, rows: list[str], stated: list[object]) -> None:
    items = read(tmp_path, "b.csv", HEADER + "\n".join(rows) + "\n")
    assert [item.stated_size for item in items if isinstance(item, Row)] == stated


def test_a_box_is_not_scaled_by_its_own_width_and_height(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a.png").write_bytes(encode_png(picture(0, 512, 512)))
    (tmp_path / "s" / "b.csv").write_text(HEADER + "a.png,40,40,ship,1,1,41,41\na.png,60,60,ship,200,200,260,260\n")
    ingest(tmp_path / "s", workspace=tmp_path / "w", quiet=True)
    targets = [record["targets"][0] for record in records(tmp_path / "w" / "1-ingest")]
    assert sorted(target["box"] for target in targets) == [[1, 1, 41, 41], [200, 200, 260, 260]]
    assert all(target["repairs"] == [] for target in targets)


def test_columns_named_for_the_image_are_taken_row_by_row(tmp_path: Path) -> None:
    rows = "a.png,40,40,ship,1,1,41,41\nb.png,60,60,ship,2,2,9,9\n"
    items = read(tmp_path, "b.csv", HEADER.replace("width,height", "image_width,image_height") + rows)
    assert [item.stated_size for item in items if isinstance(item, Row)] == [(40, 40), (60, 60)]


@pytest.mark.parametrize(
    "voc",
    [
        "<annotation><filename>a.png</filename><size><width>192</width><height>192</height></size>{}</annotation>",
        '<annotation xmlns="http://x"><filename>a.png</filename><size><width>192</width><height>192</height></size>{}</annotation>',
        "<?xml version='1.0'?><!-- <made/> --><annotation><filename>a.png</filename><size><width>192</width><height>192</height></size>{}"
        "</annotation>",
    ],
)
def test_voc_is_read_in_a_namespace_too(tmp_path: Path, voc: str) -> None:
    (tmp_path / "a.tif").touch()
    (row,) = read(tmp_path, "c.xml", voc.format(OBJECT))
    assert isinstance(row, Row)
    assert (row.image, row.category, row.boxes[0].box, row.stated_size) == ("a.png", "ship", (20, 20, 60, 90), (192, 192))
    assert [entry.path for entry in files_by_format(SourceTree.open(tmp_path))["geotiff"]] == ["c.xml"]


def test_a_namespaces_prefix_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.tif").touch()
    text = (
        f"<annotation><filename>a.png</filename>{OBJECT}</annotation>".replace("</", "</v:").replace("<", "<v:").replace("<v:/v:", "</v:")
    )
    (row,) = read(tmp_path, "c.xml", text.replace("<v:annotation>", '<v:annotation xmlns:v="http://x">'))
    assert isinstance(row, Row)
    assert row.boxes[0].box == (20, 20, 60, 90)
    assert "geotiff" in files_by_format(SourceTree.open(tmp_path))


def test_another_root_around_boxes_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.tif").touch()
    code, bound = refused(read(tmp_path, "c.xml", f"<dataset><annotation>{OBJECT}</annotation></dataset>"))
    assert code == "unknown_layout"
    assert "its root element is 'dataset', which is not read; only Pascal VOC" in bound
    assert "geotiff" in files_by_format(SourceTree.open(tmp_path))
    assert "it is HRSC2016 (HRSC_Image)" in refused(read(tmp_path, "c.xml", "<HRSC_Image></HRSC_Image>"))[1]


@pytest.mark.parametrize("text", ["<PAMDataset></PAMDataset>", "<product><annotation>made in May</annotation></product>", "no markup"])
def test_a_scenes_metadata_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.tif").touch()
    (tmp_path / "a.tif.aux.xml").write_text(text)
    assert files_by_format(SourceTree.open(tmp_path)) == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("b.csv", "image_path,xmin,ymin,xmax,ymax,label\na.png,10,10,50,50,v\xe9hicule\n"),
        ("a.txt", "40 60 120 60 120 100 40 100 v\xe9hicule 0\n"),
    ],
)
def test_a_file_in_another_encoding_is_refused_by_name(tmp_path: Path, name: str, text: str) -> None:
    code, bound = refused(read(tmp_path, name, text.encode("latin-1")))
    assert code == "not_utf8"
    assert "is not UTF-8; save the file as UTF-8" in bound
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (row,) = read(tmp_path, name, text.encode(encoding))
        assert isinstance(row, Row)
        assert row.category == "v\xe9hicule"
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    (tmp_path / "a.png").write_bytes(encode_png(picture(0)))
    with pytest.raises(InputError, match="save the file as UTF-8"):
        ingest(tmp_path, workspace=tmp_path / "w", quiet=True)
